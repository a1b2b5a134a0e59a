"""Probing and checking one file."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.conftest import REPO
from vito_mm.videos.prepare.integrity import inspect_video


def write_moving(
    path: Path,
    codec: str = 'libx264',
    num_frames: int = 50,
    size: tuple[int, int] = (160, 120),
    times: list[int] | None = None,
    pix_fmt: str = 'yuv420p',
    rotation: int = 0,
    audio: bool = False,
    mux: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """Write noise that moves, so that all bytes of the file matter.

    Args:
        path: File to write; its ending is the container.
        codec: FFmpeg's name of the encoder.
        num_frames: Number of frames, at 25 a second.
        size: Width and height in pixels.
        times: Times of the frames in milliseconds instead.
        pix_fmt: Pixel format.
        rotation: Degrees counter-clockwise that a player is told to turn the frames.
        audio: Whether to add silence, as long as the frames.
        mux: Options of the container.
        options: Options of the encoder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    noise = np.kron(rng.integers(0, 256, (40, 50), dtype=np.uint8), np.ones((8, 8), np.uint8))
    with av.open(str(path), 'w', options=mux or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        if audio:
            sound = container.add_stream('aac', rate=16000)
        for index in range(num_frames):
            gray = np.roll(noise, (2 * index, 3 * index), (0, 1))[: size[1], : size[0]]
            image = np.stack([gray, gray // 2, 255 - gray], -1)
            frame = av.VideoFrame.from_ndarray(image, format='rgb24')
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio:
            silence = np.zeros((1, 640 * num_frames), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format='fltp', layout='mono')
            frame.sample_rate = 16000
            container.mux(sound.encode(frame))
            container.mux(sound.encode())
    return path


def cut(path: Path, part: float = 0.6) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    return path


def overwrite(path: Path, seed: int, num_bytes: int = 200) -> Path:
    """Copy of a file with random bytes somewhere in its middle."""
    rng = random.Random(seed)
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data) // 5, len(data) * 4 // 5 - num_bytes)
    data[start : start + num_bytes] = rng.randbytes(num_bytes)
    damaged = path.with_name(f'{seed}_{path.name}')
    damaged.write_bytes(data)
    return damaged


def test_row_of_an_intact_clip(make_video: Callable[..., Path]):
    path = make_video(num_frames=100, fps=25, size=(64, 48), gop=12)
    row = inspect_video(path)
    assert row.pop('sha256') == inspect_video(path)['sha256']
    assert len(row.pop('keyframe_interval')) == 2
    assert row == {
        'path': str(path),
        'seconds': 4.0,
        'fps': 25.0,
        'num_frames': 100,
        'width': 64,
        'height': 48,
        'codec': 'h264',
        'pix_fmt': 'yuv420p',
        'rotation': 0,
        'bytes': path.stat().st_size,
        'mtime_ns': path.stat().st_mtime_ns,
        'verdict': 'ok',
    }
    checked = inspect_video(path, check=True)
    assert checked.pop('checked')
    del checked['sha256'], checked['keyframe_interval']
    assert checked == row


def test_spacing_of_key_frames(tmp_path: Path):
    path = write_moving(tmp_path / 'a.mp4', num_frames=50, g='20', sc_threshold='0')
    assert inspect_video(path)['keyframe_interval'] == {'max': 0.8, 'mean': 0.667}
    path = write_moving(tmp_path / 'b.mp4', num_frames=50, g='500', sc_threshold='0')
    assert inspect_video(path)['keyframe_interval'] == {'max': 2.0, 'mean': 2.0}


@pytest.mark.parametrize(
    ('name', 'codec', 'known'),
    [
        ('a.webm', 'libvpx-vp9', 'vp9'),
        ('a.webm', 'libvpx', 'vp8'),
        ('a.avi', 'mpeg4', 'mpeg4'),
        ('a.mkv', 'libx265', 'hevc'),
        ('a.ts', 'mpeg2video', 'mpeg2video'),
        ('a.mov', 'mpeg4', 'mpeg4'),
        ('a.flv', 'libx264', 'h264'),
    ],
)
def test_formats(tmp_path: Path, name: str, codec: str, known: str):
    options = {'x265-params': 'log-level=none'} if codec == 'libx265' else {}
    path = write_moving(tmp_path / name, codec, num_frames=20, size=(64, 48), **options)
    for row in (inspect_video(path), inspect_video(path, check=True)):
        assert (row['verdict'], row['codec'], row['num_frames']) == ('ok', known, 20), row
        assert row['seconds'] == pytest.approx(0.8, abs=0.002)
        assert 'notes' not in row


def test_variable_frame_rate_is_measured_from_the_first_frame(tmp_path: Path):
    times = [1000, 1040, 1080, 1500, 1540, 2500]
    path = write_moving(tmp_path / 'a.mkv', num_frames=6, times=times, bf='0')
    row = inspect_video(path)
    assert row['num_frames'] == 6
    assert 1.5 < row['seconds'] < 2.0  # the length of the last frame is a guess
    assert row['fps'] == pytest.approx(6 / row['seconds'], abs=1e-3)


@pytest.mark.parametrize(
    ('turned', 'clockwise', 'size'),
    [(-90, 90, (48, 64)), (90, 270, (48, 64)), (180, 180, (64, 48))],
)
def test_sizes_are_as_shown(tmp_path: Path, turned: int, clockwise: int, size: tuple[int, int]):
    path = write_moving(tmp_path / 'a.mp4', num_frames=5, size=(64, 48), rotation=turned)
    row = inspect_video(path)
    assert (row['rotation'], row['width'], row['height']) == (clockwise, *size)


def test_a_single_frame_is_ok_and_noted(tmp_path: Path):
    row = inspect_video(write_moving(tmp_path / 'a.mp4', num_frames=1))
    assert (row['verdict'], row['num_frames'], row['notes']) == ('ok', 1, 'a single frame')
    assert row['seconds'] < 0.1


def test_name_that_is_not_utf8(tmp_path: Path):
    clip = write_moving(tmp_path / 'a.mp4', num_frames=5)
    name = os.fsdecode(os.fsencode(tmp_path) + b'/\xff.mp4')
    os.rename(clip, name)
    row = inspect_video(name)
    assert (row['verdict'], row['path']) == ('ok', name)


def make_bad(folder: Path, kind: str) -> Path:
    path = folder / 'a.mp4'
    if kind == 'folder':
        path.mkdir()
    elif kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'link':
        path.symlink_to('nothing')
    elif kind == 'empty':
        path.touch()
    elif kind == 'page':
        path.write_text('<!DOCTYPE html>\n<title>Zugriff nicht möglich</title>' * 20)
    elif kind == 'playlist':  # FFmpeg would open what it lists
        path.write_text('#EXTM3U\n#EXTINF:10,\nhttp://localhost/a.ts\n')
    elif kind == 'noise':
        path.write_bytes(random.Random(0).randbytes(5000))
    elif kind == 'sound':
        with av.open(str(path), 'w') as container:
            stream = container.add_stream('aac', rate=16000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), 'fltp', 'mono')
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    elif kind == 'no index':
        cut(write_moving(path))
    elif kind == 'cut mp4':
        cut(write_moving(path, mux={'movflags': 'faststart'}))
    elif kind.startswith('cut '):
        ending, codec = kind.split()[1:]
        path = cut(write_moving(folder / f'a.{ending}', codec))
    elif kind == 'undecodable':
        data = write_moving(path, preset='ultrafast', mux={'movflags': 'faststart'}).read_bytes()
        start = data.index(b'mdat') + 4
        path.write_bytes(data[:start] + b'\xff' * (len(data) - start))
    return path


@pytest.mark.parametrize(
    ('kind', 'reason'),
    [
        ('missing', 'no such file'),
        ('folder', 'holds no images'),
        ('pipe', 'is no regular file'),
        ('link', 'a link to a missing file'),
        ('empty', 'is empty (0 bytes)'),
        ('page', "is text and not a video: it begins with '<!DOCTYPE html>"),
        ('playlist', 'is text and not a video'),
        ('noise', 'no known video format'),
        ('sound', 'no video stream, only audio'),
        ('no index', 'cut off: the index (moov) is missing'),
        ('cut mp4', 'cut off: '),
        ('cut avi mpeg4', 'cut off: '),
        ('cut webm libvpx-vp9', 'cut off: '),
        ('cut mkv libx264', 'cut off: '),
        ('undecodable', 'no frame can be decoded: there is no key frame'),
    ],
)
def test_bad_files_are_called_by_their_fault(tmp_path: Path, kind: str, reason: str):
    path = make_bad(tmp_path, kind)
    for check in (False, True):
        row = inspect_video(path, check=check)
        assert row['verdict'] == 'bad'
        assert row['reason'].startswith(reason), row
        assert '\n' not in row['reason']


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_no_permission(tmp_path: Path):
    path = write_moving(tmp_path / 'a.mp4', num_frames=5)
    path.chmod(0)
    row = inspect_video(path)
    assert (row['verdict'], row['reason']) == ('bad', 'no permission to read it')
    assert 'sha256' not in row


def test_limit_of_pixels(make_video: Callable[..., Path]):
    path = make_video(num_frames=5, size=(64, 48))
    assert inspect_video(path, max_pixels=64 * 48)['verdict'] == 'ok'
    row = inspect_video(path, max_pixels=64 * 48 - 1)
    assert row['reason'] == 'more pixels in a frame than the limit: 64 x 48 > 3071'
    assert 'sha256' not in row  # it may be read with another limit


@pytest.mark.parametrize(
    ('name', 'codec', 'options'),
    [
        ('a.mp4', 'libx264', {'g': '1'}),
        ('b.mp4', 'libx264', {'g': '25'}),
        ('a.webm', 'libvpx-vp9', {'g': '25', 'crf': '20', 'b': '0', 'cpu-used': '8'}),
        ('a.avi', 'mpeg4', {'b': '800000'}),
    ],
)
def test_overwritten_bytes_show_when_all_frames_are_decoded(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
):
    intact = write_moving(tmp_path / name, codec, **options)
    assert inspect_video(intact, check=True)['verdict'] == 'ok'
    rows = [inspect_video(overwrite(intact, seed), check=True) for seed in range(10)]
    reasons = [row['reason'] for row in rows if row['verdict'] == 'bad']
    assert len(reasons) >= 8, rows
    assert all(reason.split(':')[0] in ('damaged', 'cut off') for reason in reasons), reasons


def test_another_hash_than_expected_is_damage(make_video: Callable[..., Path]):
    path = make_video(num_frames=10)
    sha256 = inspect_video(path)['sha256']
    assert inspect_video(path, expected_sha256=sha256)['verdict'] == 'ok'
    row = inspect_video(path, expected_sha256='0' * 64)
    assert row['reason'] == 'its bytes are not those that the manifest has the hash of'
    assert (row['sha256'], row['expected_sha256']) == (sha256, '0' * 64)


def test_sound_does_not_count(tmp_path: Path):
    path = write_moving(tmp_path / 'a.mp4', num_frames=25, audio=True)
    row = inspect_video(path, check=True)
    assert (row['verdict'], row['num_frames'], row['seconds']) == ('ok', 25, 1.0)


def test_pyav_is_imported_where_used_and_its_extra_is_named():
    code = (
        'import sys, vito_mm.videos, vito_mm.videos.prepare.integrity as integrity\n'
        'import vito_mm.videos.prepare.preparation\n'
        'assert "av" not in sys.modules\n'
        'sys.modules["av"] = None\n'
        'integrity.inspect_video("a.mp4")\n'
    )
    run = subprocess.run(
        [sys.executable, '-c', code], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert 'ImportError: preparing videos needs PyAV: pip install "vito_mm[video]"' in run.stderr


def test_recordings_may_start_between_key_frames(tmp_path: Path):
    path = write_moving(tmp_path / 'a.ts', num_frames=50, g='25', sc_threshold='0', bf='0')
    recording = tmp_path / 'recording.ts'
    data = path.read_bytes()
    recording.write_bytes(data[len(data) // 4 // 188 * 188 :])
    row = inspect_video(recording, check=True)
    assert (row['verdict'], row['num_frames']) == ('ok', 25)
    assert row['notes'].endswith('frames before the first key frame are skipped')
