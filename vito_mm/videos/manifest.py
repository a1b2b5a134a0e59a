"""The table of videos: one row a video, as JSON lines or CSV.

Only ``path`` is required. ``start`` and ``end`` (seconds) name the part of a video that counts, so
that a long video can be several rows. ``label``, ``fps``, ``num_frames`` and any other column are
kept as they are. Relative paths are relative to the folder of the manifest, so that a data set can
be moved.
"""

import csv
import hashlib
import json
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vito_mm.atomic import written_aside

from .errors import VideoReadError
from .names import files_below

VIDEO_EXTENSIONS = ('.mp4', '.mkv', '.webm', '.avi', '.mov', '.m4v', '.mpg', '.mpeg', '.ts', '.flv')
"""File name endings taken for videos, in any case."""

_NUMBERS = dict(label=int, num_frames=int, fps=float, seconds=float, start=float, end=float)
_BAD = (b'"verdict": "bad"', b'"verdict":"bad"')


def find_videos(
    folder: str | os.PathLike, extensions: Sequence[str] = VIDEO_EXTENSIONS
) -> list[dict[str, Any]]:
    """List the video files below a folder.

    Args:
        folder: Folder that is searched, see :func:`.names.files_below`.
        extensions: Endings of the files to list, in lower case. Defaults to VIDEO_EXTENSIONS.

    Returns:
        list[dict]: Rows with ``path``, sorted by path.

    Raises:
        FileNotFoundError: If there is no such folder, or no file in it has such an ending.
    """
    folder = os.fspath(folder)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f'there is no folder {folder!r} to take videos from')
    paths = sorted(files_below(folder, extensions))
    if not paths:
        endings = ', '.join(extensions)
        raise FileNotFoundError(f'no video in {folder!r} or below it (files ending in {endings})')
    return [{'path': path} for path in paths]


class Manifest(Sequence):
    """Rows of a table of videos, each parsed when it is asked for.

    The table stays in the page cache of the machine: a million rows take a few megabytes of memory
    of their own, and the processes that train on it, data workers included, share it. Replace the
    file of a running training by another (as :func:`write_manifest` does) rather than overwrite it.

    Args:
        source (str): What errors call the table, e.g. its file.
        root (str): Folder that relative paths start from.
        file (str, optional): JSON lines to map into memory.
        lines (bytes): JSON lines, if there is no file. Defaults to b''.
        keep_bad (bool): Whether rows with ``"verdict": "bad"`` count. Defaults to False.
    """

    def __init__(
        self,
        source: str,
        root: str,
        file: str | None = None,
        lines: bytes = b'',
        keep_bad: bool = False,
    ) -> None:
        self.source, self.root, self.file, self.lines = source, root, file, lines
        self._buffer = self._map()
        self._spans = _lines_of(self._buffer, () if keep_bad else _BAD)

    def _map(self) -> mmap.mmap | bytes:
        if self.file is None or os.path.getsize(self.file) == 0:
            return self.lines
        with open(self.file, 'rb') as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != '_buffer'}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._buffer = self._map()

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int | slice) -> Any:
        """One row as a dict, its ``path`` joined with the root; or a part of the table.

        Raises:
            VideoReadError: If the row cannot be read; names its line.
        """
        if isinstance(index, slice):
            return self._changed(_spans=self._spans[index])
        start, end = self._spans[index]
        line = self._buffer[start:end].decode('utf-8', 'surrogateescape')
        try:
            row = json.loads(line)
        except ValueError as error:
            raise self._unreadable(start, f'not JSON ({error})') from None
        if isinstance(row, str):  # what _rows_of_csv found
            raise self._unreadable(start, row)
        if not isinstance(row, dict):
            raise self._unreadable(start, f'not a JSON object but {row!r}')
        if not isinstance(row.get('path'), str) or not row['path']:
            raise self._unreadable(start, 'no "path" in this row')
        row['path'] = os.path.join(self.root, row['path'])
        return row

    def _changed(self, **attributes: Any) -> 'Manifest':
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, **attributes)
        return other

    def with_root(self, root: str | os.PathLike) -> 'Manifest':
        """Let relative paths start elsewhere, without reading the table again.

        Args:
            root: Folder that relative paths start from.

        Returns:
            Manifest: The same rows.
        """
        return self._changed(root=os.fspath(root))

    def _unreadable(self, start: int, reason: str) -> VideoReadError:
        number = self._buffer[:start].count(b'\n') + 1
        if self.source.endswith('.csv'):
            number += 1  # the header
        return VideoReadError(f'{self.source}, line {number}', reason)

    def fingerprint(self) -> str:
        """Hash of the table.

        Returns:
            str: SHA-256 in hexadecimal digits.
        """
        return hashlib.sha256(self._buffer).hexdigest()

    @classmethod
    def from_rows(
        cls, rows: Iterable[Mapping[str, Any] | str], source: str, root: str = '', **kwargs: Any
    ) -> 'Manifest':
        """Make a table of rows.

        Args:
            rows (Iterable): Mappings with ``path``; or, in place of a row that cannot be read, the
                reason.
            source (str): What errors call the table.
            root (str): Folder that relative paths start from. Defaults to ''.
            **kwargs: Other arguments of the class.

        Returns:
            Manifest: The table.
        """
        return cls(source, root, lines=b''.join(map(to_line, rows)), **kwargs)


