"""Files that are complete or not there."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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


@contextmanager
def folder_written_aside(folder: Path) -> Iterator[Path]:
    """Fill a new folder under a temporary name, and rename it once its files have reached the disk.

    Args:
        folder (Path): Folder to make. It may exist if it is empty.

    Yields:
        Path: The folder to fill. If the block fails, it is removed.

    Raises:
        OSError: If the folder exists and holds something.
    """
    unfinished = folder.with_name(f'{folder.name}.{os.getpid()}.tmp')
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for file in unfinished.iterdir():
            with file.open('rb') as opened:
                os.fsync(opened.fileno())
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_json(file: Path, content: Any, **settings: Any) -> None:
    """Write a JSON file atomically; ``settings`` of ``json.dumps``, of which indent is 1."""
    with written_aside(file) as unfinished:
        text = json.dumps(content, **(dict(indent=1) | settings))
        unfinished.write_text(f'{text}\n', encoding='utf-8')


def rename_durably(source: Path, target: Path) -> None:
    """Rename a complete file, once it has reached the disk; ``target`` is replaced."""
    with source.open('rb') as file:
        os.fsync(file.fileno())
    os.replace(source, target)
