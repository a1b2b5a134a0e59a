"""Files that are complete or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_aside(file: Path) -> Iterator[Path]:
    """Write a file under a temporary name, and rename it once it has reached the disk.

    A kill, a full disk or a power cut leaves what was there before.

    Args:
        file (Path): File to write.

    Yields:
        Path: Where to write. If the block fails, it is removed.
    """
    unfinished = file.with_name(f'{file.name}.{os.getpid()}.tmp')
    try:
        yield unfinished
        rename_durably(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def rename_durably(source: Path, target: Path) -> None:
    """Rename a complete file, once it has reached the disk; ``target`` is replaced."""
    with source.open('rb') as file:
        os.fsync(file.fileno())
    os.replace(source, target)
