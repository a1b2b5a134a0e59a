"""Tables of videos as shard files, read and written in parts."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from vito_mm.utils.atomic import written_aside
from vito_mm.videos.manifest import to_line
from vito_mm.videos.tables import (
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

FORMATS = ('parquet', 'jsonl')
"""What shards are written as."""

DROPPED = 'dropped'
"""Column of the reason why a stage dropped a row; absent or None where it was kept."""


def find_files(table: str | os.PathLike) -> list[Path]:
    """The files of a table.

    Args:
        table (str | os.PathLike): A file, or a folder of shards, taken in the order of their names.

    Returns:
        list[Path]: At least one file.

    Raises:
        TableError: If there is none.
    """
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
    """Rows of a file with their types, a part in memory at a time.

    Args:
        file (Path): Table ending in one of ``ENDINGS``.
        columns (Sequence[str], optional): See :func:`vito_mm.videos.tables.read_rows`. Defaults to
            None, all.

    Yields:
        dict: A row, see :func:`vito_mm.videos.tables.typed`.

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
    """Rows of all files of a table, those that were dropped included.

    Args:
        table (str | os.PathLike): See :func:`find_files`.
        columns (Sequence[str], optional): See :func:`read_file`.

    Yields:
        dict: A row.
    """
    for file in find_files(table):
        yield from read_file(file, columns)


def read_kept(file: Path, columns: Sequence[str] | None = None) -> list[Row]:
    """Rows of a shard that its stage kept, in order.

    Args:
        file (Path): Shard.
        columns (Sequence[str], optional): See :func:`read_file`.

    Returns:
        list[dict]: Rows without the column ``DROPPED``.
    """
    wanted = None if columns is None else [*columns, DROPPED]
    rows = read_file(file, wanted)
    return [
        {name: value for name, value in row.items() if name != DROPPED}
        for row in rows
        if row.get(DROPPED) is None
    ]


def write_file(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a shard, whole or not at all.

    Args:
        file (Path): Shard ending in ``.parquet`` or ``.jsonl``.
        rows (Sequence[Mapping]): Its rows.

    Raises:
        TableError: If a column does not fit into the format.
        OSError: If it cannot be written; names the file.
    """
    try:
        with written_aside(file) as unfinished:
            if file.suffix == '.parquet':
                _write_parquet(unfinished, rows)
            else:
                with unfinished.open('wb') as lines:
                    lines.writelines(to_line(row) for row in rows)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno is not None:  # PyArrow words it at length
            reason = os.strerror(error.errno)
        raise OSError(f'{file} cannot be written: {reason}') from error


def split(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Lists of some rows each, until there are none left.

    Args:
        rows (Iterable[dict]): Rows.
        size (int): Rows of each list but the last.

    Yields:
        list[dict]: Some rows.
    """
    rows = iter(rows)
    while part := list(islice(rows, size)):
        yield part


def shard_name(number: int, form: str) -> str:
    """File name of a shard.

    Args:
        number (int): Its number, from 0.
        form (str): One of ``FORMATS``.

    Returns:
        str: Such as ``'part-000007.parquet'``.
    """
    return f'part-{number:06d}.{form}'


def _write_parquet(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    parquet = import_parquet()
    import pyarrow

    remedy = 'leave it out, give it one type, or take JSON lines (--format jsonl)'
    # from_pylist takes the columns of the first row for all.
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        if name == 'label' and len({isinstance(value, str) for value in values}) > 1:
            # Numbers among names; they are read as numbers again.
            values = [None if value is None else str(value) for value in values]
        try:
            columns[name] = pyarrow.array(values)
        except UnicodeEncodeError as error:
            at = next(i for i, value in enumerate(values) if not _is_unicode(value))
            raise TableError(
                f'column {name!r} of {rows[at].get("path")!r} is no Unicode ({error}), which '
                'Parquet needs: correct it, or take JSON lines (--format jsonl)'
            ) from error
        except (pyarrow.ArrowException, TypeError, OverflowError) as error:
            raise TableError(
                f'column {name!r} does not fit into a Parquet table ({error}): {remedy}'
            ) from error
    try:
        parquet.write_table(pyarrow.table(columns), file)
    except pyarrow.ArrowNotImplementedError as error:  # says which column
        raise TableError(
            f'a column does not fit into a Parquet table ({error}): {remedy}'
        ) from None


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
