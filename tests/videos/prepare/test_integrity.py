"""Probing and checking one file."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.helpers.faulty_videos import cut, overwrite, write_moving
from vito_mm.videos.prepare.integrity import inspect_video


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


def noise(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(5000))


def cut_with(codec: str, **mux: str) -> Callable[[Path], object]:
    return lambda path: cut(write_moving(path, codec, container_options=mux))


def undecodable(path: Path) -> None:
    write_moving(path, preset='ultrafast', container_options={'movflags': 'faststart'})
    data = path.read_bytes()
    start = data.index(b'mdat') + 4
    path.write_bytes(data[:start] + b'\xff' * (len(data) - start))


@pytest.mark.parametrize(
    ('name', 'make', 'reason'),
    [
        ('a.mp4', noise, 'no known video format'),
        ('a.mp4', cut_with('libx264'), 'cut off: the index (moov) is missing'),
        ('a.mp4', cut_with('libx264', movflags='faststart'), 'cut off: '),
        ('a.avi', cut_with('mpeg4'), 'cut off: '),
        ('a.webm', cut_with('libvpx-vp9'), 'cut off: '),
        ('a.mkv', cut_with('libx264'), 'cut off: '),
        ('a.mp4', undecodable, 'no frame can be decoded: there is no key frame'),
    ],
)
def test_bad_files_are_called_by_their_fault(tmp_path, name, make, reason):
    make(tmp_path / name)
    for check in (False, True):
        row = inspect_video(tmp_path / name, check=check)
        assert row['verdict'] == 'bad'
        assert row['reason'].startswith(reason), row
        assert '\n' not in row['reason']


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


def test_pyav_is_imported_where_used_and_its_extra_is_named():
    code = (
        'import sys; sys.modules["av"] = None\n'
        'import numpy, vito_mm.videos, vito_mm.videos.prepare.preparation\n'
        'from vito_mm.videos.prepare.integrity import inspect_video\n'
        'for read in inspect_video, lambda name: vito_mm.videos.decode_frames(name, numpy.zeros):\n'
        '    try:\n'
        '        read("setup.py")\n'
        '    except (ImportError, vito_mm.videos.VideoReadError) as error:\n'
        '        print(error)\n'
        'vito_mm.videos.backends.load_backend("pyav")\n'
    )
    run = subprocess.run([sys.executable, '-c', code], cwd=REPO, capture_output=True, text=True)
    assert 'preparing videos needs PyAV: pip install "vito_mm[video]"' in run.stdout
    assert 'backend \'pyav\' needs av: pip install "vito_mm[video]"' in run.stderr
