"""Small copies of videos."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from tests.conftest import frame_index
from tests.helpers.faulty_videos import cut, overwrite, write_moving
from vito_mm.videos.prepare.integrity import inspect_video
from vito_mm.videos.prepare.reencoding import (
    Encoding,
    ReencodingError,
    reencode_video,
    unfinished_copy,
)

FAST = {'preset': 'ultrafast', 'crf': 10}


def read(path: Path) -> tuple[list[np.ndarray], list[float], list[bool]]:
    """Frames of a video, their times in seconds, and which are key frames."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return (
        [frame.to_ndarray(format='rgb24') for frame in frames],
        [float(frame.time) for frame in frames],
        [bool(frame.key_frame) for frame in frames],
    )


def test_copy_is_small_and_has_the_frames_of_the_source(
    make_video: Callable[..., Path], tmp_path: Path
):
    source = make_video(num_frames=60, size=(192, 128), gop=60)
    before = source.read_bytes()
    target = tmp_path / 'small' / 'sub' / 'clip.mp4'
    row = reencode_video(source, target, Encoding(short_side=64, gop=12, **FAST))
    assert source.read_bytes() == before
    assert (row['path'], row['source'], row['verdict']) == (str(target), str(source), 'ok')
    assert (row['width'], row['height'], row['num_frames'], row['seconds']) == (96, 64, 60, 2.4)
    assert row['source_sha256'] == inspect_video(source)['sha256']
    assert row['sha256'] == inspect_video(target, check=True)['sha256']
    frames, times, keys = read(target)
    assert [frame_index(frame) for frame in frames] == list(range(60))
    assert np.allclose(times, np.arange(60) / 25)
    assert [index for index, key in enumerate(keys) if key][:3] == [0, 12, 24]
    assert not unfinished_copy(target).exists()


def test_choices_of_the_encoder(make_video: Callable[..., Path], tmp_path: Path):
    source = write_moving(tmp_path / 'a.mp4')
    kinds = {}
    for fast in (False, True):
        target = tmp_path / f'{fast}.mp4'
        encoding = Encoding(fast_decode=fast, b_frames=not fast)
        reencode_video(source, target, encoding)
        with av.open(str(target)) as container:
            stream = container.streams.video[0]
            kinds[fast] = {PictureType(frame.pict_type).name for frame in container.decode(stream)}
        assert (b'cabac=0' in target.read_bytes()) == fast  # x264 writes down its settings
    assert kinds == {False: {'I', 'P', 'B'}, True: {'I', 'P'}}


def test_frames_keep_their_times(tmp_path: Path):
    times = np.array([1, 1.04, 1.08, 1.5, 1.54, 2.5, 2.503, 2.51])
    source = write_moving(tmp_path / 'a.mkv', num_frames=8, times=times)
    for b_frames in (False, True):
        row = reencode_video(source, tmp_path / 'b.mp4', Encoding(b_frames=b_frames))
        assert row['num_frames'] == 8
        assert np.allclose(read(tmp_path / 'b.mp4')[1], times - 1, atol=1e-3)


@pytest.mark.parametrize(
    ('size', 'short_side', 'expected'),
    [
        ((64, 48), 256, (64, 48)),  # never larger
        ((65, 49), 256, (64, 48)),  # even
        ((200, 101), 50, (100, 50)),
        ((101, 200), 50, (50, 100)),
    ],
)
def test_sizes(tmp_path: Path, size, short_side: int, expected):
    source = write_moving(tmp_path / 'a.mkv', num_frames=3, size=size, pix_fmt='yuv444p')
    row = reencode_video(source, tmp_path / 'b.mp4', Encoding(short_side=short_side))
    assert (row['width'], row['height']) == expected
    assert row['pix_fmt'] == 'yuv420p'


def test_no_sound_and_index_first(tmp_path: Path):
    source = write_moving(tmp_path / 'a.mp4', num_frames=25, seconds_of_audio=1.0)
    target = tmp_path / 'b.mp4'
    reencode_video(source, target, Encoding())
    with av.open(str(target)) as container:
        assert [stream.type for stream in container.streams] == ['video']
    data = target.read_bytes()
    assert data.index(b'moov') < data.index(b'mdat')


def test_bad_source_has_no_copy(tmp_path: Path):
    source = write_moving(tmp_path / 'a.avi', 'mpeg4', b='800000')
    target = tmp_path / 'b.mp4'
    reencode_video(source, target, Encoding())
    for damaged in (overwrite(source, seed=0, num_bytes=2000), cut(source)):
        row = reencode_video(damaged, target, Encoding())
        assert (row['verdict'], row['path'], row['source']) == ('bad', str(damaged), str(damaged))
        assert sorted(file.name for file in tmp_path.glob('b*')) == []
        target.touch()


def test_source_is_not_overwritten(make_video: Callable[..., Path], tmp_path: Path):
    source = make_video(num_frames=5)
    before = source.read_bytes()
    (tmp_path / 'link.mp4').symlink_to(source)
    for target in (source, tmp_path / 'link.mp4'):
        with pytest.raises(ReencodingError, match='it is the source itself'):
            reencode_video(source, target, Encoding())
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'short_side': 0}, 'short_side must be at least 16 pixels, got 0'),
        ({'gop': 0}, 'gop must be at least 1 frame, got 0'),
        ({'crf': 52}, 'crf goes from 0 to 51, got 52'),
        ({'preset': 'fastest'}, "unknown preset 'fastest', known are ultrafast"),
    ],
)
def test_settings_are_checked(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Encoding(**settings)
