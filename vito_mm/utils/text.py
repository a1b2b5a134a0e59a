"""Numbers, durations and messages as reports and errors word them."""

import os
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path


def setting_text(value: float | int | str) -> str:
    """A setting of a sweep as it is typed."""
    return f'{value:g}' if isinstance(value, float) else str(value)


def mean_text(mean: float, deviation: float | None) -> tuple[str, str]:
    """A mean in percent and its deviation: one digit, or two where the deviation is that small.

    Args:
        mean (float): Mean over seeds.
        deviation (float, optional): Sample standard deviation, None for a single run.

    Returns:
        tuple[str, str]: Both; the second is empty for a single run.
    """
    if deviation is None:
        return f'{mean:.1f}', ''
    digits = 2 if 0 < deviation < 0.05 else 1
    return f'{mean:.{digits}f}', f'{deviation:.{digits}f}'


def time_text(seconds: float) -> str:
    """A duration without digits that mean nothing.

    Args:
        seconds (float): Seconds, 0 or more.

    Returns:
        str: Such as ``'42 s'``, ``'12 min'`` or ``'3 h 30 min'``.
    """
    if seconds < 100:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 100 else f'{minutes // 60} h {minutes % 60:02d} min'


def count_text(number: int, noun: str) -> str:
    """How many of something."""
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


def near_text(name: str, known: Iterable[str], key: Callable[[str], str] = str) -> str:
    """A hint at what may have been meant, to follow a name that there is not.

    Args:
        name (str): What was given.
        known (Iterable[str]): What there is, of names with the same key the best first.
        key (Callable[[str], str]): What is compared of a name, such as ``str.lower``. Defaults to
            str, all of it.

    Returns:
        str: Such as ``" (did you mean 'lvis'?)"``, with up to three names; or nothing.
    """
    by_key: dict[str, str] = {}
    for each in known:
        by_key.setdefault(key(each), each)
    found = [repr(by_key[match]) for match in get_close_matches(key(name), by_key)]
    return f' (did you mean {" or ".join(found)}?)' if found else ''


def without_machine(text: str) -> str:
    """A message without the folders that mean something on one machine alone."""
    for folder, short in ((Path.cwd(), ''), (Path.home(), f'~{os.sep}')):
        if folder != Path(folder.root):
            text = text.replace(f'{folder}{os.sep}', short)
    return text


def reason_text(error: Exception) -> str:
    """Type and first line of an error, enough to find the cause."""
    first = (str(error).strip().splitlines() or [''])[0][:300]
    return without_machine(f'{type(error).__name__}: {first}')
