"""Names of data files, and their order."""

import os
import re
from collections.abc import Iterator, Sequence

_OF_SYSTEMS = frozenset(
    (
        *('__macosx', 'thumbs.db', 'desktop.ini', '$recycle.bin', 'system volume information'),
        *('lost+found', '@eadir'),
    )
)
"""Names that systems leave behind, in lower case."""


def is_hidden(name: str) -> bool:
    """True for names that begin with a dot, such as the ``._x.jpg`` of macOS next to ``x.jpg``, and
    for those of systems, such as ``__MACOSX`` and ``Thumbs.db``.
    """
    return name.startswith('.') or name.lower() in _OF_SYSTEMS


def is_visible(name: str) -> bool:
    """True if no part of a name, folders included, is hidden."""
    return not any(is_hidden(part) for part in name.split('/') if part not in ('.', '..'))


def natural_order(name: str) -> tuple:
    """Sort key by which frame2 comes before frame10."""
    parts = re.split('([0-9]+)', name)
    parts[1::2] = map(int, parts[1::2])
    return *parts, name


def endings_of(endings: str | Sequence[str]) -> tuple[str, ...]:
    """Endings of file names in lower case, of one or several."""
    return tuple(map(str.lower, [endings] if isinstance(endings, str) else endings))


def files_below(folder: str | os.PathLike, endings: str | Sequence[str]) -> Iterator[str]:
    """Search a folder with its sub-folders, links to folders included, each folder once.

    Hidden files and folders are skipped.

    Yields:
        str: Paths of files with one of the endings, in upper or lower case, in no particular order.

    Raises:
        OSError: If a folder cannot be listed.
    """

    def fail(error: OSError) -> None:  # else it would be left out
        raise error

    endings, seen = endings_of(endings), set()
    for parent, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in names:
            if name.lower().endswith(endings) and not is_hidden(name):
                yield os.path.join(parent, name)
