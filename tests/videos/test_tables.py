"""One reader of tables: what is in a row does not depend on what the table is written in."""

import codecs
import json
import math
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
import pytest

from vito_mm.curation.sources import rows_of
from vito_mm.curation.tables import TableError, read_table, write_file
from vito_mm.videos import VideoReadError, read_manifest

ENDINGS = ['csv', 'jsonl', 'parquet']


def write(file: Path, rows: list[dict]) -> Path:
    """Write rows as a user's own program does."""
    if file.suffix == '.csv':
        names = list(dict.fromkeys(name for row in rows for name in row))
        cells = [[row.get(name) for name in names] for row in rows]
        lines = [','.join('' if cell is None else str(cell) for cell in line) for line in cells]
        file.write_text('\n'.join([','.join(names), *lines]) + '\n', encoding='utf-8')
    elif file.suffix == '.jsonl':
        file.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    else:
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: [row.get(name) for row in rows] for name in names}
        parquet.write_table(pyarrow.table(columns), file)
    return file


def outcomes(file: Path) -> list:
    """Rows, or place and reason in the place of one."""
    manifest, found = read_manifest(file, root=''), []
    for index in range(len(manifest)):
        try:
            found.append(manifest[index])
        except VideoReadError as error:
            found.append(f'{error.path}: {error.reason}')
    return found


@pytest.mark.parametrize('ending', ENDINGS)
@pytest.mark.parametrize('kind', [str, float])
def test_numbers_are_numbers_whatever_they_are_written_as(tmp_path, ending, kind):
    given = dict(label=3, start=1, end=3, fps=25, seconds=10, num_frames=50, width=64)
    rows = [
        dict(path='a.mp4', **{name: kind(value) for name, value in given.items()}),
        dict(path='b.mp4', **dict.fromkeys(given, ' ' if kind is str else math.nan)),
        dict(path='c.mp4', **dict.fromkeys(given)),
    ]
    file = write(tmp_path / f'm.{ending}', rows)
    first, *others = outcomes(file)
    assert first == dict(path='a.mp4', **given)
    assert {name: type(value) for name, value in first.items()} == dict(
        path=str, label=int, num_frames=int, width=int
    ) | dict.fromkeys(('start', 'end', 'fps', 'seconds'), float)
    for row in others:
        label = row.pop('label', None)  # NaN is kept, and is the label of nothing
        assert label is None or math.isnan(label)
        assert row == dict(path=row['path'])
    assert next(read_table(file)) == first, 'curation reads something else'


def test_blanks_after_the_commas_of_a_csv_file_change_nothing(tmp_path):
    file = tmp_path / 'm.csv'
    file.write_text('path, start, end, label\na.mp4, 1.0, 2.0, 3\n')
    assert outcomes(file) == [dict(path='a.mp4', start=1.0, end=2.0, label=3)]


@pytest.mark.parametrize('ending', ENDINGS)
def test_labels_that_are_no_integers_are_kept(tmp_path, ending):
    labels = ['goldfish', '1.5', '12', '1.0', '', '1e30', '1_2']
    rows = [dict(path=f'{i}.mp4', label=label) for i, label in enumerate(labels)]
    found = [row.get('label') for row in outcomes(write(tmp_path / f'm.{ending}', rows))]
    assert found == ['goldfish', '1.5', 12, 1, None, '1e30', '1_2']


