"""Tables in shards: what is written is read, and what cannot be is named."""

import json
import subprocess
import sys

import pytest

from vito_mm.curation.running import Running, import_table
from vito_mm.curation.sources import rows_of
from vito_mm.curation.tables import (
    TableError,
    find_files,
    read_file,
    read_kept,
    read_table,
    write_file,
)

ROWS = [
    dict(path='/a.mp4', title='Ein Größenvergleich 🐈', classes=[1, 2], seconds=1.5),
    dict(path='/b.mp4', title='', more=dict(x=1)),
    dict(path='/c.mp4', dropped='bad: by 3'),
]


@pytest.mark.parametrize('form', ['jsonl', 'parquet'])
def test_rows_come_back_as_they_were(tmp_path, form):
    file = tmp_path / f'table.{form}'
    write_file(file, ROWS)
    assert list(read_file(file)) == ROWS
    assert read_kept(file) == ROWS[:2]
    assert [row['path'] for row in read_kept(file, ['path'])] == ['/a.mp4', '/b.mp4']
    write_file(file, [])
    assert list(read_file(file)) == []


def test_a_csv_of_a_spreadsheet_is_read(tmp_path):
    file = tmp_path / 'table.csv'
    file.write_text('path,title,views\na.mp4,"Cats, mostly",12\nb.mp4,,3\n', encoding='utf-8-sig')
    assert list(read_table(file)) == [
        dict(path='a.mp4', title='Cats, mostly', views='12'),
        dict(path='b.mp4', views='3'),
    ]


def test_shards_are_read_in_order(tmp_path):
    for number in (10, 2, 0):
        write_file(tmp_path / f'part-{number:06d}.jsonl', [dict(path=str(number))])
    assert [row['path'] for row in read_table(tmp_path)] == ['0', '2', '10']


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('table.txt', 'a.mp4', 'ends in .parquet, .jsonl, .csv'),
        ('table.jsonl', '{"path": "a"}\n[1]\n', 'table.jsonl, line 2: not a JSON object'),
        ('table.jsonl', '{"path": \n', 'table.jsonl, line 1: not JSON'),
        ('table.parquet', 'PAR1 no', 'table.parquet: cannot be read as Parquet'),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(TableError, match=message):
        list(read_table(tmp_path / name))


def test_nothing_and_a_mixture_are_no_table(tmp_path):
    with pytest.raises(TableError, match='there is no table'):
        find_files(tmp_path)
    write_file(tmp_path / 'a.jsonl', ROWS)
    write_file(tmp_path / 'b.parquet', ROWS)
    with pytest.raises(TableError, match='several kinds'):
        find_files(tmp_path)


def test_a_column_of_several_types_is_named(tmp_path):
    rows = [dict(path='a', views=1), dict(path='b', views='many')]
    with pytest.raises(TableError, match="column 'views' does not fit"):
        write_file(tmp_path / 'a.parquet', rows)
    assert not list(tmp_path.iterdir())


def test_paths_are_relative_to_the_table_and_columns_may_have_other_names(tmp_path):
    write_file(tmp_path / 'in.jsonl', [dict(file='a.mp4', name='Cat'), dict(file='/b.mp4')])
    rows = list(rows_of(tmp_path / 'in.jsonl', dict(path='file', title='name')))
    assert rows == [dict(path=str(tmp_path / 'a.mp4'), title='Cat'), dict(path='/b.mp4')]


def test_titles_of_a_folder_are_what_the_downloader_left(tmp_path):
    for name in ('x/a.mp4', 'a_red-panda.webm'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    (tmp_path / 'x/a.info.json').write_text(json.dumps(dict(title='Tabby cat', id='a')))
    rows = list(rows_of(tmp_path))
    assert [row['title'] for row in rows] == ['a red panda', 'Tabby cat']
    (tmp_path / 'x/a.info.json').write_text('{}')
    with pytest.raises(TableError, match=r'a\.info\.json: no title'):
        list(rows_of(tmp_path))


def test_a_table_is_cut_into_shards_once(tmp_path):
    write_file(tmp_path / 'in.jsonl', [dict(path=f'{i}.mp4', title=str(i)) for i in range(25)])
    running, said = Running(form='jsonl'), []
    for _ in range(2):
        count = import_table(
            tmp_path / 'in.jsonl', tmp_path / 'out', running, 10, ('path', 'title'), say=said.append
        )
        assert count == 25
    assert len(said) == 1
    sizes = [len(read_kept(file)) for file in find_files(tmp_path / 'out')]
    assert sizes == [10, 10, 5]
    with pytest.raises(RuntimeError, match=r'in other shards.*--redo'):
        import_table(tmp_path / 'in.jsonl', tmp_path / 'out', running, 20)
    redo = Running(form='jsonl', redo=True)
    import_table(tmp_path / 'in.jsonl', tmp_path / 'out', redo, 20, say=said.append)
    assert len(find_files(tmp_path / 'out')) == 2


def test_a_table_without_titles_is_refused_with_its_columns(tmp_path):
    write_file(tmp_path / 'in.jsonl', [dict(path='a.mp4', name='Cat')])
    with pytest.raises(TableError, match=r"no column 'title', only 'path', 'name'.*--title-column"):
        import_table(
            tmp_path / 'in.jsonl', tmp_path / 'out', Running(), 10, needs=('path', 'title')
        )


def test_an_empty_table_is_refused(tmp_path):
    (tmp_path / 'in.jsonl').write_text('')
    with pytest.raises(TableError, match='lists no video'):
        import_table(tmp_path / 'in.jsonl', tmp_path / 'out', Running(), 10)


def test_without_pyarrow_json_lines_are_the_remedy(tmp_path):
    code = (
        'import sys; sys.modules["pyarrow"] = None\n'
        'from pathlib import Path\n'
        'from vito_mm.curation.tables import read_file, write_file\n'
        'write_file(Path("a.jsonl"), [dict(path="a")]); list(read_file(Path("a.jsonl")))\n'
        'write_file(Path("a.parquet"), [dict(path="a")])'
    )
    command = [sys.executable, '-c', code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert 'pip install "vito_mm[curation]", or take JSON lines: --format jsonl' in result.stderr
