"""Nearest neighbours against brute force."""

import itertools

import numpy as np
import pytest

from tests.conftest import write_video
from tests.helpers.tiny_vito import tiny_vito
from vito_mm.probes.encoder import Encoder
from vito_mm.visualization.clips import rows_of
from vito_mm.visualization.neighbours import (
    Frames,
    choose,
    labels_of,
    nearest,
    read_frames,
    score,
)


def random_frames(videos: list[str], labels: list, seed: int) -> Frames:
    vectors = np.random.default_rng(seed).standard_normal((len(videos), 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [dict(path=f'/videos/{name}') for name in videos]
    return Frames(rows, labels, np.arange(float(len(videos))), vectors)


GALLERY = random_frames([*'aaabbbcccddd'], [*'xxxyyyxxxzzz'], 0)
QUERIES = random_frames([*'aeb'], ['x', 'y', 'unheard of'], 1)


@pytest.mark.parametrize('same_video', [False, True])
def test_neighbours_are_the_nearest_frame_of_each_other_video(same_video):
    found = nearest(QUERIES, GALLERY, 3, same_video)
    for query, neighbours in enumerate(found):
        best = {}
        for index, row in enumerate(GALLERY.rows):
            cosine = float(np.dot(QUERIES.features[query], GALLERY.features[index]))
            if row['path'] == QUERIES.rows[query]['path'] and not same_video:
                continue
            best[row['path']] = max(best.get(row['path'], (-2, None)), (cosine, index))
        wanted = sorted(best.values(), reverse=True)[:3]
        assert [neighbour.index for neighbour in neighbours] == [index for _, index in wanted]
        np.testing.assert_allclose([n.cosine for n in neighbours], [c for c, _ in wanted], 1e-5)


def test_right_ones_are_counted_where_the_class_is_known():
    found = nearest(QUERIES, GALLERY, 9)
    assert [len(neighbours) for neighbours in found] == [3, 4, 3]
    for neighbour in itertools.chain(*found[:2]):
        label = 'x' if neighbour in found[0] else 'y'
        assert neighbour.is_right == (GALLERY.labels[neighbour.index] == label)
    assert {neighbour.is_right for neighbour in found[2]} == {None}
    result = score(QUERIES, GALLERY, found)
    # All videos are neighbours: of b, c, d one is an x; of a, b, c, d one is a y.
    assert result.count == 7
    assert result.share == pytest.approx(2 / 7)
    assert result.chance == pytest.approx((3 * 1 / 3 + 4 * 1 / 4) / 7)
    assert score(random_frames(['e'], [None], 0), GALLERY, found[2:]) is None


def test_a_query_without_any_other_video_is_not_scored():
    gallery, queries = random_frames(['a'], ['x'], 0), random_frames([*'ab'], ['x', 'x'], 1)
    found = nearest(queries, gallery, 3)
    assert [len(neighbours) for neighbours in found] == [0, 1]
    assert score(queries, gallery, found) == (1, 1, 1)
    assert score(queries, gallery, nearest(queries, gallery, 3, True), True) == (1, 1, 2)


def test_classes_are_columns_or_sub_folders():
    rows = [
        dict(path='/data/cat/a.mp4'),
        dict(path='/data/dog/old/b.mp4'),
        dict(path='/data/c.mp4'),
    ]
    assert labels_of(rows, '/data') == ['cat', 'dog', None]
    assert labels_of(rows, None) == [None, None, None]
    rows = [dict(path='a', label=3), dict(path='b', label=3, class_name='cow')]
    assert labels_of(rows, '/data') == ['3', 'cow']


def test_queries_are_of_all_classes():
    labels = [*'a' * 50, *'b' * 3, 'c']
    chosen = choose(labels, 6, 0)
    assert sorted(labels[index] for index in chosen) == ['a', 'a', 'a', 'b', 'b', 'c'] or sorted(
        labels[index] for index in chosen
    ) == ['a', 'a', 'b', 'b', 'b', 'c']
    assert chosen == choose(labels, 6, 0) != choose(labels, 6, 1)
    assert choose(labels, 100, 0) == list(range(54))


def test_features_are_those_of_the_frames_whoever_decodes(tmp_path):
    for index in range(3):
        write_video(tmp_path / f'{index}.mp4', num_frames=20, texture=index)
    (tmp_path / 'bad.mp4').touch()
    network = Encoder.of_model(tiny_vito()[0])
    rows = rows_of(tmp_path)
    frames, errors = read_frames(network, rows, [*'abcd'], 64, frames_per_video=2, workers=2)
    assert len(errors) == 1
    assert 'bad.mp4' in errors[0]
    assert frames.labels == [*'aabbcc']
    assert [row['path'][-5] for row in frames.rows] == [*'001122']
    np.testing.assert_allclose(frames.times, [0.2, 0.6] * 3, atol=0.021)
    np.testing.assert_allclose(np.linalg.norm(frames.features, axis=1), 1, rtol=1e-5)
    alone, _ = read_frames(network, rows[2:3], ['c'], 64, frames_per_video=2)
    np.testing.assert_allclose(frames.features[4:], alone.features, atol=1e-4)
