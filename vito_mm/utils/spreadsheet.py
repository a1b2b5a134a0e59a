"""Tables as CSV that a spreadsheet shows and does not run."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA = ('=', '+', '-', '@', '\t', '\r')


def plain_cells(row: Iterable[Any]) -> list[Any]:
    """Cells of a row of CSV, none of which is a formula.

    Spreadsheets run what begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return: names
    of files and messages may do so. An apostrophe before it makes it text.

    Args:
        row (Iterable): Texts and numbers.

    Returns:
        list: The same; texts of that kind with an apostrophe before them, unless they are numbers.
    """
    return [f"'{cell}" if _is_formula(cell) else cell for cell in row]


def _is_formula(cell: Any) -> bool:
    if not isinstance(cell, str) or not cell.startswith(_FORMULA):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def to_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Write a table as CSV, see :func:`plain_cells`.

    Args:
        rows (Iterable): The header, and the rows.

    Returns:
        str: Lines that end in a newline alone.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(map(plain_cells, rows))
    return text.getvalue()
