"""Folders and manifests of videos."""

import copy
import os
import pickle

import pytest

from vito_mm.videos import VideoReadError, find_videos, read_manifest, write_manifest


def test_folder_is_searched_with_its_sub_folders(tmp_path):
    for name in ('b.mp4', 'sub/a.MKV', 'sub/deep/c.webm', 'notes.txt'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [row['path'] for row in find_videos(tmp_path)]
    assert found == [str(tmp_path / name) for name in ('b.mp4', 'sub/a.MKV', 'sub/deep/c.webm')]


def test_folder_without_videos_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        find_videos(tmp_path)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        find_videos(tmp_path / 'nowhere')


def test_json_lines_survive_writing_and_reading(tmp_path):
    rows = [
        dict(path='a.mp4', label=3, fps=29.97, num_frames=120, title='Ürümqi 猫'),
        dict(path='/elsewhere/b.mp4'),
    ]
    write_manifest(tmp_path / 'sub' / 'manifest.jsonl', rows)
    read = read_manifest(tmp_path / 'sub' / 'manifest.jsonl')
    assert list(read) == [{**rows[0], 'path': str(tmp_path / 'sub' / 'a.mp4')}, rows[1]]
    assert read_manifest(tmp_path / 'sub' / 'manifest.jsonl', root='/data')[0]['path'] == (
        '/data/a.mp4'
    )
    assert [file.name for file in (tmp_path / 'sub').iterdir()] == ['manifest.jsonl']


def test_a_failed_write_leaves_the_old_manifest(tmp_path):
    file = tmp_path / 'manifest.jsonl'
    write_manifest(file, [dict(path='a.mp4')])

    def rows():
        yield dict(path='b.mp4')
        raise OSError('no space left')

    with pytest.raises(OSError, match='no space left'):
        write_manifest(file, rows())
    assert list(read_manifest(file)) == [dict(path=str(tmp_path / 'a.mp4'))]


def test_csv_numbers_are_numbers(tmp_path):
    (tmp_path / 'm.csv').write_text('path,label,fps,num_frames\na.mp4,3,25.0,100\nb.mp4,,,\n')
    first, second = read_manifest(tmp_path / 'm.csv')
    assert first == dict(path=str(tmp_path / 'a.mp4'), label=3, fps=25.0, num_frames=100)
    assert second == dict(path=str(tmp_path / 'b.mp4'))


@pytest.mark.parametrize(
    ('name', 'text', 'reasons'),
    [
        ('m.jsonl', '{"path": "a.mp4"}\n{broken\n{"path": "c.mp4"}', {1: 'line 2: not JSON'}),
        ('m.jsonl', '{"path": "a.mp4"}\n\n["b.mp4"]', {1: 'line 3: not a JSON object'}),
        ('m.jsonl', '{"file": "a.mp4"}', {0: 'line 1: no "path"'}),
        ('m.jsonl', '{"path": "\udcff.mp4"}\n{"path": 3}\n', {1: 'line 2: no "path"'}),
        ('m.csv', 'path,label\na.mp4,1\nb.mp4,cat\n', {1: "line 3: label is 'cat'"}),
    ],
)
def test_a_bad_row_is_an_error_when_it_is_asked_for(tmp_path, name, text, reasons):
    """It is named by its line, and the rows beside it are read."""
    (tmp_path / name).write_text(text, errors='surrogateescape')
    manifest = read_manifest(tmp_path / name)
    for index in range(len(manifest)):
        if index not in reasons:
            assert manifest[index]['path'].endswith('.mp4')
            continue
        with pytest.raises(VideoReadError) as error:
            manifest[index]
        assert f'{tmp_path / name}, {reasons[index]}' in f'{error.value.path}: {error.value.reason}'


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('m.jsonl', '\n', 'lists no video'),
        ('m.jsonl', '', 'lists no video'),
        ('m.jsonl', '{"path": "a.mp4", "verdict": "bad"}', 'none that is not bad'),
        ('m.csv', 'file\na.mp4', 'no column "path"'),
        ('m.txt', 'a.mp4', '.jsonl or .csv'),
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


def test_names_that_are_not_utf8_survive(tmp_path):
    path = os.fsdecode(b'/videos/\xff\xfe.mp4')
    write_manifest(tmp_path / 'm.jsonl', [dict(path=path, title='Ürümqi')])
    (row,) = read_manifest(tmp_path / 'm.jsonl')
    assert os.fsencode(row['path']) == b'/videos/\xff\xfe.mp4'


def test_a_manifest_travels_to_another_process_without_its_rows(tmp_path):
    write_manifest(
        tmp_path / 'm.jsonl', [dict(path=f'{i}.mp4', text='x' * 1000) for i in range(99)]
    )
    manifest = read_manifest(tmp_path / 'm.jsonl', root='')
    data = pickle.dumps(manifest)
    assert len(data) < 10_000
    assert list(pickle.loads(data)) == list(manifest)
    for copied in (pickle.loads(data), copy.deepcopy(manifest), manifest[:]):
        assert copied[98]['path'] == '98.mp4'


def test_missing_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.jsonl'):
        read_manifest(tmp_path / 'nowhere.jsonl')
