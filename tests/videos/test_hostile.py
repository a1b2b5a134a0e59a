"""Files and names made to harm: none is followed, waited for or taken into memory."""

import os
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest

from tests.conftest import frame_index, write_video
from tests.helpers.hostile_videos import followed, m3u8, mpd, watched, with_data_reference
from tests.helpers.readers import READERS
from tests.helpers.with_torchcodec import run_python
from vito_mm.videos import VideoReadError, decode_frames
from vito_mm.videos.file_checks import MAX_PIXELS, is_mp4_or_matroska
from vito_mm.videos.images import read_rgb
from vito_mm.videos.prepare.integrity import inspect_video


@pytest.fixture(scope='module')
def video(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp('video') / 'v.mp4', num_frames=30)


@pytest.mark.parametrize('reader', [*READERS, 'images'])
def test_no_file_or_address_is_followed(tmp_path, video, reader):
    assert followed(tmp_path, video, READERS.get(reader, read_rgb)) == []


def test_torchcodec_follows_nothing(tmp_path, video):
    (tmp_path / 'files').mkdir()
    module = ('-m', 'tests.helpers.hostile_videos')
    arguments = tmp_path / 'ffmpeg', *module, tmp_path / 'files', video, 'torchcodec'
    assert run_python('torchcodec', *arguments).strip() == ''


def test_the_watch_sees_what_ffmpeg_follows_unless_it_is_told_not_to(tmp_path, video):
    canary = tmp_path / 'canary.mp4'
    canary.write_bytes(video.read_bytes())
    with_data_reference(video, tmp_path / 'reference.mov', canary)
    (tmp_path / 'list.m3u8').write_text(m3u8('canary.mp4'))
    for name, options in (
        ('reference.mov', {'enable_drefs': '1', 'use_absolute_path': '1'}),
        ('list.m3u8', {'protocol_whitelist': 'file'}),
    ):
        with watched(canary) as watch, av.open(str(tmp_path / name), options=options):
            pass
        assert set(watch.followed) == {'canary.mp4'}, name
    network = {'protocol_whitelist': 'file,http,tcp'}
    with watched(canary) as watch:
        (tmp_path / 'list.m3u8').write_text(m3u8(f'http://127.0.0.1:{watch.port}/x.ts'))
        with pytest.raises(av.error.FFmpegError):
            av.open(str(tmp_path / 'list.m3u8'), options=network, timeout=1).close()
    assert set(watch.followed) == {'the address'}


def test_only_plain_mp4_and_matroska_reach_the_other_decoders(video):
    head = video.read_bytes()[:512]
    assert is_mp4_or_matroska(head)
    assert not is_mp4_or_matroska(b'AAAAftyp' + mpd('x').encode() + bytes(100))
    assert not is_mp4_or_matroska(b'\x1aE\xdf\xa3' + mpd('x').encode() + bytes(100))
    assert not is_mp4_or_matroska(m3u8('x').encode())


@pytest.mark.parametrize('backend', ['pyav', 'decord'])
def test_no_name_is_taken_for_a_protocol_or_a_pattern(tmp_path, monkeypatch, video, backend):
    """FFmpeg joins files for ``concat:``, and reads 0.png, 1.png ... for ``%d.png``."""
    monkeypatch.chdir(tmp_path)
    canary = write_video(tmp_path / 'canary.mp4', num_frames=5)
    for number in range(3):
        (tmp_path / f'{number}.png').write_bytes(canary.read_bytes())
    canaries = [canary, *tmp_path.glob('*.png')]
    for name in ('concat:canary.mp4|canary.mp4', '%d.png', 'subfile,,start,0,end,0,,:canary.mp4'):
        Path(name).write_bytes(video.read_bytes())
        with watched(*canaries) as watch:
            frames, _ = decode_frames(name, lambda duration: np.array([1.0]), backend)
            assert inspect_video(name)['num_frames'] == 30
        assert frame_index(frames[0]) == 25
        assert watch.followed == []


@pytest.mark.parametrize('reader', READERS)
def test_pipes_and_devices_are_not_waited_for(tmp_path, reader):
    for folder in ('pipe', 'device'):
        (tmp_path / folder).mkdir()
    os.mkfifo(tmp_path / 'pipe.mp4')
    os.mkfifo(tmp_path / 'pipe' / '0.jpg')
    (tmp_path / 'device.mp4').symlink_to('/dev/zero')
    (tmp_path / 'device' / '0.jpg').symlink_to('/dev/zero')
    for path in list(tmp_path.iterdir()):
        with pytest.raises(VideoReadError, match='no regular file but a pipe, a socket or a dev'):
            READERS[reader](path)


def png_of(width: int, height: int) -> bytes:
    """A header that claims a size, and few pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', check)

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    parts = chunk(b'IHDR', header), chunk(b'IDAT', zlib.compress(bytes(1000))), chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def write_png_video(path: Path, side: int, image: bytes) -> None:
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('png', rate=25)
        stream.width, stream.height, stream.pix_fmt = side, side, 'rgb24'
        packet = av.Packet(image)
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, 0, 0, True
        container.mux(packet)


@pytest.mark.parametrize('reader', READERS)
def test_frames_above_the_one_limit_are_refused(tmp_path, reader):
    (tmp_path / 'frames').mkdir()
    (tmp_path / 'frames' / '0.png').write_bytes(png_of(30000, 30000))
    (tmp_path / 'still.png').write_bytes(png_of(16384, 16384))
    (tmp_path / 'just.png').write_bytes(png_of(2**14, 2**13 + 1))
    write_png_video(tmp_path / 'video.mov', 16000, png_of(16000, 16000))
    for name in ('frames', 'still.png', 'just.png', 'video.mov'):
        with pytest.raises(VideoReadError) as error:
            READERS[reader](tmp_path / name)
        assert error.value.path == str(tmp_path / name)
        assert error.value.reason.startswith('more pixels in a frame than the limit: ')
    # A header that says less than the frame.
    write_png_video(tmp_path / 'video.mov', 64, png_of(16000, 16000))
    with pytest.raises(VideoReadError):
        READERS[reader](tmp_path / 'video.mov')
    assert MAX_PIXELS == 2**14 * 2**13
    with pytest.raises(VideoReadError, match='more pixels'):
        read_rgb(tmp_path / 'still.png')
