"""Texts of reports and errors: numbers, durations, names and reasons."""

import os
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any


def setting_text(value: float | int | str) -> str:
    """Format a swept setting as it is typed."""
    return f'{value:g}' if isinstance(value, float) else str(value)


def mean_text(mean: float, deviation: float | None) -> tuple[str, str]:
    """Format a mean and its standard deviation with one digit, or two if that is below 0.05.

    Without a deviation, of a single run, its text is empty.
    """
    if deviation is None:
        return f'{mean:.1f}', ''
    digits = 2 if 0 < deviation < 0.05 else 1
    return f'{mean:.{digits}f}', f'{deviation:.{digits}f}'


def time_text(seconds: float) -> str:
    """Format a duration, such as ``'42 s'``, ``'12 min'`` or ``'3 h 30 min'``."""
    if seconds < 100:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 100 else f'{minutes // 60} h {minutes % 60:02d} min'


def count_text(number: int, noun: str) -> str:
    """Format a number with its noun, such as ``'1 run'`` or ``'2 runs'``."""
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


def first_few(items: Sequence[Any], shown: int = 5, separator: str = ', ') -> str:
    """Join the first items, such as ``'a, b, c and 4 more'``; empty without items."""
    more = len(items) - shown
    return separator.join(map(str, items[:shown])) + (f' and {more} more' if more > 0 else '')


def near_text(name: str, known: Iterable[str], key: Callable[[str], str] = str) -> str:
    """Suggest up to three known names for an unknown one: ``" (did you mean 'lvis'?)"``, or ''.

    ``key`` makes of a name what is compared; of names with the same key the first is suggested.
    """
    by_key: dict[str, str] = {}
    for each in known:
        by_key.setdefault(key(each), each)
    found = [repr(by_key[match]) for match in get_close_matches(key(name), by_key)]
    return f' (did you mean {" or ".join(found)}?)' if found else ''


def without_machine(text: str) -> str:
    """Remove the current and the home folder from paths in a message."""
    for folder, short in ((Path.cwd(), ''), (Path.home(), f'~{os.sep}')):
        if folder != Path(folder.root):
            text = text.replace(f'{folder}{os.sep}', short)
    return text


def reason_text(error: Exception) -> str:
    """Format type and first line of an error."""
    first = (str(error).strip().splitlines() or [''])[0][:300]
    return without_machine(f'{type(error).__name__}: {first}')
