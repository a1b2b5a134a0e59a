"""Tables of videos: one reader of CSV, JSON lines and Parquet, and one schema of their columns."""

import codecs
import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ENDINGS = ('.parquet', '.jsonl', '.csv')
"""File name endings of tables, in any case."""

AS_JSON = {b'vito_mm': b'json'}
"""Metadata of a Parquet column whose text is JSON, since Parquet has no type for its values."""

Row = dict[str, Any]

_NUMBERS: dict[str, Callable] = dict(
    **dict.fromkeys(('start', 'end', 'fps', 'seconds'), float),
    **dict.fromkeys(('num_frames', 'width', 'height'), int),
)
_LONGEST_FIELD = 2**31 - 1


class TableError(ValueError):
    """A table cannot be read or lacks something; the message names the file, line or column."""


class RowError(ValueError):
    """A row cannot be used; the message says why, and names the column if it is one."""


def ending_of(file: Path) -> str:
    """Ending of a table's name, one of ``ENDINGS``; a TableError if it is none of them."""
    if (ending := file.suffix.lower()) not in ENDINGS:
        raise TableError(f'a table ends in {", ".join(ENDINGS)}, got {str(file)!r}')
    return ending


def place_in(file: str | Path, number: int) -> str:
    """Place of a row as errors name it, such as ``'videos.csv, line 3'``."""
    unit = 'row' if str(file).lower().endswith('.parquet') else 'line'
    return f'{file}, {unit} {number}'


def read_rows(
    file: Path, columns: Sequence[str] | None = None, needs: Iterable[str] = ()
) -> Iterator[tuple[int, Row | RowError]]:
    """Rows of a table as they are written, a part of the file in memory at a time.

    CSV knows only text, and blank fields are missing ones; in Parquet, null is. A byte order mark
    of UTF-8 is skipped. Bytes that are not UTF-8 become lone surrogates, as Python has them in
    file names.

    Args:
        file (Path): Table ending in one of ``ENDINGS``.
        columns (Sequence[str], optional): Columns that are needed; a Parquet file is not read
            beyond them. Defaults to None, all.
        needs (Iterable[str]): Columns without which CSV and Parquet are refused.

    Yields:
        tuple: Line in which the row begins, of Parquet its number, both from 1; and the row, or why
        there is none.

    Raises:
        TableError: If the file cannot be read as such a table.
        ImportError: If PyArrow is needed and not installed.
    """
    ending = ending_of(file)
    if ending == '.parquet':
        yield from enumerate(_read_parquet(file, columns, needs), start=1)
    elif ending == '.csv':
        yield from _read_csv(file, needs)
    else:
        with file.open('rb') as lines:
            lines.seek(mark_length(lines.read(4), file))
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    try:
                        row = parse_line(line)
                    except RowError as error:
                        row = error
                    yield number, row


def mark_length(head: bytes, file: str | Path) -> int:
    """Length of the byte order mark, 3 or 0, in the first four bytes of a text.

    Raises:
        TableError: If it is UTF-16 or UTF-32; names ``file``.
    """
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b'\0' in head[:4]:
        raise TableError(
            f'{file} is in UTF-16 or UTF-32: save it as UTF-8 (iconv -f UTF-16 -t UTF-8)'
        )
    return len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0


def parse_line(line: bytes) -> Row:
    """Row of a line of JSON; a RowError if it is no object."""
    try:
        row = json.loads(line.decode('utf-8', 'surrogateescape'))
    except (ValueError, RecursionError) as error:
        raise RowError(f'not JSON ({error})') from None
    if not isinstance(row, dict):
        raise RowError(f'not a JSON object but {shortened(row)}')
    return row


def typed(row: Row) -> Row:
    """Give the columns that have a meaning their types, whatever the table is written in.

    ``start``, ``end``, ``fps``, ``seconds`` are floats, ``num_frames``, ``width``, ``height``
    integers; text of a number is the number; None, blank text and NaN are removed. A ``label`` is
    an integer where it is one (also ``1.0`` or ``'1'``), removed where it is None or blank, and
    else kept as it is. Other columns are kept. The row is changed in place.

    Raises:
        RowError: If a value cannot be used; names the column.
    """
    for name, kind in _NUMBERS.items():
        if name not in row:
            continue
        value = row[name]
        try:
            number = _number(value)
            if number is None:
                del row[name]
                continue
            if not math.isfinite(number) or kind(number) != number:
                raise ValueError
            row[name] = kind(number)
        except (ValueError, OverflowError):
            wanted = 'a number' if kind is float else 'a whole number'
            raise RowError(f'{name} is {shortened(value)}, not {wanted}') from None
    if 'label' in row and (label := _label(row['label'])) is None:
        del row['label']
    elif 'label' in row:
        row['label'] = label
    start, end = row.get('start', 0.0), row.get('end')
    if start < 0:
        raise RowError(f'start is {start:g}, before the beginning of the video')
    if end is not None and end < start:
        raise RowError(f'end is {end:g}, before start ({start:g})')
    if row.get('fps', 1) <= 0:
        raise RowError(f'fps is {row["fps"]:g}, not a positive number')
    return row


