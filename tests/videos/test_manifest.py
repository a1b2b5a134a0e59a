"""Folders and manifests of videos."""

import copy
import multiprocessing
import os
import pickle

import pytest
from torch.utils.data import DataLoader

from vito_mm.videos import (
    VideoReadError,
    find_videos,
    part_name,
    read_manifest,
    write_manifest,
)


def test_folder_is_searched_with_its_sub_folders(tmp_path):
    """Links once, and nothing hidden."""
    seen = ('b.mp4', 'sub/a.MKV', 'sub/deep/c.webm')
    for name in (*seen, 'notes.txt', '._b.mp4', '.c.mp4', '__MACOSX/a.mp4', '.trash/d.mp4'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    os.symlink(tmp_path, tmp_path / 'sub' / 'again')
    assert [row['path'] for row in find_videos(tmp_path)] == [str(tmp_path / name) for name in seen]


def test_folder_without_videos_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        find_videos(tmp_path)
    for read in (find_videos, read_manifest):
        with pytest.raises(FileNotFoundError, match='nowhere'):
            read(tmp_path / 'nowhere')


def test_json_lines_survive_writing_and_reading(tmp_path):
    rows = [
        dict(path='a.mp4', label=3, fps=29.97, num_frames=120, title='Ürümqi 猫'),
        dict(path=os.fsdecode(b'/elsewhere/\xff\xfe.mp4')),
    ]
    write_manifest(tmp_path / 'sub' / 'manifest.jsonl', rows)
    read = read_manifest(tmp_path / 'sub' / 'manifest.jsonl')
    assert list(read) == [{**rows[0], 'path': str(tmp_path / 'sub' / 'a.mp4')}, rows[1]]
    assert read_manifest(tmp_path / 'sub' / 'manifest.jsonl', root='/data')[0]['path'] == (
        '/data/a.mp4'
    )
    assert [file.name for file in (tmp_path / 'sub').iterdir()] == ['manifest.jsonl']
    assert os.fsencode(read[1]['path']) == b'/elsewhere/\xff\xfe.mp4'


def test_a_failed_write_leaves_the_old_manifest(tmp_path):
    file = tmp_path / 'manifest.jsonl'
    write_manifest(file, [dict(path='a.mp4')])

    def rows():
        yield dict(path='b.mp4')
        raise OSError('no space left')

    with pytest.raises(OSError, match='no space left'):
        write_manifest(file, rows())
    assert list(read_manifest(file)) == [dict(path=str(tmp_path / 'a.mp4'))]


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('{broken\n{"path": "c.mp4"}', 'line 2: not JSON'),
        ('\n["b.mp4"]', 'line 3: not a JSON object'),
        ('{"file": "a.mp4"}', 'line 2: no "path"'),
        ('{"path": 3}\n', 'line 2: no "path"'),
    ],
)
def test_a_bad_row_is_an_error_when_it_is_asked_for(tmp_path, text, reason):
    """It is named by its line, and the rows next to it are read."""
    file = tmp_path / 'm.jsonl'
    file.write_text('{"path": "\udcff.mp4"}\n' + text, errors='surrogateescape')
    manifest = read_manifest(file)
    with pytest.raises(VideoReadError) as error:
        manifest[1]
    assert f'{error.value.path}: {error.value.reason}'.startswith(f'{file}, {reason}')
    assert {manifest[index]['path'][-4:] for index in range(len(manifest)) if index != 1} == {
        '.mp4'
    }


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('m.jsonl', '\n', 'lists no video'),
        ('m.jsonl', '', 'lists no video'),
        ('m.jsonl', '{"path": "a.mp4", "verdict": "bad"}', 'none that is not bad'),
        ('m.csv', 'file\na.mp4', 'no column "path"'),
        ('m.txt', 'a.mp4', r'\.jsonl, \.csv'),
    ],
)
def test_what_is_no_manifest_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / name)


def test_bad_videos_are_left_out(tmp_path):
    """By their verdict alone, not by a text that looks like it."""
    rows = [
        dict(path='a.mp4', verdict='ok'),
        dict(path='b.mp4', verdict='bad', reason='is empty'),
        dict(path='c.mp4', title='"verdict": "bad"'),
        dict(path='d.mp4', verdict='bad'),
        dict(path='e.mp4'),
    ]
    write_manifest(tmp_path / 'm.jsonl', rows)
    manifest = read_manifest(tmp_path / 'm.jsonl', root='')
    assert [row['path'] for row in manifest] == ['a.mp4', 'c.mp4', 'e.mp4']
    assert manifest[-1]['path'] == 'e.mp4'
    assert [row['path'] for row in manifest[1:]] == ['c.mp4', 'e.mp4']


def test_a_manifest_travels_to_another_process_without_its_rows(tmp_path):
    """However that is started, and whatever happens to the file: they share what was read."""
    file = tmp_path / 'm.jsonl'
    rows = [dict(path=f'{i}.mp4', text='x' * 100_000) for i in range(99)]
    write_manifest(file, rows)
    manifest = read_manifest(file, root='')
    for copied in (copy.deepcopy(manifest), manifest[:], pickle.loads(pickle.dumps(manifest))):
        assert copied[98] == rows[98]
    file.unlink()
    for method in ('fork', 'spawn'):
        context = multiprocessing.get_context(method)
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=answer, args=(manifest, send))
        process.start()
        found, memory = receive.recv()
        process.join(60)
        assert process.exitcode == 0
        assert found == [rows[0], rows[98]]
        assert memory == os.fstat(manifest.lines.descriptor).st_ino, 'has a copy of its own'


def answer(manifest, send):
    """Send two rows, and which memory they come from."""
    send.send(([manifest[0], manifest[-1]], os.fstat(manifest.lines.descriptor).st_ino))


@pytest.mark.parametrize('action', ['truncate', 'rewrite', 'replace', 'remove'])
def test_what_is_done_to_the_file_does_not_matter_to_those_who_read_it(tmp_path, action):
    """Data workers, and the process itself. A bus error would end them."""
    file = tmp_path / 'm.jsonl'
    rows = [dict(path=f'{i}.mp4', text='x' * 5000) for i in range(64)]
    write_manifest(file, rows)
    manifest = read_manifest(file, root='')
    loader = DataLoader(manifest, 8, num_workers=2, collate_fn=list)
    batches = iter(loader)
    found = next(batches)
    if action == 'truncate':
        os.truncate(file, 10)
    elif action == 'rewrite':
        file.write_text('{"path": "other.mp4"}\n' * 10)
    elif action == 'replace':
        write_manifest(file, [dict(path='other.mp4')])
    else:
        file.unlink()
    for batch in batches:
        found += batch
    assert found == rows
    assert list(manifest) == rows


def test_files_are_counted_and_parts_have_names(tmp_path):
    rows = [
        *(dict(path='a.mp4'), dict(path='a.mp4', start=1.5, end=4), dict(path='b.mp4', end=2)),
        *(dict(start=3, path='b.mp4'), dict(path='\udcff".mp4'), dict(path='c.mp4', start=0)),
    ]
    write_manifest(tmp_path / 'm.jsonl', rows)
    (tmp_path / 'm.jsonl').open('a').write('{"path":"\\u0061.mp4"}\n{broken\n{"path": 3}\n')
    manifest = read_manifest(tmp_path / 'm.jsonl', root='')
    assert len({part_name(row) for row in manifest[:6]}) == 6
    assert [part_name(row) for row in manifest[:3]] == [
        'a.mp4',
        'a.mp4#t=1.5,4.0',
        'b.mp4#t=0.0,2.0',
    ]
    assert manifest[:7].count_files() == 4
