"""Manifest: a table of videos with one row per video or part of one, as JSON lines, CSV or Parquet.

Only ``path`` is required. ``start`` and ``end`` (seconds) name the part of a video that counts, so
that a long video can be several rows; path, start and end together identify a row.
``label``, ``fps``, ``num_frames`` and other columns with a meaning have the types of
:func:`vito_mm.videos.tables.typed`, any other column is kept as it is. Relative paths are relative
to the folder of the manifest, so that a data set can be moved. A path may also be a member of a tar
(``shard.tar::cats/1.mp4``) or an address (``s3://bucket/1.mp4``), see
:mod:`vito_mm.videos.storage`.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from json import dumps, loads
from pathlib import Path
from typing import Any

import numpy as np

from vito_mm.utils.atomic import written_aside
from vito_mm.utils.remote_files import is_address

from .errors import VideoReadError
from .names import endings_of, files_below
from .shared_bytes import SharedBytes
from .tables import RowError, ending_of, mark_length, parse_line, place_in, plain, read_rows, typed

VIDEO_EXTENSIONS = ('.mp4', '.mkv', '.webm', '.avi', '.mov', '.m4v', '.mpg', '.mpeg', '.ts', '.flv')
"""File name endings taken for videos, in any case."""

PART = ('start', 'end')
"""Columns that name a part of a video."""

_REASON = b'"\\u0000'
"""Beginning of a line that says why there is no row: a text with a zero first."""
_BAD = re.compile(rb'"verdict"\s*:\s*"bad"')
_PATH_FIRST = b'{"path": "'


def find_videos(
    folder: str | os.PathLike, extensions: Sequence[str] = VIDEO_EXTENSIONS
) -> list[dict[str, Any]]:
    """List files below a folder, see :func:`.names.files_below`: rows with ``path``, sorted by it.

    Raises:
        FileNotFoundError: If there is no such folder, or no file in it has such an ending.
    """
    folder = os.fspath(folder)
    if not os.path.isdir(folder):
        remedy = ': list what is at an address in a manifest' if is_address(folder) else ''
        raise FileNotFoundError(f'there is no folder {folder!r} to take videos from{remedy}')
    paths = sorted(files_below(folder, extensions))
    if not paths:
        endings = ', '.join(endings_of(extensions))
        raise FileNotFoundError(f'no video in {folder!r} or below it (files ending in {endings})')
    return [{'path': path} for path in paths]


def path_of(row: Mapping[str, Any]) -> str:
    """The ``video_path`` of a row, as data sets have it, or its ``path``."""
    return os.fspath(row['video_path'] if 'video_path' in row else row['path'])


def part_name(row: Mapping[str, Any]) -> str:
    """Name a video or a part of one: its path, and ``start`` and ``end`` if the row has them.

    Parts are written as in media fragments of the W3C (https://www.w3.org/TR/media-frags/), such as
    ``'a.mp4#t=1.5,4.0'``.
    """
    path = path_of(row)
    start, end = row.get('start') or 0.0, row.get('end')
    if not start and end is None:
        return path
    return f'{path}#t={float(start)}' + ('' if end is None else f',{float(end)}')


def part_within(row: Mapping[str, Any], seconds: float) -> tuple[float, float]:
    """Start and end, in seconds, of the part that a row names of a video of some seconds.

    Raises:
        VideoReadError: If it begins after the end of the video.
    """
    start, end = row.get('start') or 0.0, row.get('end')
    end = seconds if end is None else min(end, seconds)
    if not 0 <= start <= end:
        said = f'from start={start} to end={row.get("end")} s'
        raise VideoReadError(part_name(row), f'the part {said} is not within its {seconds:.2f} s')
    return start, end


class Manifest(Sequence):
    """Rows of a table of videos, each parsed when it is asked for.

    The table is read once, into memory that the processes which train on it share, data workers
    included. Later changes of its file do not matter to them. A million rows take the size of the
    file and 20 bytes per row.

    Args:
        source (str): Name of the table in errors, e.g. its file.
        root (str): Folder that relative paths start from.
        lines (SharedBytes): JSON lines.
        numbers (Sequence[int], optional): Line of each in the source, where that is not JSON lines.
            Defaults to None: the same.
        keep_bad (bool): Whether rows with ``"verdict": "bad"`` count. Defaults to False.
    """

    def __init__(
        self,
        source: str,
        root: str,
        lines: SharedBytes,
        numbers: Sequence[int] | None = None,
        keep_bad: bool = False,
    ) -> None:
        self.source, self.root, self.lines = source, root, lines
        begin = mark_length(lines.buffer[:4], source)
        spans = _lines_of(lines.buffer, begin)
        keep = _worth_keeping(lines.buffer, spans, None if keep_bad else _BAD)
        numbers = np.arange(1, len(spans) + 1) if numbers is None else np.array(numbers, int)
        self._spans, self._numbers = spans[keep], numbers[keep[: len(numbers)]].astype(np.int32)
        self._is_part = False

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int | slice | Sequence[int]) -> Any:
        """One row as a dict, its ``path`` joined with the root; or a part of the table.

        Raises:
            VideoReadError: If the row cannot be used; names its line and column.
        """
        if isinstance(index, slice | Sequence):
            index = index if isinstance(index, slice) else np.array(index, int)
            return self._changed(
                _spans=self._spans[index], _numbers=self._numbers[index], _is_part=True
            )
        start, end = self._spans[index]
        try:
            line = self.lines.buffer[start:end]
            if line.startswith(_REASON):
                raise RowError(loads(line)[1:])
            row = typed(parse_line(line))
            if not isinstance(row.get('path'), str) or not row['path']:
                raise RowError('no "path" in this row')
            if '\0' in row['path']:
                raise RowError('path has a zero byte, which no file name has')
        except RowError as error:
            place = place_in(self.source, self._numbers[index])
            raise VideoReadError(place, str(error)) from None
        if not is_address(row['path']):
            row['path'] = os.path.join(self.root, row['path'])
        return row

    def _changed(self, **attributes: Any) -> 'Manifest':
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, **attributes)
        return other

    def with_root(self, root: str | os.PathLike) -> 'Manifest':
        """Return the same rows, not read again, with relative paths that start elsewhere."""
        return self._changed(root=os.fspath(root))

    def count_files(self) -> int:
        """Count the different paths of the rows; those that cannot be used count as none."""
        hashes = set()
        for start, end in self._spans.tolist():
            line = self.lines.buffer[start:end]
            path, quote, _ = line.removeprefix(_PATH_FIRST).partition(b'"')
            if not (line.startswith(_PATH_FIRST) and quote and b'\\' not in path):
                try:  # as others may write it
                    path = str(parse_line(line).get('path')).encode('utf-8', 'surrogatepass')
                except RowError:
                    continue
            hashes.add(hash(path))
        return len(hashes)

    def fingerprint(self) -> str:
        """SHA-256 of the table in hexadecimal digits; of a part also of which rows it has."""
        digest = hashlib.sha256(self.lines.buffer)
        if self._is_part:
            digest.update(self._spans.tobytes())
        return digest.hexdigest()

    @classmethod
    def of_lines(cls, file: Path, root: str = '', keep_bad: bool = False) -> 'Manifest':
        """Read a table in JSON lines."""
        with file.open('rb') as source:
            lines = SharedBytes(lambda target: shutil.copyfileobj(source, target, 2**22))
        return cls(str(file), root, lines, keep_bad=keep_bad)

    @classmethod
    def from_rows(
        cls, rows: Iterable[Mapping[str, Any]], source: str, root: str = '', **kwargs: Any
    ) -> 'Manifest':
        """Make a table of mappings with ``path``; for other arguments see the class."""
        lines = SharedBytes(lambda file: file.writelines(map(to_line, rows)))
        return cls(source, root, lines, **kwargs)


def _lines_of(buffer: Any, begin: int) -> np.ndarray:
    """Start and end of every line, shape (n, 2)."""
    size = len(buffer)
    data = np.frombuffer(buffer, np.uint8) if size else np.zeros(0, np.uint8)
    chunk = 2**20  # what stays in the processor's cache
    ends = [np.flatnonzero(data[i : i + chunk] == ord('\n')) + i for i in range(0, size, chunk)]
    ends = np.concatenate([*ends, [size]]).astype(np.int64)
    starts = np.concatenate([[begin], ends[:-1] + 1])
    return np.stack([starts, ends], axis=1)


def _worth_keeping(buffer: Any, spans: np.ndarray, mark: re.Pattern | None) -> np.ndarray:
    """True if each line is not blank and has no such mark, shape (n, )."""
    starts, ends = spans.T
    keep = ends > starts
    for line in np.flatnonzero(keep & (ends - starts < len('{"path":""}'))):
        keep[line] = bool(buffer[starts[line] : ends[line]].strip())
    if mark is not None and len(buffer):
        found = [match.start() for match in mark.finditer(buffer)]
        keep[np.searchsorted(ends, np.array(found, np.int64))] = False
    return keep


def read_manifest(
    file: str | os.PathLike, root: str | os.PathLike | None = None, keep_bad: bool = False
) -> Manifest:
    """Read a manifest.

    Args:
        file: Manifest ending in ``.jsonl``, ``.csv`` (with a header) or ``.parquet``.
        root: Folder that relative paths start from. Defaults to the folder of the manifest.
        keep_bad: Keep rows with ``"verdict": "bad"``. Defaults to False.

    Returns:
        Manifest: Its rows. One that cannot be used is an error only when it is asked for.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such table (:class:`.tables.TableError`), or all of its rows are
            bad.
        ImportError: If PyArrow is needed and not installed.
    """
    file = Path(file)
    root = os.fspath(file.parent if root is None else root)
    if not file.is_file():
        raise FileNotFoundError(f'there is no manifest {str(file)!r}')
    if ending_of(file) == '.jsonl':
        manifest = Manifest.of_lines(file, root, keep_bad)
    else:
        numbers: list[int] = []
        manifest = Manifest.from_rows(
            _converted(file, numbers), str(file), root, numbers=numbers, keep_bad=keep_bad
        )
    if not len(manifest):
        raise ValueError(f'the manifest {str(file)!r} lists no video, or none that is not bad')
    return manifest


def _converted(file: Path, numbers: list[int]) -> Iterator[dict[str, Any] | str]:
    """Rows as JSON knows them, or in place of one that cannot be read the reason."""
    for number, row in read_rows(file, needs=['path']):
        numbers.append(number)
        try:
            if isinstance(row, RowError):
                raise row
            yield {name: plain(value, name) for name, value in row.items()}
        except RowError as error:
            yield f'\0{error}'


def to_line(row: Mapping[str, Any] | str) -> bytes:
    """Write a row, or a text in its place, as a line of JSON in UTF-8; other names are escaped."""
    row = row if isinstance(row, str) else dict(row)
    try:
        return dumps(row, ensure_ascii=False).encode() + b'\n'
    except UnicodeEncodeError:
        return dumps(row).encode() + b'\n'


def write_manifest(file: str | os.PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a manifest as JSON lines, atomically. Its folder is made if need be.

    Raises:
        ValueError: If its name does not end in ``.jsonl``.
    """
    file = Path(file)
    if file.suffix != '.jsonl':
        raise ValueError(f'a manifest is written as .jsonl, got {str(file)!r}')
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(file) as unfinished, unfinished.open('wb') as lines:
        for row in rows:
            lines.write(to_line(row))
