"""Videos that are members of tars or behind addresses: equal frames, and faults by name."""

import contextlib
import gc
import io
import json
import os
import re
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from mmengine.fileio import BaseStorageBackend, register_backend

from tests.conftest import frame_index, write_video
from tests.helpers.faulty_server import FaultyServer, faulty_server
from tests.helpers.readers import READERS, VIEW
from tests.helpers.video_kinds import KINDS
from vito_mm.datasets import DecodeFrames, SampleFrames, VideoDataset
from vito_mm.utils import remote_files
from vito_mm.videos import VideoReadError, decode_frames, read_manifest, write_manifest
from vito_mm.videos.frames import first, spread
from vito_mm.videos.prepare.integrity import inspect_video
from vito_mm.videos.prepare.preparation import prepare_videos
from vito_mm.videos.prepare.reencoding import Encoding
from vito_mm.videos.storage import local_name
from vito_mm.visualization.clips import rows_of

SOME_KINDS = (
    *('B-frames', 'varying rate, mkv', 'late start, ts', 'turned by 90', 'VP9', 'bare H.264'),
    *('MPEG-4, avi', 'cut, edit list', 'time starts again'),
)


def file_of(kind: str) -> str:
    return f'{re.sub("[ ,]+", "_", kind)}.{KINDS[kind].ending}'


def at(*times: float):
    return lambda duration: np.array(times)


def start(path: str | Path, **kwargs) -> list[int]:
    """Number of the frame at 0.4 s, 10 in sound files."""
    return frame_index(decode_frames(path, at(0.4), **kwargs)[0][0])


def pack(tar: Path, *files: Path | tarfile.TarInfo, **kwargs) -> Path:
    with tarfile.open(tar, 'w', **kwargs) as archive:
        for file in files:
            if isinstance(file, tarfile.TarInfo):
                archive.addfile(file, io.BytesIO(bytes(file.size)))
            else:
                archive.add(file, f'./in/{file.name}')
    return tar


@pytest.fixture(scope='module')
def world(tmp_path_factory) -> Path:
    """Some files, and a tar of them."""
    folder = tmp_path_factory.mktemp('storage')
    files = [write_video(folder / f'{i}.mp4', num_frames=30) for i in range(2)]
    for name in SOME_KINDS:
        files.append(folder / file_of(name))
        KINDS[name].make(files[-1])
    image = folder / 'frame1.png'
    cv2.imwrite(str(image), decode_frames(files[0], at(0.4), channel_order='bgr')[0][0])
    frames = pack(folder / 'frames.tar', image)
    pack(folder / 'shard.tar', *files, image, frames)
    return folder


@pytest.fixture(scope='module')
def served(world) -> Iterator[FaultyServer]:
    with faulty_server(world) as server:
        yield server


@pytest.fixture
def server(served, monkeypatch) -> FaultyServer:
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setattr(remote_files, 'SILENCE', 0.3)
    served.asked.clear()
    return served


@pytest.mark.parametrize('name', SOME_KINDS)
def test_frames_from_memory_are_those_of_the_file(world, server, name):
    file = file_of(name)
    wanted = next(KINDS[name].wanted())
    for backend in ('pyav', 'decord'):
        expected, begins = decode_frames(world / file, at(*wanted), backend)
        for path in (f'{world}/shard.tar::in/{file}', f'{server.address}/whole/{file}'):
            frames, times = decode_frames(path, at(*wanted), backend)
            np.testing.assert_array_equal(frames, expected)
            np.testing.assert_array_equal(times, begins)


def test_images_and_frame_archives_are_read_from_memory_too(world, server):
    for base in (f'{world}/shard.tar::in/', f'{server.address}/whole/'):
        assert start(f'{base}frame1.png') == start(f'{base}frames.tar', fps=1) == 10


@pytest.mark.parametrize('reader', READERS)
def test_every_reader_takes_both_and_names_them_in_errors(world, server, tmp_path, reader):
    for good, bad in (
        (f'{world}/shard.tar::in/0.mp4', f'{world}/shard.tar::in/no.mp4'),
        (f'{server.address}/whole/0.mp4', f'{server.address}/gone/0.mp4'),
    ):
        read = READERS[reader]
        if reader == 'reencode':

            def read(path, read=read):
                return read_copy(path, tmp_path / 'x.mp4')

        read(good)
        with pytest.raises(VideoReadError) as error:
            read(bad)
        assert error.value.path == bad
        assert len(str(error.value).splitlines()) == 1


def read_copy(path: str, target: Path) -> None:
    from tests.helpers.readers import checked
    from vito_mm.videos.prepare.reencoding import reencode_video

    checked(reencode_video(path, target, Encoding(preset='ultrafast')))


