"""Files that are not what they should be, read by every backend."""

import builtins
import errno
import io
import os
import tarfile
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import frame_index, write_video
from tests.helpers import faulty_videos as faulty
from tests.helpers.readers import READERS, VIEW
from vito_mm.videos import VideoReadError, decode_frames, find_videos
from vito_mm.videos.frames import first, spread
from vito_mm.videos.prepare.integrity import inspect_video

BACKENDS = ('pyav', 'decord')


def at(*times: float):
    return lambda duration: np.array(times)


REASONS = {
    'empty.mp4': 'is empty (0 bytes)',
    'page.mp4': "is text and not a video: it begins with '<!doctype html>",
    'audio_only.mp4': 'no video stream, only audio',
    'folder.mp4': 'holds no images',
    'pipe.mp4': 'is no regular file but a pipe',
    'nowhere.mp4': 'no such file',
    'link.mp4': 'a link to a missing file',
    # A playlist, of which FFmpeg would open what it lists.
    'list.mp4': 'is text and not a video',
}
OTHERS = {
    'nowhere.mp4': lambda path: None,
    'link.mp4': lambda path: path.symlink_to('nothing'),
    'list.mp4': lambda path: path.write_text('#EXTM3U\nhttp://localhost/a.ts\n'),
}


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize('name', [*faulty.UNREADABLE, *OTHERS])
def test_an_unreadable_file_is_named_with_a_reason_in_one_line(tmp_path, name, reader):
    path = tmp_path / name
    (faulty.UNREADABLE | OTHERS)[name](path)
    with pytest.raises(VideoReadError) as error:
        READERS[reader](path)
    assert error.value.path == str(path)
    assert error.value.reason.strip()
    assert error.value.reason.startswith(REASONS.get(name, ''))
    assert '\n' not in str(error.value)


def exit_status_as_nobody(action) -> int:
    """Exit status of a child that does something as a user who may not read everything."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            status = action()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def public_folder():
    """A folder that any user may enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_no_permission(public_folder):
    path = write_video(public_folder / 'x.mp4', num_frames=5)

    def read() -> int:
        try:
            decode_frames(path, at(0.0))
        except VideoReadError as error:
            return 3 if error.reason == 'no permission to read it' else 2
        return 0

    path.chmod(0o644)
    assert exit_status_as_nobody(read) == 0
    path.chmod(0)
    assert exit_status_as_nobody(read) == 3


def test_a_folder_that_cannot_be_listed_is_not_left_out(public_folder):
    for name in ('cat', 'dog'):
        (public_folder / name).mkdir(mode=0o755)
        write_video(public_folder / name / 'x.mp4', num_frames=5)

    def search() -> int:
        try:
            return len(find_videos(public_folder))
        except PermissionError as error:
            return 7 if 'dog' in str(error) else 8

    assert exit_status_as_nobody(search) == 2
    (public_folder / 'dog').chmod(0)
    assert exit_status_as_nobody(search) == 7


def test_a_file_that_is_cut_off_gives_its_first_frames(tmp_path):
    """Nothing is looked at but what is wanted."""
    faulty.truncated_data(tmp_path / 'x.mp4')
    for backend in BACKENDS:
        with pytest.raises(VideoReadError):
            decode_frames(tmp_path / 'x.mp4', at(3.9), backend)
        assert len(decode_frames(tmp_path / 'x.mp4', at(0.0), backend)[0]) == 1


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('seed', range(4))
def test_overwritten_bytes_are_an_error_or_a_frame(tmp_path, backend, seed):
    """Decoders pass over some damage in silence; nothing else may come of it."""
    faulty.overwritten(tmp_path / 'x.mp4')
    wanted = np.random.default_rng(seed).uniform(0, 4, 3)
    try:
        frames, _ = decode_frames(tmp_path / 'x.mp4', at(*wanted), backend)
    except VideoReadError:
        return
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3


def test_the_end_of_a_long_file_is_that_of_its_frames(tmp_path, monkeypatch):
    """A long Matroska file has no table of them, and its sound goes on for a minute."""
    from vito_mm.videos.backends import pyav_backend

    monkeypatch.setattr(pyav_backend, '_IN_MEMORY', 0)
    path = write_video(tmp_path / 'x.mkv', seconds_of_audio=60.0)
    seen = []
    frames, _ = decode_frames(path, lambda duration: seen.append(duration) or np.array([30.0]))
    assert seen == [pytest.approx(4.0)]
    assert [frame_index(frame) for frame in frames] == [99]
    assert [frame_index(frame) for frame in decode_frames(path, at(3.5))[0]] == [87]


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('ending', ['mp4', 'mkv', 'ts'])
def test_a_recording_that_begins_between_key_frames(tmp_path, backend, ending):
    """Its start may not be decodable; from the first key frame on all is well."""
    path = tmp_path / f'x.{ending}'
    faulty.no_key_frame_at_the_start(path)
    frames, begins = decode_frames(path, at(1.4, 2.0), backend)
    first, second = (frame_index(frame) for frame in frames)
    assert second - first == round(25 * (begins[1] - begins[0]))
    assert first >= 25


