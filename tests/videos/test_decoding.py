"""Decoding of known frames and of damaged files."""

import os

import numpy as np
import pytest

from tests.conftest import frame_index
from vito_mm.videos import VideoReadError, decode_frames


@pytest.mark.parametrize('fps', [10, 25, 50])
def test_frames_are_those_on_screen_at_the_times(make_video, fps):
    path = make_video(num_frames=100, fps=fps)
    # In any order, repeated, on a boundary, in the middle of a frame, beyond the end.
    wanted = np.array([40.5, 3.0, 3.0, 77.01, 0.0, 99.99, 500.0])
    seen = []

    def choose_times(duration):
        seen.append(duration)
        return (wanted + 1e-6) / fps

    frames, begins = decode_frames(path, choose_times)
    assert [frame_index(frame) for frame in frames] == [40, 3, 3, 77, 0, 99, 99]
    np.testing.assert_allclose(begins * fps, [40, 3, 3, 77, 0, 99, 99], atol=1e-3)
    assert seen == [pytest.approx(100 / fps)]
    assert frames.shape == (7, 48, 64, 3)
    assert frames.dtype == np.uint8


def damage(path, kind):
    if kind == 'missing':
        path.unlink()
    elif kind == 'empty':
        path.write_bytes(b'')
    elif kind == 'html':
        path.write_text('<!doctype html><html><body>404</body></html>')
    elif kind == 'truncated':
        path.write_bytes(path.read_bytes()[:200])
    elif kind == 'folder':
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize('kind', ['missing', 'empty', 'html', 'truncated', 'folder'])
def test_a_file_that_cannot_be_read_is_named_in_one_line(make_video, kind):
    path = make_video()
    damage(path, kind)
    with pytest.raises(VideoReadError) as caught:
        decode_frames(path, lambda duration: np.zeros(1))
    assert str(path) in str(caught.value)
    assert caught.value.reason
    assert '\n' not in str(caught.value)


def test_readers_are_closed(make_video):
    path = make_video()
    for _ in range(3):
        decode_frames(path, lambda duration: np.zeros(1))
    links = [f'/proc/self/fd/{entry}' for entry in os.listdir('/proc/self/fd')]
    assert str(path) not in [os.readlink(link) for link in links if os.path.exists(link)]