def test_frames_of_rows(world):
    member = f'{world}/shard.tar::in/0.mp4'
    for source in (member, 'https://host/0.mp4'):
        assert rows_of(source) == [dict(path=source)]
    with pytest.raises(FileNotFoundError, match='manifest'):
        VideoDataset('s3://bucket/videos')
    row = dict(path=member, start=0.4)
    assert frame_index(spread(row, 1, VIEW).frames[0]) in range(10, 30)
    assert len(first(dict(path=member), 99, VIEW)) == 30


@pytest.mark.parametrize(
    ('fault', 'reason'),
    [
        ('gone', '404'),
        ('overloaded', '503'),
        ('cut', 'cut off after'),
        ('too_long', 'Invalid data'),
        ('page', 'is text and not a video'),
        ('silent', 'timed out'),
        ('stalls', 'timed out'),
    ],
)
def test_a_fault_of_a_server_is_one_of_the_video(server, fault, reason):
    path = f'{server.address}/{fault}/0.mp4'
    begin = time.monotonic()
    with pytest.raises(VideoReadError, match=reason) as error:
        start(path)
    assert error.value.path == path
    assert time.monotonic() - begin < 5
    assert server.asked == {f'/{fault}/0.mp4': 1}  # nothing is tried again


def test_a_server_that_never_ends_is_given_up_in_time(server):
    with pytest.raises(VideoReadError, match='longer than the time limit'):
        start(f'{server.address}/drips/0.mp4', time_limit=0.2)


def test_a_slow_server_and_one_that_names_no_length_are_read(server):
    assert start(f'{server.address}/slow/0.mp4') == 10
    assert start(f'{server.address}/no_length/0.mp4') == 10


def test_no_server_and_no_such_storage(server):
    with pytest.raises(VideoReadError, match='refused'):
        start('http://127.0.0.1:9/0.mp4')
    with pytest.raises(VideoReadError, match=r"'ftp', known are .*https://"):
        start('ftp://127.0.0.1/0.mp4')
    with pytest.raises(VideoReadError, match='UnicodeEncodeError'):
        start(f'{server.address}/whole/ä.mp4')
    with pytest.raises(ImportError, match='petrel'):
        start('s3://bucket/0.mp4')
    with pytest.raises(VideoReadError, match='mount the tar'):
        start(f'{server.address}/whole/shard.tar::in/0.mp4')


def test_training_skips_and_counts_what_a_server_does_not_give(world, server, tmp_path):
    rows = [dict(path=f'{server.address}/{fault}/0.mp4') for fault in ('cut', 'whole')]
    rows += [dict(path='shard.tar::in/1.mp4'), dict(path='shard.tar::in/no.mp4')]
    write_manifest(world / 'list.jsonl', rows)
    pipeline = [dict(type=SampleFrames), dict(type=DecodeFrames)]
    # The configs name a data root, which need not be there.
    dataset = VideoDataset('data/videos', str(world / 'list.jsonl'), pipeline)
    np.random.seed(0)
    for index in range(4):
        sample = dataset[index]
        assert len(sample['imgs']) == 3
        skipped = [path for path, _ in sample['skipped_videos']]
        assert (dataset.get_data_info(index)['video_path'] in skipped) == (index in (0, 3))


class Mapped(BaseStorageBackend):
    """As clients of storages are: any error, or nothing, where there is no such file."""

    def __init__(self, root: str) -> None:
        self.root = root

    def get(self, filepath: str) -> bytes | None:
        if 'none' in filepath:
            return None
        if 'refused' in filepath:
            raise RuntimeError('access\ndenied')
        return Path(self.root, os.path.basename(filepath)).read_bytes()

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        raise NotImplementedError


def test_backend_args_name_the_storage_of_all_paths(world):
    register_backend('mapped', Mapped, force=True)
    decode = DecodeFrames(backend_args=dict(backend='mapped', root=str(world)))
    moments = dict(segment=0.1, segment_start=0.0, segment_offsets=np.array([0.0, 0.05]))
    row = decode.transform(dict(video_path='data/0.mp4', **moments))
    assert len(row['imgs']) == 2
    for name, reason in (('none', 'nothing'), ('refused', 'access denied'), ('x', 'No such file')):
        with pytest.raises(VideoReadError, match=reason):
            decode.transform(dict(video_path=f'data/{name}.mp4', **moments))
    local = DecodeFrames(backend_args=dict(backend='local'))
    assert len(local.transform(dict(video_path=f'{world}/0.mp4', **moments))['imgs']) == 2
    with pytest.raises(ValueError, match=r"'sea'.*petrel"):
        DecodeFrames(backend_args=dict(backend='sea'))
    with pytest.raises(ImportError, match='petrel'):
        DecodeFrames(backend_args=dict(backend='petrel'))


