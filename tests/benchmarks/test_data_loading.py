"""The benchmark of data loading: every layout holds the same frames in the bytes that it may."""

import sys

import numpy as np
import pytest
from mmengine.registry import init_default_scope

from tests.conftest import REPO, digits, frame_index


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(REPO / 'benchmarks')
    import data_loading

    monkeypatch.setattr(data_loading, 'SECONDS', 3)
    yield data_loading
    sys.modules.pop('data_loading')


@pytest.mark.slow
def test_layouts_hold_the_same_frames(benchmark, tmp_path):
    init_default_scope('mmpretrain')
    noise = np.random.default_rng(0).integers(-20, 21, (96, 128, 3))
    frames = [(digits(index, (128, 96)) + noise).astype(np.uint8) for index in range(75)]
    layouts = benchmark.write_layouts(frames, tmp_path)
    limit = layouts['all-intra, fast'].num_bytes
    moments = benchmark.draw(0)
    seen = {}
    for title, layout in layouts.items():
        assert layout.quality > 20, title
        for name, (decode, _) in benchmark.variants(layout, ['pyav']).items():
            row = decode.transform(dict(moments, video_path=layout.path))
            seen[title, name] = [frame_index(image) for image in row['imgs']]
        if 'WebP' in title:
            images = benchmark.encoded(frames, 'WebP', int(title.split()[1]))
            assert sum(map(len, images)) < 1.1 * limit
    assert len(set(map(tuple, seen.values()))) == 1
    cases = {
        (title, name): (chain, layout.path)
        for title, layout in layouts.items()
        for name, chain in benchmark.variants(layout, ['pyav']).items()
        if name.endswith('device')
    }
    found = benchmark.measure(cases, clips=1, rounds=1)
    assert found.keys() == cases.keys()
    assert np.all(np.array(list(found.values())) > 0)
