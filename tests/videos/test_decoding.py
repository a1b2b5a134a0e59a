"""Decoding of known frames and of damaged files."""

import os
import runpy
import signal
import sys

import av
import cv2
import numpy as np
import pytest

from tests.conftest import frame_index, write_video
from vito_mm.videos import VideoReadError, decode_frames


@pytest.mark.parametrize('name', ['B-frames', 'turned by 90', 'odd size', 'VP9', '10 bit'])
def test_backends_agree_on_pixels(kinds, name):
    def decode(backend, **kwargs):
        return decode_frames(kinds[name], lambda d: np.array([0.1, 1.7]), backend, **kwargs)[0]

    bgr = [frame[..., ::-1] for frame in decode('pyav', channel_order='bgr')]
    for others in (decode('decord'), bgr):
        for ours, theirs in zip(decode('pyav'), others, strict=True):
            assert np.abs(ours.astype(int) - theirs).max() <= 3


@pytest.mark.parametrize('backend', ['pyav', 'decord'])
def test_decoding_goes_on_after_a_fork(tmp_path, backend):
    """Data workers are forks of a process that may have decoded: what it left must not be used."""
    path = write_video(tmp_path / 'x.mp4', num_frames=30, size=(320, 240))

    def decode() -> int:
        return len(decode_frames(path, lambda d: np.array([0.5, 1.0]), backend)[0])

    decode()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends a dead-lock
        os._exit(decode())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert decode() == 2


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


def test_bad_images_are_named(tmp_path):
    (tmp_path / 'one').mkdir()
    (tmp_path / 'one' / '0.jpg').write_bytes(b'no image')
    image = cv2.imencode('.png', np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    (tmp_path / 'cut.png').write_bytes(image[:80])
    for name, reason in (('cut.png', 'OpenCV cannot decode'), ('one', 'an image: 0.jpg')):
        with pytest.raises(VideoReadError, match=reason) as error:
            decode_frames(tmp_path / name, lambda duration: np.zeros(1))
        assert error.value.path == str(tmp_path / name)


def test_unknown_settings_are_named(make_video):
    with pytest.raises(ValueError, match=r"'vlc', known are pyav, decord, torchcodec"):
        decode_frames(make_video(), lambda duration: np.zeros(1), backend='vlc')
    with pytest.raises(ValueError, match="'opencv' was removed: take 'pyav'"):
        decode_frames(make_video(), lambda duration: np.zeros(1), backend='opencv')
    with pytest.raises(ValueError, match="'rgb' or 'bgr'"):
        decode_frames(make_video(), lambda duration: np.zeros(1), channel_order='grb')


def test_a_missing_backend_names_its_extra(monkeypatch, make_video):
    monkeypatch.setitem(sys.modules, 'decord', None)
    monkeypatch.delitem(sys.modules, 'vito_mm.videos.backends.decord_backend', raising=False)
    with pytest.raises(ImportError, match=r'pip install "vito_mm\[decord\]"'):
        decode_frames(make_video(), lambda duration: np.zeros(1), 'decord')


def test_a_pyav_that_crashes_is_refused(monkeypatch):
    monkeypatch.setattr(av, '__version__', '17.0.1')
    with pytest.raises(ImportError, match=r'av>=17\.1'):
        runpy.run_module('vito_mm.videos.containers')