def test_a_file_whose_name_has_the_separator_opens(world, tmp_path):
    video = (world / '0.mp4').read_bytes()
    (tmp_path / 'a.tar').mkdir()
    odd = tmp_path / 'a.tar' / 'x.tar::in'
    odd.write_bytes(video)
    assert start(odd) == 10
    odd.rename(tmp_path / 'a::b.mp4')
    assert start(tmp_path / 'a::b.mp4') == 10
    pack(tmp_path / 'a::b.tar', tmp_path / 'a::b.mp4')
    assert start(f'{tmp_path}/a::b.tar::in/a::b.mp4') == 10


def test_members_are_found_under_any_spelling_and_through_links(world, tmp_path):
    inside = [tarfile.TarInfo('in/link.mp4'), tarfile.TarInfo('hard.mp4')]
    inside[0].type, inside[0].linkname = tarfile.SYMTYPE, '0.mp4'
    inside[1].type, inside[1].linkname = tarfile.LNKTYPE, './in/0.mp4'
    long = world / f'{"long" * 40}.mp4'
    long.write_bytes((world / '0.mp4').read_bytes())
    for style in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        pack(tmp_path / 'x.tar', world / '0.mp4', *inside, long, format=style)
        for name in ('in/0.mp4', './in/0.mp4', 'in/link.mp4', 'hard.mp4', f'in/{long.name}'):
            assert start(f'{tmp_path}/x.tar::{name}') == 10


def test_a_tar_that_cannot_be_read_says_why(world, tmp_path):
    folder = tarfile.TarInfo('folder')
    folder.type = tarfile.DIRTYPE
    shard = pack(tmp_path / 's.tar', world / '0.mp4', folder, world / '1.mp4')
    data = shard.read_bytes()
    whole = len(data) - data.rindex(b'moov')  # the end of the last member, and of the tar
    (tmp_path / 'cut.tar').write_bytes(data[:-whole])
    (tmp_path / 'text.tar').write_text('no tar' * 200)
    pack(tmp_path / 'x.tar.gz', world / '0.mp4').rename(tmp_path / 'plain.tar')
    with tarfile.open(tmp_path / 'x.tar.gz', 'w:gz') as archive:
        archive.add(world / '0.mp4', '0.mp4')
    for path, reason in {
        's.tar::in/9.mp4': "no member 'in/9.mp4'$",
        's.tar::folder': 'no file.*folder',
        'cut.tar::in/1.mp4': 'damaged.*unexpected end',
        'cut.tar::in/9.mp4': 'cut off or damaged after 3',
        'text.tar::in/0.mp4': 'no tar without compression',
        'x.tar.gz::0.mp4': 'no tar without compression',
        'gone.tar::0.mp4': r'no such file, and no tar .*gone\.tar',
    }.items():
        with pytest.raises(VideoReadError, match=reason) as error:
            start(f'{tmp_path}/{path}')
        assert error.value.path == f'{tmp_path}/{path}'
    assert start(f'{tmp_path}/cut.tar::in/0.mp4') == 10


def test_a_tar_that_is_replaced_is_looked_at_again(world, tmp_path):
    shard = pack(tmp_path / 's.tar', world / '0.mp4')
    assert start(f'{shard}::in/0.mp4') == 10
    pack(shard, world / 'B-frames.mp4', world / '0.mp4')
    assert start(f'{shard}::in/0.mp4') == 10
    assert start(f'{shard}::in/B-frames.mp4') == 10


def read_so_far() -> int:
    """Bytes that this process has read from files."""
    return int(Path('/proc/self/io').read_text().split()[1])


def test_no_more_of_a_tar_is_read_than_headers_and_the_member(world, tmp_path):
    large = tarfile.TarInfo('large')
    large.size = 2**20
    shard = pack(tmp_path / 's.tar', *[large] * 2, world / '0.mp4', *[large] * 2)
    many = tarfile.TarInfo('many')
    pack(tmp_path / 'many.tar', world / '0.mp4', *[many] * 1000)
    for tar in (shard, tmp_path / 'many.tar'):
        costs = []
        for _ in range(2):
            before = read_so_far()
            start(f'{tar}::in/0.mp4')
            costs.append(read_so_far() - before)
        assert costs[0] < 2**20
        assert costs[1] < 2**17  # the headers are known


