"""Decoding of known frames and of damaged files."""

import importlib.util
import struct
import subprocess
import sys
import tarfile
import zlib

import cv2
import numpy as np
import pytest

from tests.conftest import REPO, frame_index, write_video
from tests.helpers.video_layouts import (
    LAYOUTS,
    NO_KEY_FRAMES,
    environment_of_torchcodec,
    frame_times,
    misplaced,
    run_in_process,
    write_layouts,
)
from vito_mm.videos import VideoReadError, decode_frames


@pytest.fixture(scope='module')
def layouts(tmp_path_factory) -> dict:
    return write_layouts(tmp_path_factory.mktemp('layouts'))


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('backend', ['pyav', 'decord'])
def test_frames_are_those_on_screen_at_the_times(layouts, layout, backend):
    if layout == NO_KEY_FRAMES and backend == 'decord':
        pytest.skip('decord gives later frames here, which its docstring says')
    assert misplaced(layout, layouts[layout], backend) == []


def test_torchcodec_gives_the_same_frames(layouts, tmp_path):
    """In a process that finds FFmpeg, which the system may not have."""
    if importlib.util.find_spec('torchcodec') is None:
        pytest.skip('torchcodec is not installed')
    environment = environment_of_torchcodec(tmp_path / 'ffmpeg')
    folder = next(iter(layouts.values())).parent
    assert run_in_process('torchcodec', folder, environment) == ''


@pytest.mark.parametrize('layout', LAYOUTS)
def test_duration_is_that_of_all_frames(layouts, layout):
    """From the first frame to the end of the last one, which lasts as long as most do."""
    seen = []
    decode_frames(layouts[layout], lambda duration: seen.append(duration) or np.zeros(1))
    times = frame_times(layout)
    assert seen == [pytest.approx(times[-1] + 0.04, abs=0.08)]


@pytest.mark.parametrize('layout', ['B-frames', 'turned by 90', 'odd size', 'VP9', '10 bit'])
def test_backends_agree_on_pixels(layouts, layout):
    def decode(backend, **kwargs):
        return decode_frames(layouts[layout], lambda d: np.array([0.1, 1.7]), backend, **kwargs)[0]

    frames = decode('pyav')
    for backend in ('decord',):
        for ours, theirs in zip(frames, decode(backend), strict=True):
            assert np.abs(ours.astype(int) - theirs).max() <= 3
    for ours, theirs in zip(frames, decode('pyav', channel_order='bgr'), strict=True):
        assert np.abs(ours[..., ::-1].astype(int) - theirs).max() <= 3


@pytest.mark.parametrize('backend', ['pyav', 'decord'])
def test_decoding_goes_on_after_a_fork(tmp_path, backend):
    """Data workers are forks of a process that may have decoded: what it left must not be used."""
    path = write_video(tmp_path / 'x.mp4', num_frames=30, size=(320, 240))
    code = (
        'import os, sys, numpy as np; from vito_mm.videos import decode_frames\n'
        'for turn in range(3):\n'
        '    frames, _ = decode_frames(sys.argv[1], lambda d: np.array([0.5, 1.0]), sys.argv[2])\n'
        '    if turn == 1 and os.fork():\n'
        '        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n'
        'print(len(frames))'
    )
    result = subprocess.run(
        [sys.executable, '-c', code, str(path), backend],
        capture_output=True,
        text=True,
        cwd=REPO,
        timeout=100,
    )
    assert (result.returncode, result.stdout) == (0, '2\n'), result.stderr


@pytest.mark.parametrize('backend', ['pyav', 'decord'])
def test_short_side(tmp_path, backend):
    """Smaller frames of the same content; never larger ones."""
    path = write_video(tmp_path / 'x.mp4', num_frames=20, size=(192, 144), rotation=90)
    for short_side, shape in ((48, (64, 48, 3)), (500, (192, 144, 3))):
        frames, _ = decode_frames(path, lambda d: np.array([0.5]), backend, short_side=short_side)
        assert frames[0].shape == shape
        assert frame_index(np.rot90(frames[0], -1)) == 12


def test_a_frame_asked_for_twice_is_decoded_once(make_video):
    frames, begins = decode_frames(make_video(), lambda duration: np.array([3.0, 1.0, 3.01]))
    assert frames[0] is frames[2]
    assert [frame_index(frame) for frame in frames] == [75, 25, 75]
    np.testing.assert_allclose(begins, [3.0, 1.0, 3.0], atol=1e-6)
    assert {(frame.shape, frame.dtype) for frame in frames} == {((48, 64, 3), np.dtype('u1'))}


