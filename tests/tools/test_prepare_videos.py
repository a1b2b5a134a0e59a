"""The command that turns videos into a manifest, as users type it."""

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import write_video
from tests.helpers.faulty_videos import overwrite, write_moving
from tests.helpers.processes import Forked, start_forked, status_of_tool
from vito_mm.videos import read_manifest
from vito_mm.videos.prepare.preparation import prepare_videos
from vito_mm.videos.prepare.reencoding import Encoding

FAST = Encoding(preset='ultrafast')


def start(folder: Path, *arguments: object, before: str = '') -> Forked:
    """Start the command in a process of its own, after some lines of Python."""
    script = folder / 'script.py'
    # As Python does for a script that it is given, which finds its neighbours.
    run = "import runpy, sys\nsys.path.insert(0, 'tools')\n"
    run += "runpy.run_path('tools/prepare_videos.py', run_name='__main__')\n"
    script.write_text(f'{before}\n{run}')
    return start_forked(folder, [script, *arguments], dict(OMP_NUM_THREADS='1'))


def until(condition: Callable[[], object]) -> None:
    """Wait for something that comes."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def run(*arguments: object) -> int:
    """Run the command in this process; returns its status."""
    return status_of_tool('prepare_videos.py', *arguments)


def read_rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding='utf-8').splitlines()]


def by_path(file: Path) -> dict[str, dict]:
    return {row['path']: row for row in read_rows(file)}


def whole_lines(folder: Path) -> list[str]:
    """Rows that a running job has finished."""
    return [
        line
        for shard in sorted(folder.glob('*.jsonl'))
        for line in shard.read_text().splitlines(keepends=True)
        if line.endswith('\n')
    ]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Folder with three good videos and three bad ones."""
    folder = tmp_path / 'tree'
    write_video(folder / 'b.mp4', num_frames=30, gop=30)
    write_video(folder / 'sub' / 'a.mkv', num_frames=30)
    name = os.fsdecode(os.fsencode(folder) + b'/\xff.mp4')
    write_video(folder / 'x.mp4', num_frames=30).rename(name)
    (folder / 'empty.mp4').touch()
    (folder / 'page.mp4').write_text('<html>')
    os.mkfifo(folder / 'sub' / 'pipe.mp4')
    return folder


def test_a_tree_becomes_a_manifest_and_is_read_once(tree: Path, capfd):
    out = tree / 'manifest.jsonl'
    assert run(tree, '--out', out, '--workers', '2') == 0
    shown = capfd.readouterr()
    rows = read_rows(out)
    paths = [row['path'] for row in rows]
    assert paths == sorted(paths)
    assert paths == ['b.mp4', 'empty.mp4', 'page.mp4', 'sub/a.mkv', 'sub/pipe.mp4', '\udcff.mp4']
    verdicts = [row['verdict'] for row in rows]
    assert verdicts == ['ok', 'bad', 'bad', 'ok', 'bad', 'ok']
    text = out.read_text()
    assert text.count('"verdict": "bad"') == 3
    assert not out.with_name('manifest.jsonl.parts').exists()
    for part in ('bad      3', '1  is empty (0 bytes)', 'codecs   h264 3', 'up to 2 s           1'):
        assert part in shown.out
    assert '3 videos are bad' in shown.out
    assert '6 of 6 videos' in shown.err

    # A new file and a changed one are read; what a user adds to a row stays.
    good = [tree / name for name in ('b.mp4', 'sub/a.mkv', '\udcff.mp4')]
    assert [row['path'] for row in read_manifest(out)] == [os.fspath(path) for path in good]
    rows[0]['label'], rows[0]['seconds'], rows[3]['seconds'] = 7, 99.0, 98.0
    out.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    write_video(tree / 'sub' / 'a.mkv', num_frames=20)
    write_video(tree / 'new.mp4', num_frames=10)
    prepare_videos(tree, out, workers=1)
    again = by_path(out)
    assert (again['b.mp4']['label'], again['b.mp4']['seconds']) == (7, 99.0)
    assert again['sub/a.mkv']['num_frames'] == 20
    assert again['new.mp4']['num_frames'] == 10
    prepare_videos(tree, out, workers=1, force=True)
    assert (by_path(out)['b.mp4']['label'], by_path(out)['b.mp4']['seconds']) == (7, 1.2)


