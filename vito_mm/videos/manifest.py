"""The table of videos: one row a video, as JSON lines or CSV.

Only ``path`` is required. ``label``, ``fps``, ``num_frames`` and any other column are kept as they
are. Relative paths are relative to the folder of the manifest, so that a data set can be moved.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vito_mm.atomic import written_aside

VIDEO_EXTENSIONS = ('.mp4', '.mkv', '.webm', '.avi', '.mov', '.m4v', '.mpg', '.mpeg', '.ts', '.flv')
"""File name endings taken for videos, in any case."""
IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
"""File name endings taken for images, in any case."""

_NUMBERS = {'label': int, 'num_frames': int, 'fps': float, 'seconds': float}


def find_videos(
    folder: str | os.PathLike, extensions: Sequence[str] = VIDEO_EXTENSIONS
) -> list[dict[str, Any]]:
    """List the video files below a folder.

    Args:
        folder: Folder that is searched with all its sub-folders, links to folders included.
        extensions: Endings of the files to list, in lower case. Defaults to VIDEO_EXTENSIONS.

    Returns:
        list[dict]: Rows with ``path``, sorted by path.

    Raises:
        FileNotFoundError: If there is no such folder, or no file in it has such an ending.
    """
    folder = os.fspath(folder)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f'there is no folder {folder!r} to take videos from')
    paths = [
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(tuple(extensions))
    ]
    if not paths:
        endings = ', '.join(extensions)
        raise FileNotFoundError(f'no video in {folder!r} or below it (files ending in {endings})')
    return [{'path': path} for path in sorted(paths)]


def read_manifest(
    file: str | os.PathLike, root: str | os.PathLike | None = None
) -> list[dict[str, Any]]:
    """Read a manifest.

    Args:
        file: Manifest ending in ``.jsonl`` (one JSON object a line) or ``.csv`` (with a header).
        root: Folder that relative paths start from. Defaults to the folder of the manifest.

    Returns:
        list[dict]: One dict a video; ``path`` is joined with ``root``, numbers are numbers.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the ending is unknown, a row cannot be read (named by line), or there is no
            row at all.
    """
    file = Path(file)
    root = os.fspath(file.parent if root is None else root)
    if not file.is_file():
        raise FileNotFoundError(f'there is no manifest {str(file)!r}')
    readers = {'.jsonl': _read_json_lines, '.csv': _read_csv}
    if file.suffix not in readers:
        raise ValueError(f'a manifest ends in .jsonl or .csv, got {str(file)!r}')
    rows = []
    for line, row in readers[file.suffix](file):
        if not isinstance(row.get('path'), str) or not row['path']:
            raise ValueError(f'{file}, line {line}: no "path" in this row')
        rows.append({**row, 'path': os.path.join(root, row['path'])})
    if not rows:
        raise ValueError(f'the manifest {str(file)!r} lists no video')
    return rows


def _read_json_lines(file: Path) -> Iterator[tuple[int, dict]]:
    with file.open(encoding='utf-8') as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f'{file}, line {number}: not JSON ({error})') from None
            if not isinstance(row, dict):
                raise ValueError(f'{file}, line {number}: not a JSON object but {row!r}')
            yield number, row


def _read_csv(file: Path) -> Iterator[tuple[int, dict]]:
    with file.open(encoding='utf-8', newline='') as lines:
        table = csv.DictReader(lines)
        if 'path' not in (table.fieldnames or ()):
            raise ValueError(f'{file}: the header has no column "path" but {table.fieldnames}')
        for row in table:
            for name, number in _NUMBERS.items():
                if row.get(name) in (None, ''):
                    row.pop(name, None)
                    continue
                try:
                    row[name] = number(row[name])
                except ValueError:
                    raise ValueError(
                        f'{file}, line {table.line_num}: {name} is {row[name]!r}, not a number'
                    ) from None
            yield table.line_num, row


def write_manifest(file: str | os.PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a manifest as JSON lines, whole or not at all.

    Args:
        file: Manifest to write, ending in ``.jsonl``. Its folder is made if need be.
        rows: One mapping a video, with ``path`` relative to the folder of the manifest or absolute.

    Raises:
        ValueError: If the ending is not ``.jsonl``.
    """
    file = Path(file)
    if file.suffix != '.jsonl':
        raise ValueError(f'a manifest is written as .jsonl, got {str(file)!r}')
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(file) as unfinished, unfinished.open('w', encoding='utf-8') as lines:
        for row in rows:
            lines.write(json.dumps(row, ensure_ascii=False) + '\n')