def test_a_long_file_is_sought_and_not_read(tmp_path, monkeypatch):
    """Matroska and MPEG-TS beyond the size that is read into memory, and a wrong frame nowhere."""
    from vito_mm.videos.backends import pyav_backend

    monkeypatch.setattr(pyav_backend, '_IN_MEMORY', 0)
    times = np.arange(140) / 5
    for name in ('long.mkv', 'long.ts', 'long.mp4'):
        path = write_video(tmp_path / name, times=times, fps=5, gop=20)
        for wanted in ([27.95, 0.0, 14.3, 14.9], [20.1, 20.2, 20.7], [3.9, 4.0, 26.0]):
            frames, _ = decode_frames(path, lambda duration, wanted=wanted: np.array(wanted))
            assert [frame_index(frame) for frame in frames] == [int(5 * t + 1e-3) for t in wanted]


@pytest.mark.parametrize('kind', ['folder', 'tar'])
def test_frames_kept_as_images(tmp_path, kind):
    folder = tmp_path / 'video ü'
    folder.mkdir()
    for index in range(20):
        image = np.full((8, 8, 3), 10 * index, np.uint8)
        image[..., 0] = 5  # BGR
        cv2.imwrite(str(folder / f'{index:04d}.png'), image)
    (folder / 'notes.txt').write_text('no frame')
    path = folder
    if kind == 'tar':
        path = tmp_path / 'video.tar'
        with tarfile.open(path, 'w') as archive:
            archive.add(folder, 'video')
    seen = []

    def choose_times(duration):
        seen.append(duration)
        return np.array([0.95, 0.0, 0.5, 50.0])

    frames, begins = decode_frames(path, choose_times, fps=10)
    assert seen == [pytest.approx(2.0)]
    assert [frame[0, 0].tolist() for frame in frames] == [
        [90, 90, 5],
        [0, 0, 5],
        [50, 50, 5],
        [190, 190, 5],
    ]
    np.testing.assert_allclose(begins, [0.9, 0, 0.5, 1.9])
    assert decode_frames(path, choose_times)[1][2] == pytest.approx(0.48)  # 25 a second


def test_bad_archives_of_images_are_named(tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'page.tar').write_text('<html>404</html>' * 100)
    (tmp_path / 'one').mkdir()
    (tmp_path / 'one' / '0.jpg').write_bytes(b'no image')
    for name, reason in (
        ('empty', 'holds no images'),
        ('page.tar', '.'),
        ('one', 'an image: 0.jpg'),
    ):
        with pytest.raises(VideoReadError, match=reason) as error:
            decode_frames(tmp_path / name, lambda duration: np.zeros(1))
        assert error.value.path == str(tmp_path / name)


def test_unknown_settings_are_named(make_video):
    with pytest.raises(ValueError, match=r"'vlc', known are pyav, decord, torchcodec"):
        decode_frames(make_video(), lambda duration: np.zeros(1), backend='vlc')
    with pytest.raises(ValueError, match="'rgb' or 'bgr'"):
        decode_frames(make_video(), lambda duration: np.zeros(1), channel_order='grb')


@pytest.mark.parametrize(
    ('backend', 'module', 'extra'), [('pyav', 'av', 'video'), ('decord', 'decord', 'decord')]
)
def test_a_missing_backend_names_its_extra(tmp_path, make_video, backend, module, extra):
    """In a process where the import fails as it does without the package."""
    code = (
        f'import sys; sys.modules[{module!r}] = None\n'
        'import numpy as np; from vito_mm.videos import decode_frames\n'
        f'decode_frames({str(make_video())!r}, lambda d: np.zeros(1), {backend!r})'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=REPO)
    assert f'pip install "vito_mm[{extra}]"' in result.stderr.splitlines()[-1]


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
    assert [frame.shape for frame in frames] == [(32, 16, 3)] * 2
    assert begins.tolist() == [0, 0]
    red, green, blue = frames[1][:16].reshape(-1, 3).mean(axis=0)
    assert red > 180
    assert max(green, blue) < 20


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'is empty'),
        (b'<html>404</html>', 'is text'),
        (PNG[:80], 'OpenCV cannot decode'),
        (png_that_claims(60_000, 60_000), 'more pixels in a frame than the limit'),
    ],
    ids=['empty', 'html', 'truncated', 'too many pixels'],
)
def test_bad_image_says_what_is_wrong(tmp_path, content, reason):
    (tmp_path / 'bad.png').write_bytes(content)
    with pytest.raises(VideoReadError, match=reason) as error:
        decode_frames(tmp_path / 'bad.png', no_times)
    assert error.value.path == str(tmp_path / 'bad.png')