def _number(value: Any) -> int | float | None:
    """A number, None for a missing one, else a ValueError."""
    if isinstance(value, str):
        if not value.strip():
            return None
        if '_' in value:  # which Python takes within numbers
            raise ValueError
        try:
            value = int(value)
        except ValueError:
            value = float(value)
    if value is None or value != value:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    return value


def _label(value: Any) -> Any:
    try:
        number = _number(value)
    except ValueError:
        return value  # the name of a class
    if number is None:
        return None if value is None or not str(value).strip() else math.nan
    # What PyTorch takes as a label has 64 bits.
    whole = math.isfinite(number) and number == int(number) and abs(number) < 2**63
    return int(number) if whole else value


def plain(value: Any, column: str) -> Any:
    """Value of a Parquet table as JSON has it; dates and decimals become text, bytes a RowError."""
    if isinstance(value, str | int | float):
        return value
    try:
        return json.loads(json.dumps(value, default=_as_text))
    except TypeError:
        raise RowError(
            f'the column {column!r} has {shortened(value)}, which JSON does not know, so no '
            'manifest can have it: leave it out of the table'
        ) from None


def shortened(value: Any) -> str:
    """Value as an error shows it, in at most 40 letters."""
    text = repr(value)
    return text if len(text) <= 40 else f'{text[:37]}...'


def import_parquet() -> Any:
    """Import ``pyarrow.parquet``; the ImportError names the extra to install."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ImportError(
            'Parquet needs PyArrow, which is not installed: pip install "vito_mm[curation]"'
        ) from error
    return pyarrow.parquet


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        raise TypeError
    return value.isoformat() if hasattr(value, 'isoformat') else str(value)


def _check_columns(file: Path, names: Sequence[str], needs: Iterable[str]) -> None:
    for name in needs:
        if name not in names:
            raise TableError(f'{file}: the header has no column "{name}" but {list(names)}')


def _read_csv(file: Path, needs: Iterable[str]) -> Iterator[tuple[int, Row | RowError]]:
    with file.open('rb') as head:
        mark_length(head.read(4), file)
    # A setting of the process: the csv module has no other. Its 131,072 letters are few for what
    # scrapers write down.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    with file.open(encoding='utf-8-sig', errors='surrogateescape', newline='') as text:
        begin, ended = 1, False

        def lines() -> Iterator[str]:
            nonlocal ended
            yield from text
            ended = True

        table = csv.reader(lines())
        try:
            header = [name.strip() for name in next(table, [])]
            _check_columns(file, header, needs)
            begin = table.line_num + 1
            for cells in table:
                if ended:  # the reader went on to the end within a field
                    raise csv.Error('a quote is opened and never closed')
                number, begin = begin, table.line_num + 1
                if any(cell.strip() for cell in cells):
                    yield number, _row_of(header, cells)
        except csv.Error as error:
            raise TableError(f'{file}, line {begin}: cannot be read as CSV ({error})') from None


def _row_of(header: Sequence[str], cells: Sequence[str]) -> Row | RowError:
    if any(cell.strip() for cell in cells[len(header) :]):
        return RowError(
            f'{len(cells)} fields under a header of {len(header)}: values with a comma need quotes'
        )
    pairs = zip(header, cells, strict=False)
    return {name: cell for name, cell in pairs if cell.strip()}


def _read_parquet(
    file: Path, columns: Sequence[str] | None, needs: Iterable[str]
) -> Iterator[Mapping[str, Any]]:
    parquet = import_parquet()
    import pyarrow

    try:
        with parquet.ParquetFile(file) as source:
            names = source.schema_arrow.names
            as_json = [
                field.name
                for field in source.schema_arrow
                if AS_JSON.items() <= (field.metadata or {}).items()
            ]
            _check_columns(file, names, needs)
            if columns is not None:
                columns = [name for name in columns if name in names]
            for batch in source.iter_batches(batch_size=1024, columns=columns):
                for row in batch.to_pylist():
                    row = {name: value for name, value in row.items() if value is not None}
                    for name in row.keys() & as_json if as_json else ():
                        row[name] = json.loads(row[name])
                    yield row
    except (pyarrow.ArrowException, OSError) as error:
        raise TableError(f'{file}: cannot be read as Parquet ({error})') from error
