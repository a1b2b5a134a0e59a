"""Conditions on columns of a table, as the command line gives them."""

import operator
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vito_mm.utils.text import near_text
from vito_mm.videos.tables import shortened

from .tables import DROPPED, Row, TableError

_OPERATORS = {
    '<=': operator.le,
    '>=': operator.ge,
    '==': operator.eq,
    '!=': operator.ne,
    '<': operator.lt,
    '>': operator.gt,
}
_OF_LABELS = ('labels', 'label_frames', 'label_scores')
"""Columns that the stage "classify" writes, all or none."""

_SYNTAX = re.compile(r'\s*([^<>=!]+?)\s*(<=|>=|==|!=|<|>)\s*([-+.\d][-+.\deE]*)\s*')


@dataclass(frozen=True)
class Filter:
    """A condition such as ``seconds<=600``, ``text`` as it was given.

    ``name`` is a column, or ``aspect``: the longer side of the picture by the shorter. ``seconds``
    of a row that names a part of a video are those of the part.
    """

    text: str
    name: str
    operator: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> 'Filter':
        """Read a condition: column, operator and number; a ValueError if it is none."""
        if match := _SYNTAX.fullmatch(text):
            name, sign, limit = match.groups()
            with suppress(ValueError):
                return cls(text, name, sign, float(limit))
        raise ValueError(
            f'filter {text!r}: give a column, one of {" ".join(_OPERATORS)} and a number, such as '
            "'seconds<=600'"
        )

    def apply(self, row: Row) -> Row:
        """Drop a row that does not pass; a TableError if its value is no number.

        Of a list the largest value counts. Columns whose names begin with ``label_`` have a value
        for each of the row's ``labels``: labels that do not pass are taken away with their values,
        and the row is dropped if none is left. A row without a value does not pass.
        """
        values, passes = self.values_of(row), _OPERATORS[self.operator]
        if _is_of_labels(self.name, row):
            passed = [passes(value, self.limit) for value in values]
            if any(passed):
                return _with_labels(row, passed)
        largest = max(values, default=None)
        if largest is not None and passes(largest, self.limit):
            return row
        value = 'none' if largest is None else f'{largest:.10g}'
        return {**row, DROPPED: f'filter {self.name}: {value}'}

    def values_of(self, row: Row) -> list[float]:
        """List the values that a row has for the condition; a TableError if one is no number."""
        value = length_of(row) if self.name == 'seconds' else row.get(self.name)
        if value is None and self.name == 'aspect' and row.get('width') and row.get('height'):
            sides = row['width'], row['height']
            value = max(sides) / min(sides)
        if value is None:
            return []
        try:
            return [float(v) for v in value] if isinstance(value, list) else [float(value)]
        except (TypeError, ValueError):
            raise TableError(
                f'filter {self.text!r}: the column {self.name!r} has {shortened(value)}, which is '
                f'no number, in the row of {row.get("path")}'
            ) from None

    def unknown_in(self, names: Iterable[str]) -> TableError:
        """Make the error that a table does not have the column, but others."""
        names = list(names)
        near = near_text(self.name, [*names, 'aspect'])
        return TableError(
            f'filter {self.text!r}: the table has no column {self.name!r}{near}, but '
            f'{", ".join(map(repr, names))}'
        )


def length_of(row: Mapping[str, Any]) -> float | None:
    """Seconds of a video, or of the part of it that a row names; None if they are not known."""
    seconds = row.get('seconds')
    if seconds is None:
        return None
    return max(0.0, min(seconds, row.get('end', seconds)) - row.get('start', 0.0))


def is_classified(row: Mapping[str, Any]) -> bool:
    """True if ``labels`` are those of the stage "classify", and no column of the user."""
    return all(isinstance(row.get(name), list) for name in _OF_LABELS)


def _is_of_labels(name: str, row: Row) -> bool:
    return name.startswith('label_') and isinstance(row.get(name), list) and is_classified(row)


def _with_labels(row: Row, kept: list[bool]) -> Row:
    """Keep some labels of a row."""
    changed = {}
    for name in row:
        if name == 'labels' or _is_of_labels(name, row):
            if len(row[name]) != len(kept):
                raise TableError(
                    f'{row.get("path")}: {len(kept)} values of labels, but {len(row[name])} in the '
                    f'column {name!r}'
                )
            changed[name] = [v for v, keep in zip(row[name], kept, strict=True) if keep]
    return row | changed
