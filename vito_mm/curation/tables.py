"""Tables of videos as shards: Parquet files, read in parts, written complete or not at all."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from vito_mm.utils.atomic import written_aside
from vito_mm.videos.tables import (
    AS_JSON,
    ENDINGS,
    Row,
    RowError,
    TableError,
    ending_of,
    import_parquet,
    place_in,
    read_rows,
    typed,
)

DROPPED = 'dropped'
"""Column of the reason why a stage dropped a row; absent or None where it was kept."""


def find_files(table: str | os.PathLike) -> list[Path]:
    """List the files of a table: a file, or the shards of a folder in the order of their names."""
    table = Path(table)
    if table.is_file():
        ending_of(table)
        return [table]
    files = sorted(p for p in table.glob('*') if p.suffix.lower() in ENDINGS)
    if not files:
        raise TableError(f'there is no table {str(table)!r} ({", ".join(ENDINGS)})')
    if len(kinds := {file.suffix.lower() for file in files}) > 1:
        raise TableError(f'{str(table)!r} has files of several kinds: {", ".join(sorted(kinds))}')
    return files


def read_file(file: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Read the rows of a file with their types, see :func:`vito_mm.videos.tables.typed`.

    Args:
        file (Path): Table ending in one of ``ENDINGS``.
        columns (Sequence[str], optional): See :func:`vito_mm.videos.tables.read_rows`. Defaults to
            None, all.

    Raises:
        TableError: If it cannot be read, or a row cannot be used.
    """
    for number, row in read_rows(file, columns):
        try:
            if isinstance(row, RowError):
                raise row
            yield typed(row)
        except RowError as error:
            raise TableError(f'{place_in(file, number)}: {error}') from None


def read_table(table: str | os.PathLike, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Read the rows of all files of a table, dropped ones included, see :func:`read_file`."""
    for file in find_files(table):
        yield from read_file(file, columns)


def read_kept(file: Path, columns: Sequence[str] | None = None) -> list[Row]:
    """Read the rows that a stage kept, without the column ``DROPPED``, see :func:`read_file`."""
    rows = read_file(file, None if columns is None else [*columns, DROPPED])
    return [
        {name: value for name, value in row.items() if name != DROPPED}
        for row in rows
        if row.get(DROPPED) is None
    ]


def write_file(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows to a Parquet file; the OSError where that fails names it.

    A column that Parquet cannot hold (values of several types, objects with different keys, text
    that is not Unicode) is written as JSON, which ``AS_JSON`` in the metadata of its field says and
    reading undoes.
    """
    parquet = import_parquet()
    import pyarrow

    # from_pylist takes the columns of the first row for all.
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [_column(name, [row.get(name) for row in rows]) for name in names]
    schema = pyarrow.schema([field for field, _ in columns])
    table = pyarrow.table([array for _, array in columns], schema)
    try:
        with written_aside(file) as unfinished:
            parquet.write_table(table, unfinished)
    except OSError as error:
        # PyArrow words it at length.
        reason = os.strerror(error.errno) if error.errno is not None else str(error)
        raise OSError(f'{file} cannot be written: {reason}') from error


def _column(name: str, values: list[Any]) -> tuple[Any, Any]:
    import pyarrow

    try:
        array = pyarrow.array(values)
        kind = str(array.type)
        # Objects get the keys of all others there; Parquet has none without keys.
        is_same = 'struct<' not in kind or array.to_pylist() == values
        if is_same and 'struct<>' not in kind:
            return pyarrow.field(name, array.type), array
    except (pyarrow.ArrowException, TypeError, OverflowError, UnicodeEncodeError):
        pass
    texts = [None if value is None else json.dumps(value) for value in values]
    text = pyarrow.string()
    return pyarrow.field(name, text, metadata=AS_JSON), pyarrow.array(texts, text)


def split(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Cut rows into lists of ``size``, of which the last may be shorter."""
    rows = iter(rows)
    while part := list(islice(rows, size)):
        yield part
