"""Tables of the user, and folders of videos with the files of the downloader next to them."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vito_mm.utils.hashing import hash64
from vito_mm.utils.remote_files import is_address
from vito_mm.videos.manifest import find_videos
from vito_mm.videos.tables import RowError, plain, shortened

from .stage_folder import fingerprint_of, finished_record, read_record
from .tables import DROPPED, Row, TableError, find_files, read_table


def rows_of(source: Path, columns: Mapping[str, str] | None = None) -> Iterator[Row]:
    """Read the rows of a table or folder, with an absolute ``path``, and a ``title`` if any.

    Addresses (``s3://bucket/1.mp4``) stay as they are.

    Values are what JSON knows: dates, decimals and the like become text, and None is omitted.

    Args:
        source (Path): A table (see :func:`.tables.find_files`), whose relative paths are relative
            to its folder; or the folder of a finished stage, of which the rows that it kept are
            taken; or a folder of videos, searched with its sub-folders. The title of ``a.mp4`` is
            then the ``title`` in ``a.info.json``, which yt-dlp's --write-info-json leaves, and
            without such a file the name of the video in words.
        columns (Mapping[str, str], optional): Names that a table has for ``path`` and ``title``;
            columns that have these names themselves are then skipped. Defaults to None: these.

    Raises:
        TableError: If there is nothing to read, a stage is not finished, or a value is of a kind
            that cannot be kept.
    """
    source = Path(source)
    if (videos := _videos_of(source)) is not None:
        for video in videos:
            yield dict(path=os.path.abspath(video), title=_title_of(Path(video)))
        return
    record = finished_record(source)
    folder = folder_of(source)
    for number, row in enumerate(read_table(source), start=1):
        if row.get(DROPPED) is not None:
            if record is not None:
                continue
            raise TableError(
                f'{source} has a column {DROPPED!r}, which is where stages say what they drop: '
                'rename it. Of a stage give the complete folder'
            )
        yield _renamed(row, folder, columns or {}, f'{source}, row {number}')


def folder_of(source: Path) -> str:
    """Absolute folder that relative paths of a table start from."""
    return os.path.abspath(source if source.is_dir() else source.parent)


def has_relative_paths(source: Path, columns: Mapping[str, str]) -> bool:
    """True if the paths of a table's rows change when it is moved, see :func:`rows_of`."""
    if _videos_of(source) is not None:
        return False  # by their absolute paths, which are part of the content
    column = columns.get('path', 'path')
    values = (row.get(column) for row in read_table(source, [column]))
    paths = (str(value) for value in values if value is not None)
    return any(not (is_address(path) or os.path.isabs(path)) for path in paths)


def content_of(source: Path) -> str:
    """Hash a table of the user; of a folder of videos paths, and size and time of title files."""
    videos = _videos_of(source)
    if videos is None:
        return fingerprint_of(source)
    facts = []
    for video in videos:
        facts.append(os.path.abspath(video))
        try:
            status = _sidecar_of(Path(video)).stat()
            facts.append(f'{status.st_size} {status.st_mtime_ns}')
        except FileNotFoundError:
            pass
    return f'{hash64(*facts):016x}'


def _renamed(row: Row, folder: str, columns: Mapping[str, str], where: str) -> Row:
    names = {name: columns.get(name, name) for name in ('path', 'title')}
    named = {
        name: _text(row[column], f'{where}: the column {column!r}')
        for name, column in names.items()
        if row.get(column) is not None
    }
    if 'path' in named and not is_address(named['path']):
        named['path'] = os.path.normpath(os.path.join(folder, named['path']))
    try:
        return named | {
            name: plain(value, name)
            for name, value in row.items()
            if value is not None and name not in names and name not in names.values()
        }
    except RowError as error:
        raise TableError(f'{where}: {error}') from None


def _text(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise TableError(f'{where} has {shortened(value)}, which is no text')


def _videos_of(source: Path) -> list[str] | None:
    """List the videos of a folder that has no table."""
    if not source.is_dir() or read_record(source) is not None:
        return None
    try:
        find_files(source)
    except TableError as no_table:
        try:
            return [row['path'] for row in find_videos(source)]
        except FileNotFoundError as no_video:
            raise TableError(
                f'{source} has neither a table nor a video: {no_table}; {no_video}'
            ) from None
    return None


def _sidecar_of(video: Path) -> Path:
    return video.with_suffix('.info.json')


def _title_of(video: Path) -> str:
    sidecar = _sidecar_of(video)
    if sidecar.exists() and not sidecar.is_file():  # a pipe would be waited for
        raise TableError(f'{sidecar} is no file: remove it')
    try:
        content: Any = json.loads(sidecar.read_text(encoding='utf-8'))
        return _text(content['title'], f'{sidecar}: "title"')
    except FileNotFoundError:
        return video.stem.replace('_', ' ').replace('-', ' ')
    except TableError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise TableError(f'{sidecar}: no title in it ({type(error).__name__}: {error})') from None
