"""Files encoded by chance, against what a decoder gives that starts at the first frame."""

from pathlib import Path

import av
import numpy as np
import pytest

from tests.conftest import write_video
from vito_mm.videos import decode_frames
from vito_mm.videos.backends import pyav_backend

CONTAINERS = {
    'libx264': ['mp4', 'mov', 'mkv', 'ts', 'flv'],
    'libx265': ['mp4', 'mkv', 'ts'],
    'libvpx-vp9': ['webm', 'mp4'],
    'libvpx': ['webm'],
    'mpeg4': ['mp4', 'mkv', 'avi'],
}
X264 = ['', 'open-gop=1', 'intra-refresh=1', 'b-pyramid=strict', 'cabac=0', 'ref=6']


def write_by_chance(rng: np.random.Generator, folder: Path) -> tuple[Path, dict]:
    codec = str(rng.choice(list(CONTAINERS), p=[0.5, 0.15, 0.15, 0.1, 0.1]))
    ending = str(rng.choice(CONTAINERS[codec]))
    num_frames = int(rng.integers(1, 140))
    times = np.arange(num_frames) / 25
    if ending != 'avi':  # which has neither
        if rng.random() < 0.4:
            steps = rng.choice([0.02, 0.04, 0.1, 0.7], num_frames - 1, p=[0.3, 0.5, 0.15, 0.05])
            times = np.concatenate([[0], np.cumsum(steps)])
        times = times + rng.choice([0, 1.48])
    options = {
        'libx264': {'bf': rng.integers(0, 5), 'x264-params': rng.choice(X264)},
        'libx265': {
            'x265-params': f'log-level=none:keyint={rng.integers(1, 60)}:'
            f'bframes={rng.integers(0, 5)}:open-gop={rng.integers(0, 2)}'
        },
        'mpeg4': {'bf': rng.integers(0, 3)},
    }.get(codec, {'lag-in-frames': rng.integers(0, 20), 'deadline': 'realtime'})
    arguments = dict(
        times=times.round(3),
        codec=codec,
        gop=int(rng.choice([1, 5, 12, 30, 250])),
        options={name: str(value) for name, value in options.items()},
    )
    if ending == 'mp4' and rng.random() < 0.3:
        arguments['container_options'] = {'movflags': 'frag_keyframe+empty_moov'}
    return write_video(folder / f'x.{ending}', **arguments), arguments


def all_frames(path: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Times and pixels of every frame, from one decoder that starts at the beginning."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = list(container.decode(stream))
        shown_at = np.array([frame.pts for frame in frames]) * float(stream.time_base)
    if path.suffix == '.avi':  # which has no times
        shown_at = np.arange(len(frames)) / 25
    return shown_at - shown_at[0], [frame.to_ndarray(format='rgb24') for frame in frames]


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(4))
def test_frames_are_those_of_a_decoder_that_starts_at_the_first(tmp_path, monkeypatch, seed):
    """Pixel by pixel, with all packets in memory and with seeks."""
    rng = np.random.default_rng(seed)
    in_memory = pyav_backend._IN_MEMORY
    for _ in range(40):
        path, arguments = write_by_chance(rng, tmp_path)
        shown_at, pixels = all_frames(path)
        monkeypatch.setattr(pyav_backend, '_IN_MEMORY', int(rng.choice([0, in_memory])))
        for _ in range(6):
            wanted = rng.uniform(0, shown_at[-1] + 0.03, int(rng.integers(1, 6)))
            durations = []
            frames, begins = decode_frames(
                path, lambda d, wanted=wanted, seen=durations: seen.append(d) or wanted
            )
            # The header of a long file may fall short of its last frames, which are not drawn then.
            wanted = np.minimum(wanted, durations[0])
            expected = np.searchsorted(shown_at, wanted + 1e-4, side='right') - 1
            np.testing.assert_allclose(begins, shown_at[expected], atol=2e-3, err_msg=arguments)
            for frame, index in zip(frames, expected, strict=True):
                assert np.array_equal(frame, pixels[index]), arguments