def _lines_of(buffer: mmap.mmap | bytes, marks_to_leave_out: Sequence[bytes]) -> np.ndarray:
    """Start and end of every line that is not empty and has none of the marks, shape (n, 2)."""
    size = len(buffer)
    data = np.frombuffer(buffer, np.uint8) if size else np.zeros(0, np.uint8)
    chunk = 2**24
    ends = [np.flatnonzero(data[i : i + chunk] == ord('\n')) + i for i in range(0, size, chunk)]
    ends = np.concatenate([*ends, [size]]).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    keep = ends > starts
    for mark in marks_to_leave_out:
        position = buffer.find(mark)
        while position >= 0:
            keep[np.searchsorted(ends, position)] = False
            position = buffer.find(mark, position + 1)
    return np.stack([starts, ends], axis=1)[keep]


def read_manifest(
    file: str | os.PathLike, root: str | os.PathLike | None = None, keep_bad: bool = False
) -> Manifest:
    """Read a manifest.

    Args:
        file: Manifest ending in ``.jsonl`` (one JSON object a line) or ``.csv`` (with a header).
        root: Folder that relative paths start from. Defaults to the folder of the manifest.
        keep_bad: Whether rows with ``"verdict": "bad"`` count. Defaults to False: they are left
            out.

    Returns:
        Manifest: One dict a video; ``path`` is joined with ``root``, numbers are numbers. A row
        that cannot be read is an error only when it is asked for.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the ending is unknown, the header of a CSV has no ``path``, or there is no
            row of a video that is not bad.
    """
    file = Path(file)
    root = os.fspath(file.parent if root is None else root)
    if not file.is_file():
        raise FileNotFoundError(f'there is no manifest {str(file)!r}')
    if file.suffix == '.jsonl':
        manifest = Manifest(str(file), root, file=str(file), keep_bad=keep_bad)
    elif file.suffix == '.csv':
        manifest = Manifest.from_rows(_rows_of_csv(file), str(file), root, keep_bad=keep_bad)
    else:
        raise ValueError(f'a manifest ends in .jsonl or .csv, got {str(file)!r}')
    if not len(manifest):
        raise ValueError(f'the manifest {str(file)!r} lists no video, or none that is not bad')
    return manifest


def _rows_of_csv(file: Path) -> Iterator[dict[str, Any] | str]:
    with file.open(encoding='utf-8', errors='surrogateescape', newline='') as lines:
        table = csv.DictReader(lines)
        if 'path' not in (table.fieldnames or ()):
            raise ValueError(f'{file}: the header has no column "path" but {table.fieldnames}')
        for row in table:
            yield _with_numbers(row)


def _with_numbers(row: dict[str, Any]) -> dict[str, Any] | str:
    for name, number in _NUMBERS.items():
        if row.get(name) in (None, ''):
            row.pop(name, None)
            continue
        try:
            row[name] = number(row[name])
        except ValueError:
            return f'{name} is {row[name]!r}, not a number'
    row.pop(None, None)  # fields beyond the header
    return row


def to_line(row: Mapping[str, Any] | str) -> bytes:
    """Write a row as a line of JSON.

    Args:
        row: Row of a manifest.

    Returns:
        bytes: UTF-8; file names that are not are escaped.
    """
    row = row if isinstance(row, str) else dict(row)
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b'\n'
    except UnicodeEncodeError:
        return json.dumps(row).encode() + b'\n'


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
    with written_aside(file) as unfinished, unfinished.open('wb') as lines:
        for row in rows:
            lines.write(to_line(row))