def test_nothing_stays_open(world, server):
    paths = [f'{world}/shard.tar::in/{name}.mp4' for name in ('0', 'no')]
    paths += [f'{server.address}/{fault}/0.mp4' for fault in ('whole', 'gone', 'cut', 'page')]
    gc.collect()  # what other tests left
    gc.disable()
    try:
        for path in paths:
            with contextlib.suppress(VideoReadError):
                start(path)
        links = [f'/proc/self/fd/{entry}' for entry in os.listdir('/proc/self/fd')]
        names = [os.readlink(link) for link in links if os.path.lexists(link)]
        assert not [name for name in names if 'memfd:video' in name or '.tar' in name]
        connections = psutil.Process().net_connections()
        assert not [one for one in connections if one.raddr and one.raddr.port == server.port]
    finally:
        gc.enable()


def listed(file: Path) -> dict[str, dict]:
    """Rows of a manifest as they are written."""
    rows = map(json.loads, file.read_text().splitlines())
    return {row['path']: row for row in rows}


def test_preparation_lists_the_videos_of_a_tar(world, tmp_path):
    hidden = tarfile.TarInfo('in/._0.mp4')
    shard = pack(tmp_path / 's.tar', world / '0.mp4', world / '1.mp4', hidden, world / 'frame1.png')
    out = tmp_path / 'out.jsonl'
    prepare_videos(shard, out, workers=1)
    rows = listed(out)
    assert list(rows) == ['s.tar::in/0.mp4', 's.tar::in/1.mp4']
    expected = inspect_video(world / '0.mp4')
    row = rows['s.tar::in/0.mp4']
    assert {**row, 'path': 0, 'mtime_ns': 0} == {**expected, 'path': 0, 'mtime_ns': 0}
    assert start(read_manifest(out)[0]['path']) == 10
    # What has the same size and time is not read again: its bytes are no video any more. In a
    # folder, a tar of frames is a video, and one of videos is its members.
    status = shard.stat()
    shard.write_bytes(shard.read_bytes().replace(b'moov', b'xxxx'))
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    pack(tmp_path / 'frames.tar', world / 'frame1.png')
    prepare_videos(tmp_path, out, workers=1, extensions=('.tar',))
    assert {path: row['verdict'] for path, row in listed(out).items()} == dict.fromkeys(
        ('frames.tar', *rows), 'ok'
    )
    os.utime(shard)
    prepare_videos(shard, out, workers=1)
    assert {row['verdict'] for row in listed(out).values()} == {'bad'}
    os.mkfifo(tmp_path / 'pipe.tar')
    (tmp_path / 'text.tar').write_text('no tar')
    prepare_videos(tmp_path, out, workers=1, extensions=('.tar',))
    assert [listed(out)[name]['verdict'] for name in ('pipe.tar', 'text.tar')] == ['bad', 'bad']
    with pytest.raises(FileNotFoundError, match=r'no tar .*none\.tar'):
        prepare_videos(tmp_path / 'none.tar', out)


def test_preparation_fetches_addresses_once_and_copies_both(world, server, tmp_path):
    shard = pack(tmp_path / 's.tar', world / '0.mp4')
    address = f'{server.address}/whole/1.mp4'
    write_manifest(
        tmp_path / 'list.jsonl',
        [dict(path=f'{shard}::in/0.mp4'), dict(path=address, label='x')],
    )
    source, out = tmp_path / 'list.jsonl', tmp_path / 'out.jsonl'
    for _ in range(2):
        prepare_videos(source, out, workers=1)
        row = listed(out)[address]
        assert (row['verdict'], row['label'], row['num_frames']) == ('ok', 'x', 30)
        assert row['bytes'] == (world / '1.mp4').stat().st_size
    copies = tmp_path / 'copies'
    for _ in range(2):
        encoding = Encoding(preset='ultrafast')
        prepare_videos(source, tmp_path / 'b.jsonl', workers=1, copies=copies, encoding=encoding)
    host = server.address.removeprefix('http://')
    paths = [f'copies/{host}/whole/1.mp4', 'copies/s.tar/in/0.mp4']
    assert list(listed(tmp_path / 'b.jsonl')) == paths
    assert [start(tmp_path / path) for path in paths] == [10, 10]
    assert server.asked == {'/whole/1.mp4': 2}


def test_the_list_of_a_large_tar_does_not_count_against_one_video(world, tmp_path):
    """A tar that takes longer to list than a video may take would never be read."""
    many = tmp_path / 'many.tar'
    pack(many, *(tarfile.TarInfo(f'in/{i}.txt') for i in range(300)), world / '0.mp4')
    calls = []
    with local_name(f'{many}::in/0.mp4', check_deadline=lambda: calls.append(None)) as name:
        assert start(name) == 10
    assert 0 < len(calls) < 10