@pytest.mark.parametrize('ending', ENDINGS)
@pytest.mark.parametrize(
    ('column', 'value', 'said'),
    [
        ('start', 'soon', "start is 'soon', not a number"),
        ('end', '1,5', "end is '1,5', not a number"),
        ('end', 'inf', "end is 'inf', not a number"),
        ('fps', '0', 'fps is 0, not a positive number'),
        ('num_frames', '2.5', "num_frames is '2.5', not a whole number"),
        ('start', '-1', 'start is -1, before the beginning'),
        ('end', '0.5', r'end is 0.5, before start (2)'),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_place(tmp_path, ending, column, value, said):
    bad = dict(path='b.mp4', start='2') | {column: value}
    rows = [dict(path='a.mp4', start='2'), bad, dict(path='c.mp4', start='2')]
    if ending == 'csv':
        rows[1] = {name: f'"{value}"' for name, value in bad.items()}
    file = write(tmp_path / f'm.{ending}', rows)
    place = f'{file}, ' + dict(csv='line 3', jsonl='line 2', parquet='row 2')[ending]
    first, second, third = outcomes(file)
    assert (first['start'], third['start']) == (2.0, 2.0)
    assert second.startswith(f'{place}: {said}')
    with pytest.raises(TableError) as error:
        list(read_table(file))
    assert str(error.value).startswith(f'{place}: {said}')


def test_other_types_are_no_numbers(tmp_path):
    rows = [dict(path=f'{i}.mp4', start=v) for i, v in enumerate((True, [1], dict(s=1), 10**400))]
    for row in outcomes(write(tmp_path / 'm.jsonl', rows)):
        assert ': start is ' in row
    file = tmp_path / 'n.jsonl'
    file.write_text('{"path": "a\\u0000b.mp4"}\n' + '{"path": ' + '[' * 100_000 + '\n')
    assert [row.partition('line ')[2][:6] for row in outcomes(file)] == ['1: pat', '2: not']


@pytest.mark.parametrize('ending', ['csv', 'jsonl'])
def test_a_byte_order_mark_hides_nothing(tmp_path, ending):
    rows = [dict(path='a.mp4', label=1), dict(path='b.mp4', label=2)]
    file = write(tmp_path / f'm.{ending}', rows)
    file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    assert outcomes(file) == rows
    assert list(read_table(file)) == rows
    assert [row['path'] for row in rows_of(file)] == [str(tmp_path / f'{n}.mp4') for n in 'ab']


@pytest.mark.parametrize('ending', ['csv', 'jsonl'])
@pytest.mark.parametrize('code', ['utf-16', 'utf-16-le', 'utf-32'])
def test_utf_16_is_refused_by_name(tmp_path, ending, code):
    file = write(tmp_path / f'm.{ending}', [dict(path='a.mp4', label=1)])
    file.write_text(file.read_text(), encoding=code)
    for read in (read_manifest, lambda table: list(read_table(table))):
        with pytest.raises(TableError, match=rf'm\.{ending} is in UTF-16.*save it as UTF-8'):
            read(file)


def test_a_long_field_is_read_by_all(tmp_path):
    (tmp_path / 'm.csv').write_text(f'path,title\na.mp4,{"x" * 140_000}\nb.mp4,y\n')
    for rows in (outcomes(tmp_path / 'm.csv'), list(read_table(tmp_path / 'm.csv'))):
        assert [len(row['title']) for row in rows] == [140_000, 1]


def test_an_open_quote_does_not_swallow_the_rest(tmp_path):
    (tmp_path / 'm.csv').write_text('path,title\na.mp4,x\nb.mp4,"y\nc.mp4,z\n')
    with pytest.raises(TableError, match=r'm\.csv, line 3: .* quote is opened and never closed'):
        read_manifest(tmp_path / 'm.csv')


def test_lines_are_counted_where_fields_have_several(tmp_path):
    text = 'path,title,start\na.mp4,"x\n\ny",1\n\nb.mp4,y,?\n,,\nc.mp4,z,2,too,many\nd.mp4,z,2\n'
    (tmp_path / 'm.csv').write_text(text)
    first, second, third, last = outcomes(tmp_path / 'm.csv')
    assert first == dict(path='a.mp4', title='x\n\ny', start=1.0)
    assert second.startswith(f'{tmp_path}/m.csv, line 6: start is ')
    assert third.startswith(f'{tmp_path}/m.csv, line 8: 5 fields under a header of 3')
    assert last == dict(path='d.mp4', title='z', start=2.0)


def test_blank_lines_of_another_system_are_no_rows(tmp_path):
    (tmp_path / 'm.jsonl').write_bytes(b'{"path": "a.mp4"}\r\n\r\n  \n{"path": "b.mp4"}\r\n\x1a')
    first, second, last = outcomes(tmp_path / 'm.jsonl')
    assert [first, second] == [dict(path='a.mp4'), dict(path='b.mp4')]
    assert 'line 5: not JSON' in last


def test_values_of_parquet_that_json_does_not_know_are_text_or_named(tmp_path):
    import datetime

    rows = [dict(path='a.mp4', day=datetime.date(2020, 1, 2))]
    assert outcomes(write(tmp_path / 'm.parquet', rows)) == [dict(path='a.mp4', day='2020-01-02')]
    (error,) = outcomes(write(tmp_path / 'm.parquet', [dict(path='a.mp4', icon=b'x')]))
    assert "row 1: the column 'icon' has b'x'" in error


def test_numbers_and_names_share_a_column_of_labels(tmp_path):
    rows = [dict(path=f'{i}.mp4', label=label) for i, label in enumerate((1, 'cat', 2))]
    write_file(tmp_path / 'part-0.parquet', rows)
    assert list(read_table(tmp_path / 'part-0.parquet')) == rows
