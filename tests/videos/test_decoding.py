"""Decoding of known frames and of damaged files."""

import os
import struct
import zlib

import cv2
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


def no_times(duration: float) -> np.ndarray:
    assert duration == 0
    return np.zeros(2)


PNG = cv2.imencode('.png', np.zeros((64, 64, 3), np.uint8))[1].tobytes()


def png_that_claims(width: int, height: int) -> bytes:
    header = b'IHDR' + struct.pack('>II', width, height) + PNG[24:29]
    return PNG[:12] + header + struct.pack('>I', zlib.crc32(header)) + PNG[33:]


def test_images_are_rgb_and_turned_as_exif_says(tmp_path):
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16, 2] = 255  # BGR: red on the left
    jpeg = cv2.imencode('.jpg', image)[1].tobytes()
    # An APP1 segment with the one tag orientation = 6: turn by a quarter, clockwise.
    tiff = b'Exif\0\0MM\0*' + struct.pack('>IHHHIHHI', 8, 1, 0x112, 3, 1, 6, 0, 0)
    segment = b'\xff\xe1' + struct.pack('>H', len(tiff) + 2) + tiff
    (tmp_path / 'turned.jpg').write_bytes(jpeg[:2] + segment + jpeg[2:])
    frames, begins = decode_frames(tmp_path / 'turned.jpg', no_times)
    assert frames.shape == (2, 32, 16, 3)
    assert begins.tolist() == [0, 0]
    red, green, blue = frames[1, :16].reshape(-1, 3).mean(axis=0)
    assert red > 180
    assert max(green, blue) < 20


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'is empty'),
        (b'<html>404</html>', 'OpenCV cannot decode'),
        (PNG[:80], 'OpenCV cannot decode'),
        (png_that_claims(60_000, 60_000), 'CV_IO_MAX_IMAGE_PIXELS'),
    ],
    ids=['empty', 'html', 'truncated', 'too many pixels'],
)
def test_bad_image_says_what_is_wrong(tmp_path, content, reason):
    (tmp_path / 'bad.png').write_bytes(content)
    with pytest.raises(VideoReadError, match=reason) as error:
        decode_frames(tmp_path / 'bad.png', no_times)
    assert error.value.path == str(tmp_path / 'bad.png')
