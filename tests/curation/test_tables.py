"""Tables in shards and tables of users: what is written is read, and what cannot be is named."""

import datetime
import json
import resource
import signal
import sys
from decimal import Decimal

import pyarrow
import pyarrow.parquet as parquet
import pytest

from tests.helpers.toy_stages import Double
from vito_mm.curation.running import Running, import_table, run_stage
from vito_mm.curation.sources import content_of, rows_of
from vito_mm.curation.stage import StageError
from vito_mm.curation.stage_folder import write_record
from vito_mm.curation.tables import (
    TableError,
    find_files,
    read_file,
    read_kept,
    read_table,
    write_file,
)
from vito_mm.videos.manifest import write_manifest

REDO = Running(redo=True)


def test_rows_come_back_as_they_were(tmp_path):
    rows = [
        dict(path='/a.mp4', title='Ein Größenvergleich 🐈', classes=[1, 2], seconds=1.5),
        dict(path='/b.mp4', title='', more=dict(x=1)),
        dict(path='/c.mp4', dropped='bad: by 3'),
    ]
    file = tmp_path / 'table.parquet'
    write_file(file, rows)
    assert list(read_file(file)) == rows
    assert read_kept(file) == rows[:2]
    assert [row['path'] for row in read_kept(file, ['path'])] == ['/a.mp4', '/b.mp4']
    write_file(file, [])
    assert list(read_file(file)) == []


@pytest.mark.parametrize(
    'values', [[1, 'many', None], [2**70, 1, 0], [{}, None, [dict(y={})]], ['\ud83d', 'é', '']]
)
def test_what_parquet_has_no_type_for_comes_back_too(tmp_path, values):
    rows = [dict(path=f'/{i}', x=x) if x is not None else dict(path='/') for i, x in
            enumerate(values)]  # fmt: skip
    write_file(tmp_path / 'a.parquet', rows)
    assert list(read_file(tmp_path / 'a.parquet')) == rows
    assert list(read_file(tmp_path / 'a.parquet', ['x'])) == [
        {name: row[name] for name in row if name == 'x'} for row in rows
    ]


