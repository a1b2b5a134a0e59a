"""Folders and manifests of videos."""

import pytest

from vito_mm.videos import find_videos, read_manifest, write_manifest


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
    assert read == [{**rows[0], 'path': str(tmp_path / 'sub' / 'a.mp4')}, rows[1]]
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
    assert read_manifest(file) == [dict(path=str(tmp_path / 'a.mp4'))]


def test_csv_numbers_are_numbers(tmp_path):
    (tmp_path / 'm.csv').write_text('path,label,fps,num_frames\na.mp4,3,25.0,100\nb.mp4,,,\n')
    first, second = read_manifest(tmp_path / 'm.csv')
    assert first == dict(path=str(tmp_path / 'a.mp4'), label=3, fps=25.0, num_frames=100)
    assert second == dict(path=str(tmp_path / 'b.mp4'))


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('m.jsonl', '{"path": "a.mp4"}\n{broken', 'line 2: not JSON'),
        ('m.jsonl', '{"path": "a.mp4"}\n\n["b.mp4"]', 'line 3: not a JSON object'),
        ('m.jsonl', '{"file": "a.mp4"}', 'line 1: no "path"'),
        ('m.jsonl', '\n', 'lists no video'),
        ('m.csv', 'file\na.mp4', 'no column "path"'),
        ('m.csv', 'path,label\na.mp4,1\nb.mp4,cat', "line 3: label is 'cat'"),
        ('m.txt', 'a.mp4', '.jsonl or .csv'),
    ],
)
def test_bad_manifests_are_named_by_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / name)


def test_missing_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.jsonl'):
        read_manifest(tmp_path / 'nowhere.jsonl')