def test_columns_of_a_manifest_are_kept(tree: Path, tmp_path: Path):
    source, out = tmp_path / 'in.jsonl', tmp_path / 'out.jsonl'
    rows = [
        {'path': 'tree/b.mp4', 'label': 3, 'title': 'Bär', 'seconds': 5.0},
        {'path': 'tree/b.mp4', 'label': 4},
        {'path': 'tree/gone.mp4', 'label': 5},
    ]
    source.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    summary = prepare_videos(source, out, workers=1)
    assert (summary.num_ok, summary.num_bad) == (2, 1)
    first, second, gone = read_rows(out)
    assert (first['label'], first['title'], first['seconds']) == (3, 'Bär', 1.2)
    assert (second['label'], second['num_frames']) == (4, 30)
    assert (gone['label'], gone['verdict'], gone['reason']) == (5, 'bad', 'no such file')

    table = tmp_path / 'in.csv'
    table.write_text('path,label,title\ntree/b.mp4,3,x\n')
    prepare_videos(table, out, workers=1)
    assert (read_rows(out)[0]['label'], read_rows(out)[0]['title']) == (3, 'x')


def test_parts_of_one_file_are_rows_of_their_own(tmp_path: Path):
    """In place, from another manifest, from the folder, and as copies: none takes on another's."""
    write_video(tmp_path / 'tree' / 'a.mp4', num_frames=60)
    write_video(tmp_path / 'tree' / 'b.mp4', num_frames=30)
    source, out = tmp_path / 'tree' / 'in.csv', tmp_path / 'tree' / 'out.jsonl'
    source.write_text(
        'path,start,end,title,label\na.mp4,0,1,first,1.0\nb.mp4,,,whole,\na.mp4,1,2,,\n'
        'a.mp4,2,,third,dog\n'
    )
    expected = [
        dict(path='a.mp4', start=0.0, end=1.0, title='first', label=1),
        dict(path='a.mp4', start=1.0, end=2.0),
        dict(path='a.mp4', start=2.0, title='third', label='dog'),
        dict(path='b.mp4', title='whole'),
    ]

    def rows(file: Path = out) -> list[dict]:
        names = ('path', 'start', 'end', 'title', 'label')
        found = [{name: row[name] for name in names if name in row} for row in read_rows(file)]
        return sorted(found, key=lambda row: (row['path'], row.get('start', 0)))

    for given in (source, out, tmp_path / 'tree', source):
        summary = prepare_videos(given, out, workers=1)
        assert (summary.num_ok, summary.num_bad) == (4, 0)
        assert rows() == expected, given
        assert {row['num_frames'] for row in read_rows(out)} == {30, 60}
    copies = tmp_path / 'copies.jsonl'
    for given in (out, tmp_path / 'tree'):
        prepare_videos(given, copies, workers=1, copies=tmp_path / 'small', encoding=FAST)
        assert [{**row, 'path': Path(row['path']).name} for row in rows(copies)] == expected


def test_a_row_that_cannot_be_used_is_named_before_any_work(tmp_path: Path, capsys):
    (tmp_path / 'in.csv').write_text('path,start\na.mp4,0\na.mp4,soon\n')
    assert run(tmp_path / 'in.csv', '--out', tmp_path / 'out.jsonl') == 2
    error = f"error: {tmp_path}/in.csv, line 3: start is 'soon', not a number\n"
    assert capsys.readouterr().err == error
    assert not (tmp_path / 'out.jsonl').exists()


def test_damage_since_the_last_time_is_found(tmp_path: Path):
    tree, out = tmp_path / 'tree', tmp_path / 'manifest.jsonl'
    rotten, good = (write_moving(tree / name, g='1') for name in ('a.mp4', 'b.mp4'))
    prepare_videos(tree, out, workers=1)
    intact, status = rotten.read_bytes(), rotten.stat()
    # The last byte is part of the metadata, which no decoder looks at.
    rotten.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
    os.utime(rotten, ns=(status.st_atime_ns, status.st_mtime_ns))
    for force in (False, True, True):
        prepare_videos(tree, out, workers=1, check=True, force=force)
        rows = by_path(out)
        reason = 'its bytes are not those that the manifest has the hash of'
        assert rows['tree/a.mp4']['reason'] == reason
        assert rows['tree/b.mp4']['checked']
    rotten.write_bytes(intact)
    prepare_videos(tree, out, workers=1, check=True)
    assert {row['verdict'] for row in read_rows(out)} == {'ok'}

    # The hashes of a manifest that is given hold without a check.
    shutil.copy(overwrite(good, seed=1), good)
    prepare_videos(out, tmp_path / 'other.jsonl', workers=1)
    assert by_path(tmp_path / 'other.jsonl')['tree/b.mp4']['reason'] == reason