def test_shards_are_read_in_order(tmp_path):
    with pytest.raises(TableError, match='there is no table'):
        list(read_table(tmp_path))
    for number in (10, 2, 0):
        write_file(tmp_path / f'part-{number:06d}.parquet', [dict(path=str(number))])
    assert [row['path'] for row in read_table(tmp_path)] == ['0', '2', '10']
    (tmp_path / 'table.csv').write_text('path\na.mp4\n')
    with pytest.raises(TableError, match='several kinds'):
        find_files(tmp_path)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('table.txt', 'a.mp4', 'ends in .parquet, .jsonl, .csv'),
        ('table.jsonl', '{"path": "a"}\n[1]\n', 'table.jsonl, line 2: not a JSON object'),
        ('table.parquet', 'PAR1 no', 'table.parquet: cannot be read as Parquet'),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(TableError, match=message):
        list(read_table(tmp_path / name))


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    """More than the limit of the process for a file, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match=r'a.parquet cannot be written: File too large'):
            write_file(tmp_path / 'a.parquet', [dict(path='/a.mp4', title='x' * 1000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not list(tmp_path.iterdir())


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


def test_paths_are_relative_to_the_table_and_columns_may_have_other_names(tmp_path):
    rows = [dict(path='odd', file='a.mp4', name=5, views=None), dict(file='/b.mp4')]
    write_manifest(tmp_path / 'in.jsonl', rows)
    assert list(rows_of(tmp_path / 'in.jsonl', dict(path='file', title='name'))) == [
        dict(path=str(tmp_path / 'a.mp4'), title='5'),
        dict(path='/b.mp4'),
    ]


@pytest.mark.parametrize('value', [['Cat'], True, dict(en='Cat')])
@pytest.mark.parametrize('column', ['path', 'title'])
def test_paths_and_titles_are_text_or_missing(tmp_path, column, value):
    row = dict(path='/a.mp4', title='Cat')
    write_manifest(tmp_path / 'in.jsonl', [row, row | {column: None}, row | {column: value}])
    rows = rows_of(tmp_path / 'in.jsonl')
    assert [column in next(rows) for _ in range(2)] == [True, False], 'not the word None'
    with pytest.raises(TableError, match=rf"in\.jsonl, row 3: the column '{column}' has .*no text"):
        next(rows)


def test_values_of_parquet_become_what_json_knows(tmp_path):
    """Those of vito_mm.videos.tables.plain; None is omitted."""
    day = datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc)
    columns = dict(
        path=['/a.mp4'],
        fine=pyarrow.array([day], pyarrow.timestamp('ns')),
        tags=[[dict(price=Decimal('1.20'), at=day.date())]],
        nothing=[None],
    )
    parquet.write_table(pyarrow.table(columns), tmp_path / 'in.parquet')
    (row,) = rows_of(tmp_path / 'in.parquet')
    assert row.pop('fine').startswith('2020-01-02T00:00:00')
    assert row == dict(path='/a.mp4', tags=[dict(price='1.20', at='2020-01-02')])
    parquet.write_table(pyarrow.table(dict(path=['/a.mp4'], icon=[b'x'])), tmp_path / 'in.parquet')
    with pytest.raises(TableError, match="the column 'icon' has b'x', which JSON does not know"):
        list(rows_of(tmp_path / 'in.parquet'))


def test_a_finished_stage_is_a_table_of_what_it_kept(tmp_path):
    """In the format of shards or that of earlier versions."""
    rows = [dict(path='/a.mp4'), dict(path='/b.mp4', dropped='odd')]
    write_manifest(tmp_path / 'stage/part-000000.jsonl', rows)
    with pytest.raises(TableError, match=r"a column 'dropped', .*: rename it"):
        list(rows_of(tmp_path / 'stage'))
    write_record(tmp_path / 'stage', dict(stage='probe', finished=False))
    with pytest.raises(TableError, match="run stage 'probe' to its end first"):
        list(rows_of(tmp_path / 'stage'))
    write_record(tmp_path / 'stage', dict(stage='probe', finished=True))
    assert list(rows_of(tmp_path / 'stage')) == rows[:1]


def test_files_that_no_stage_wrote_are_never_removed(tmp_path):
    """Spark calls its files part-* too."""
    write_manifest(tmp_path / 'table/part-00000.jsonl', [dict(path='/a.mp4', number=1)])
    with pytest.raises(TableError, match='lies where its shards are to be written'):
        import_table(tmp_path / 'table', tmp_path / 'table', REDO, 10)
    write_manifest(tmp_path / 'in.jsonl', [dict(path='/b.mp4', number=2)])
    with pytest.raises(StageError, match=r'files that are not of the curation.*part-00000\.jsonl'):
        import_table(tmp_path / 'in.jsonl', tmp_path / 'table', REDO, 10)
    import_table(tmp_path / 'in.jsonl', tmp_path / 'other', REDO, 10)
    with pytest.raises(StageError, match='files that are not of the curation'):
        run_stage(Double(), tmp_path / 'other', tmp_path / 'table', REDO)
    assert list(read_table(tmp_path / 'table')) == [dict(path='/a.mp4', number=1)]


def test_a_folder_of_videos_that_has_changed_is_another_table(tmp_path):
    found = []
    for name in ('a.mp4', 'a.info.json', 'b.mp4'):
        (tmp_path / name).write_text('{"title": "Tabby"}')
        found.append(content_of(tmp_path))
    assert len({*found, content_of(tmp_path)}) == 3


@pytest.mark.parametrize(
    'values',
    [
        [dict(a=1), dict(b='x')],
        [[dict(a=1)], [dict(b=None), {}]],
        [dict(a=None), dict(a=None)],
        [dict(a=dict(x=1)), dict(a=dict(y=2.5))],
        [dict(a=1), dict(a='one')],
    ],
)
def test_objects_of_the_user_get_no_keys_of_other_rows(tmp_path, values):
    rows = [dict(path=f'/{i}.mp4', meta=value) for i, value in enumerate(values)]
    write_file(tmp_path / 'a.parquet', rows)
    found = list(read_file(tmp_path / 'a.parquet'))
    assert json.dumps(found) == json.dumps(rows)


def test_addresses_stay_as_they_are(tmp_path):
    paths = ['s3://bucket/a/1.mp4', 'https://host//b.mp4', 'sub/../c.mp4', 'shard.tar::d.mp4']
    write_manifest(tmp_path / 'in.jsonl', [dict(path=path) for path in paths])
    found = [row['path'] for row in rows_of(tmp_path / 'in.jsonl')]
    assert found == [*paths[:2], str(tmp_path / 'c.mp4'), str(tmp_path / 'shard.tar::d.mp4')]


@pytest.mark.parametrize('name', ['in.jsonl', 'in.csv'])
def test_a_table_of_relative_paths_that_was_moved_is_another_table(tmp_path, name):
    folders = [tmp_path / 'a', tmp_path / 'b']
    contents = {
        'in.jsonl': ('{"path": "/x.mp4"}\n{"path": null}\n', '{"path": "x.mp4"}\n'),
        'in.csv': ('path\ns3://b/x.mp4\n', 'path\n5\n'),
    }[name]
    for content, is_moved in zip(contents, (False, True), strict=True):
        out = tmp_path / f'out-{is_moved}'
        for folder in folders:
            folder.mkdir(exist_ok=True)
            (folder / name).write_text(content)
        for _ in range(2):
            import_table(folders[0] / name, out, Running(), 10)
        if is_moved:
            with pytest.raises(StageError, match=r'folder was .*a., is .*b'):
                import_table(folders[1] / name, out, Running(), 10)
        before = [row.get('path') for row in read_table(out)]
        import_table(folders[1] / name, out, REDO, 10)
        after = [row.get('path') for row in read_table(out)]
        assert after == [path.replace('/a/', '/b/') if is_moved else path for path in before]


def test_a_table_is_cut_into_shards_once(tmp_path):
    write_manifest(tmp_path / 'in.jsonl', [dict(path=f'{i}.mp4') for i in range(25)])
    times = []
    for _ in range(2):
        assert import_table(tmp_path / 'in.jsonl', tmp_path / 'out', Running(), 10) == 25
        times.append([file.stat().st_mtime_ns for file in find_files(tmp_path / 'out')])
    assert times[0] == times[1]
    assert [len(read_kept(file)) for file in find_files(tmp_path / 'out')] == [10, 10, 5]
    with pytest.raises(StageError, match=r'rows_per_shard was 10, is 20.*--redo'):
        import_table(tmp_path / 'in.jsonl', tmp_path / 'out', Running(), 20)
    import_table(tmp_path / 'in.jsonl', tmp_path / 'out', REDO, 20)
    assert len(find_files(tmp_path / 'out')) == 2


def test_a_column_that_begins_late_is_found_whatever_the_shards(tmp_path, monkeypatch):
    rows = [dict(path=f'/{i}.mp4', name='x') for i in range(30)]
    write_manifest(tmp_path / 'in.jsonl', [*rows, dict(path='/x.mp4', title='Cat')])
    needs = ('path', 'title')
    for size in (1, 100):
        import_table(tmp_path / 'in.jsonl', tmp_path / str(size), Running(), size, needs)
        assert len(list(read_table(tmp_path / str(size)))) == 31
    for first in (10, 1000):  # within rows that are read, and in none
        monkeypatch.setattr('vito_mm.curation.running._FIRST_ROWS', first)
        write_manifest(tmp_path / 'in.jsonl', rows)
        with pytest.raises(
            TableError, match=r"no column 'title', only 'path', 'name'.*--title-column"
        ):
            import_table(tmp_path / 'in.jsonl', tmp_path / 'out', Running(), 10, needs)


def test_what_is_wrong_in_a_table_may_be_corrected(tmp_path):
    """Without --redo, as nothing is lost."""
    file = tmp_path / 'in.jsonl'
    for content, message in (
        ('', 'lists no video'),
        ('{"path": "/a.mp4"}\nodd\n', 'line 2: not JSON'),
    ):
        file.write_text(content)
        with pytest.raises(TableError, match=message):
            import_table(file, tmp_path / 'out', Running(), 1)
    file.write_text('{"path": "/a.mp4"}\n')
    assert import_table(file, tmp_path / 'out', Running(), 1) == 1
    assert len(list(read_table(tmp_path / 'out'))) == 1


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    monkeypatch.delitem(sys.modules, 'pyarrow.parquet')
    with pytest.raises(ImportError, match=r'pip install "vito_mm\[curation\]"'):
        write_file(tmp_path / 'a.parquet', [dict(path='a')])