def test_names_that_are_not_utf8(tmp_path):
    write_video(tmp_path / 'x.mp4', num_frames=30)
    path = os.fsencode(tmp_path) + b'/\xff\xfe.mp4'
    os.rename(tmp_path / 'x.mp4', path)
    for backend in BACKENDS:
        frames, _ = decode_frames(os.fsdecode(path), at(0.5), backend)
        assert frame_index(frames[0]) == 12
    row = dict(path=os.fsdecode(path))
    assert [len(read(row, 2, VIEW)) for read in (first, lambda *a: spread(*a).frames)] == [2, 2]
    (tmp_path / 'y.mp4').write_text('<html>')
    os.rename(tmp_path / 'y.mp4', path)
    with pytest.raises(VideoReadError) as error:
        decode_frames(os.fsdecode(path), at(0.5))
    assert os.fsencode(error.value.path) == path


def test_frames_of_8k(tmp_path):
    faulty.large_frames(tmp_path / 'x.mp4')
    for backend in BACKENDS:
        frames, _ = decode_frames(tmp_path / 'x.mp4', at(0.05), backend, short_side=256)
        assert frames[0].shape == (256, 455, 3)
        assert frame_index(frames[0]) == 1


@pytest.mark.parametrize('backend', BACKENDS)
def test_time_limit(tmp_path, backend):
    """A file that is fine, and a limit that no machine can keep."""
    path = write_video(tmp_path / 'x.mp4', size=(640, 480), gop=140, num_frames=140)
    with pytest.raises(VideoReadError, match='longer than the time limit'):
        decode_frames(path, at(5.5), backend, time_limit=1e-3)
    assert len(decode_frames(path, at(5.5), backend, time_limit=60)[0]) == 1


@pytest.mark.parametrize('backend', BACKENDS)
def test_nothing_stays_open(tmp_path, backend):
    path = write_video(tmp_path / 'x.mp4', num_frames=10)
    faulty.truncated_index(tmp_path / 'y.mp4')
    for _ in range(3):
        decode_frames(path, at(0.0), backend)
        with pytest.raises(VideoReadError):
            decode_frames(tmp_path / 'y.mp4', at(0.0), backend)
    links = [f'/proc/self/fd/{entry}' for entry in os.listdir('/proc/self/fd')]
    open_files = [os.readlink(link) for link in links if os.path.exists(link)]
    assert not [file for file in open_files if file.startswith(str(tmp_path))]


@pytest.mark.parametrize('kind', ['folder', 'tar', 'image', 'video'])
def test_a_disk_that_fails_while_a_file_is_read(tmp_path, monkeypatch, kind):
    """An error of the system is one of the file, with its reason, for every reader."""
    picture = cv2.imencode('.png', np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / '0.png').write_bytes(picture)
    (tmp_path / 'image.png').write_bytes(picture)
    with tarfile.open(tmp_path / 'video.tar', 'w') as archive:
        archive.add(tmp_path / 'folder' / '0.png', '0.png')
    write_video(tmp_path / 'x.mp4', num_frames=5)
    names = {'folder': 'folder', 'tar': 'video.tar', 'image': 'image.png', 'video': 'x.mp4'}
    path, opened = tmp_path / names[kind], builtins.open

    class Failing(io.FileIO):
        def read(self, *size):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        readinto = readall = read

    def fail(name, mode='r', *rest, **further):
        if str(name).startswith(str(tmp_path)):
            return Failing(name)
        return opened(name, mode, *rest, **further)

    decode_frames(path, at(0.0))
    monkeypatch.setattr(builtins, 'open', fail)
    monkeypatch.setattr(tarfile, 'bltn_open', fail)
    with pytest.raises(VideoReadError, match='Input/output error') as error:
        decode_frames(path, at(0.0))
    assert error.value.path == str(path)


def test_a_file_that_grows_while_it_is_read(tmp_path):
    """It is read as far as it goes, and preparation does not take it for whole."""
    whole = write_video(tmp_path / 'whole.ts', num_frames=140, texture=0).read_bytes()
    path = tmp_path / 'x.ts'
    path.write_bytes(whole[: len(whole) // 2])
    with path.open('ab') as file:

        def grow(*_):
            file.write(whole[len(whole) // 2 :])
            file.flush()

        row = inspect_video(path, on_frame=lambda *_: grow() if file.tell() < len(whole) else None)
    assert (row['verdict'], 'sha256' in row) == ('bad', False)
    assert 'written to while it is read' in row['reason']
    assert inspect_video(path)['verdict'] == 'ok'