def test_a_file_that_was_replaced_is_not_held_to_the_hash_of_the_old_one(tmp_path: Path):
    """One that was cut off and fetched again, in any order of check and force; another video."""
    tree, out = tmp_path / 'tree', tmp_path / 'manifest.jsonl'
    video = write_moving(tree / 'a.mp4', num_frames=50)
    complete = video.read_bytes()
    video.write_bytes(complete[: len(complete) // 2])
    call = partial(prepare_videos, workers=1, check=True)
    assert call(tree, out).num_bad == 1
    video.write_bytes(complete)
    assert call(tree, out).num_bad == 0
    assert by_path(out)['tree/a.mp4']['num_frames'] == 50
    write_moving(video, num_frames=20)
    assert call(tree, out).num_bad == 0
    # Of a manifest that is read, the hash of a bad row does not bind either.
    video.write_bytes(complete[: len(complete) // 2])
    assert call(tree, out).num_bad == 1
    video.write_bytes(complete)
    assert call(out, tmp_path / 'other.jsonl').num_bad == 0
    # Repaired in place, without a trace in size and time.
    overwrite(video, seed=1).replace(video)
    status = video.stat()
    assert call(tree, out).num_bad == 1
    video.write_bytes(complete)
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert call(tree, out, force=True).num_bad == 0


def test_the_copy_of_a_source_that_was_replaced_is_made_again(tmp_path: Path):
    tree, out = tmp_path / 'tree', tmp_path / 'manifest.jsonl'
    call = partial(prepare_videos, tree, out, workers=1, check=True, encoding=FAST)
    for num_frames in (30, 20):
        write_video(tree / 'a.mp4', num_frames=num_frames)
        assert call(copies=tmp_path / 'small').num_bad == 0
        assert by_path(out)['small/a.mp4']['num_frames'] == num_frames
        assert (tmp_path / 'small' / 'a.mp4').exists()


@pytest.mark.parametrize('column', ['notes', 'reason'])
def test_columns_of_the_user_that_would_be_replaced_are_refused(tmp_path: Path, column: str):
    write_video(tmp_path / 'tree' / 'a.mp4', num_frames=10)
    table, out = tmp_path / 'in.jsonl', tmp_path / 'out.jsonl'
    table.write_text(json.dumps({'path': 'tree/a.mp4', column: 'mine'}) + '\n')
    before = table.read_bytes()
    for source, target in ((table, out), (table, table), (tmp_path / 'tree', table)):
        with pytest.raises(ValueError, match=f"'{column}' of your own.*rename it"):
            prepare_videos(source, target, workers=1)
    assert table.read_bytes() == before
    assert not out.exists()
    table.write_text(json.dumps({'path': 'tree/a.mp4', f'my_{column}': 'mine'}) + '\n')
    for source in (table, out):  # those of a preparation are
        prepare_videos(source, out, workers=1, force=True)
        assert by_path(out)['tree/a.mp4'][f'my_{column}'] == 'mine'
    write_moving(tmp_path / 'tree' / 'a.mp4', num_frames=1)  # which is noted
    prepare_videos(table, out, workers=1)
    assert prepare_videos(out, out, workers=1).num_noted == 1


def test_check_reads_what_was_only_probed(tmp_path: Path):
    tree, out = tmp_path / 'tree', tmp_path / 'manifest.jsonl'
    overwrite(write_moving(tree / 'a.avi', 'mpeg4', b='800000'), seed=0)
    assert prepare_videos(tree, out, workers=1).num_bad == 0
    assert prepare_videos(tree, out, workers=1, check=True).num_bad == 1
    assert by_path(out)['tree/0_a.avi']['reason'].startswith('damaged: ')


def test_copies_are_listed_instead(tree: Path, tmp_path: Path):
    write_moving(tree / 'b.avi', 'mpeg4', num_frames=20, size=(96, 64))
    copies, out = tmp_path / 'small', tmp_path / 'manifest.jsonl'
    before = {path: path.read_bytes() for path in tree.rglob('*') if path.is_file()}
    options = ['--short-side', '32', '--gop', '1', '--preset', 'ultrafast', '--no-b-frames']
    options += ['--fastdecode', '--crf', '30', '--workers', '1']
    assert run(tree, '--out', out, '--reencode', copies, *options) == 0
    assert {path: path.read_bytes() for path in before} == before
    rows = by_path(out)
    good = {'small/b.mp4', 'small/b.avi.mp4', 'small/sub/a.mkv.mp4', 'small/\udcff.mp4'}
    assert {path for path, row in rows.items() if row['verdict'] == 'ok'} == good
    assert len(rows) == 7
    row = rows['small/b.avi.mp4']
    assert (row['source'], row['width'], row['height']) == ('tree/b.avi', 48, 32)
    assert row['keyframe_interval']['max'] == 0.04
    assert rows['tree/empty.mp4']['source'] == 'tree/empty.mp4'
    assert sorted(copies.rglob('*.mp4')) == sorted(tmp_path / name for name in good)

    # Again: the same settings leave the copies, others make them anew.
    encoding = Encoding(32, 1, 30, 'ultrafast', fast_decode=True, b_frames=False)
    call = partial(prepare_videos, tree, out, workers=1, copies=copies)
    call(encoding=encoding)
    assert by_path(out) == rows
    (copies / 'b.mp4').unlink()
    call(encoding=encoding)
    assert (copies / 'b.mp4').exists()
    call(encoding=Encoding(16, preset='ultrafast'))
    assert by_path(out)['small/b.avi.mp4']['height'] == 16

    # The copies can be checked in their turn, and keep their sources.
    assert prepare_videos(out, out, workers=1, check=True).num_ok == 4
    assert by_path(out)['small/b.avi.mp4']['source'] == 'tree/b.avi'


def test_killed_and_started_again_it_goes_on(tmp_path: Path):
    for index in range(6):
        write_video(tmp_path / 'tree' / f'{index}.mp4', num_frames=120, size=(256, 192))
    out, copies = tmp_path / 'manifest.jsonl', tmp_path / 'small'
    arguments = [tmp_path / 'tree', '--out', out, '--reencode', copies, '--workers', '1']
    parts = tmp_path / 'manifest.jsonl.parts'
    process = start(tmp_path, *arguments, '--preset', 'slow')
    until(lambda: len(whole_lines(parts)) >= 2)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait().returncode == -signal.SIGKILL
    finished = [json.loads(line) for line in whole_lines(parts)]
    assert 2 <= len(finished) < 6
    assert not out.exists()
    with max(parts.glob('*.jsonl')).open('a') as shard:
        shard.write('{"path": "small/5.mp4", "sou')
    assert run(*arguments, '--preset', 'slow') == 0
    rows = by_path(out)
    assert len(rows) == 6
    assert {row['verdict'] for row in rows.values()} == {'ok'}
    for row in finished:  # the time of change of its copy is in the row
        assert rows[row['path']] == row
        copy = tmp_path / row['path']
        assert copy.stat().st_mtime_ns == row['mtime_ns']
    assert not parts.exists()
    assert not list(tmp_path.rglob('*.tmp'))


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='finds processes in /proc')
def test_a_video_that_ends_its_process_does_not_end_the_job(tmp_path: Path):
    tree, out = tmp_path / 'tree', tmp_path / 'manifest.jsonl'
    for name in ('a', 'c', 'd'):
        write_video(tree / f'{name}.mp4', num_frames=10)
    deadly = write_video(tree / 'b.mp4', num_frames=140, size=(512, 384))
    copies = ['--reencode', tmp_path / 'small', '--preset', 'veryslow', '--short-side', '384']
    process = start(tmp_path, tree, '--out', out, *copies, '--workers', '2')
    killed = set()

    def is_killed_twice() -> bool:
        tasks = Path(f'/proc/{process.pid}/task/{process.pid}/children')
        for child in tasks.read_text().split():
            with contextlib.suppress(OSError):  # it has ended since
                links = [os.readlink(fd) for fd in Path(f'/proc/{child}/fd').iterdir()]
                if os.fspath(deadly) in links and child not in killed:
                    killed.add(child)
                    os.kill(int(child), signal.SIGKILL)
        return len(killed) == 2

    until(is_killed_twice)
    done = process.wait()
    assert done.returncode == 0, done.stderr
    rows = by_path(out)
    assert rows.pop('tree/b.mp4')['reason'] == (
        'ends the process that reads it: signal SIGKILL, twice'
    )
    assert {row['verdict'] for row in rows.values()} == {'ok'}
    assert not list(tmp_path.rglob('*.tmp'))
    # It was not read through, so that it gets another chance.
    summary = prepare_videos(
        tree, out, workers=1, copies=tmp_path / 'small', encoding=Encoding(384, preset='veryslow')
    )
    assert (summary.num_ok, summary.num_bad) == (4, 0)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM], ids=['at work', 'forking'])
def test_stopped_it_says_how_to_go_on(tmp_path: Path, number: int):
    """By Ctrl-C at work, and by a signal that comes while a process is forked."""
    tree, out = tmp_path / 'tree', tmp_path / 'manifest.jsonl'
    for index in range(4):
        write_video(tree / f'{index}.mp4', num_frames=140, size=(512, 384))
    arguments = [tree, '--out', out, '--reencode', tmp_path / 'small', '--preset', 'veryslow']
    arguments += ['--short-side', '384', '--workers', '1']
    if number == signal.SIGTERM:
        before = 'from tests.conftest import signal_while_forking\n'
        process = start(tmp_path, *arguments, before=f'{before}signal_while_forking({int(number)})')
    else:
        process = start(tmp_path, *arguments)
        until(lambda: list((tmp_path / 'small').glob('*.tmp')))
        os.kill(process.pid, number)
    done = process.wait()
    assert done.returncode == 130
    assert 'Run the same command again to go on' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not list(tmp_path.rglob('*.tmp'))


def test_full_disk_stops_the_job_and_it_goes_on_later(tmp_path: Path):
    tree, out = tmp_path / 'tree', tmp_path / 'manifest.jsonl'
    write_moving(tree / 'a.mp4')
    arguments = [tree, '--out', out, '--reencode', tmp_path / 'small', '--preset', 'ultrafast']
    limit = 'import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))'
    done = start(tmp_path, *arguments, before=limit).wait()
    assert done.returncode == 1
    (line,) = (line for line in done.stderr.splitlines() if line.startswith('error: '))
    assert 'small/a.mp4: File too large' in line
    assert 'run the same command again' in line
    assert not out.exists()
    assert prepare_videos(tree, out, copies=tmp_path / 'small', encoding=FAST).num_ok == 1


def empty(folder: Path) -> Path:
    (folder / 'empty').mkdir()
    return folder / 'empty'


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (lambda t: {'source': t / 'gone'}, 'there is no folder or manifest '),
        (lambda t: {'source': empty(t)}, "no video in '"),
        (lambda t: {'source': t / 'tree' / 'b.mp4'}, 'give a folder, or a manifest ending in '),
        (lambda t: {'out': t / 'a.csv'}, 'the manifest to write must end in .jsonl, got '),
        (lambda t: {'out': t / 'tree' / 'b.mp4' / 'a.jsonl'}, 'choose another output'),
        (lambda t: {'out': write(t / 'b.jsonl', 'x\n')}, 'b.jsonl, line 1: not JSON'),
        (lambda t: {'source': write(t / 'c.jsonl', '{"a": 1}\n')}, 'line 1: no "path" in this row'),
        (lambda t: {'source': write(t / 'c.jsonl', '')}, 'lists no video'),
        (lambda t: {'source': write(t / 'c.csv', 'a\n1\n')}, 'the header has no column "path"'),
        (lambda t: {'workers': 0}, 'workers must be at least 1, got 0'),
        (lambda t: {'time_limit': -1}, 'time_limit must be 0 '),
        (lambda t: {'max_pixels': 0}, 'max_pixels must be at least 1, got 0'),
        (lambda t: {'copies': t / 'tree'}, 'copies would be taken'),
        (lambda t: {'copies': t}, 'is inside the folder for copies'),
        (lambda t: {'copies': t / 'tree' / 'small'}, 'copies would be taken'),
        (
            lambda t: {
                'source': write(t / 'c.jsonl', '{"path": "a"}\n{"path": "a.mp4"}\n'),
                'copies': t / 'small',
            },
            'would both become',
        ),
    ],
)
def test_arguments_are_checked(
    tree: Path, tmp_path: Path, arguments: Callable[[Path], dict], message: str
):
    call = {'source': tree, 'out': tmp_path / 'a.jsonl', 'workers': 1, **arguments(tmp_path)}
    with pytest.raises((ValueError, OSError), match=message.replace('(', r'\(')):
        prepare_videos(**call)


def test_rare_key_frames_call_for_copies(tmp_path: Path):
    video = tmp_path / 'tree' / 'a.mp4'
    write_moving(video, num_frames=100, g='100', sc_threshold='0')
    hint = prepare_videos(tmp_path / 'tree', tmp_path / 'a.jsonl', workers=1).hint()
    assert hint.startswith('Key frames are 4.0 s apart on average: ')
    assert 'decodes about 50.' in hint
    assert '--reencode' in hint
    write_moving(video, num_frames=100, g='12')
    assert prepare_videos(tmp_path / 'tree', tmp_path / 'a.jsonl', workers=1).hint() is None
