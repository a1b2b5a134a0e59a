"""What a user has: a table, or a folder of videos with what the downloader wrote beside them."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vito_mm.videos.manifest import find_videos

from .tables import Row, TableError, find_files, read_table


def rows_of(source: Path, columns: Mapping[str, str] | None = None) -> Iterator[Row]:
    """Rows of a table or folder, with ``path`` as an absolute path.

    Args:
        source (Path): A table (see :func:`.tables.find_files`), whose relative paths are relative
            to its folder; or a folder of videos, searched with its sub-folders. The title of
            ``a.mp4`` is then the ``title`` in ``a.info.json``, which yt-dlp's --write-info-json
            leaves, and without such a file the name of the video in words.
        columns (Mapping[str, str], optional): Names that a table has for ``path`` and ``title``.
            Defaults to None: these.

    Yields:
        dict: A row with ``path``, and ``title`` where there is one.

    Raises:
        TableError: If there is nothing to read.
    """
    source = Path(source)
    if _is_folder_of_videos(source):
        for row in find_videos(source):
            yield dict(path=os.path.abspath(row['path']), title=_title_of(Path(row['path'])))
        return
    folder = source if source.is_dir() else source.parent
    for row in read_table(source):
        yield _renamed(row, folder, columns or {})


def _renamed(row: Row, folder: Path, columns: Mapping[str, str]) -> Row:
    row = dict(row)
    named = {
        name: str(row.pop(column))
        for name in ('path', 'title')
        if (column := columns.get(name, name)) in row
    }
    if 'path' in named:
        named['path'] = os.path.normpath(os.path.join(folder.absolute(), named['path']))
    return named | row


def _is_folder_of_videos(source: Path) -> bool:
    if not source.is_dir():
        return False
    try:
        find_files(source)
    except TableError:
        try:
            return bool(find_videos(source))
        except FileNotFoundError as error:
            raise TableError(f'{source} has neither a table nor a video: {error}') from None
    return False


def _title_of(video: Path) -> str:
    sidecar = video.with_suffix('.info.json')
    try:
        content: Any = json.loads(sidecar.read_text(encoding='utf-8'))
        return str(content['title'])
    except FileNotFoundError:
        return video.stem.replace('_', ' ').replace('-', ' ')
    except (ValueError, KeyError, TypeError) as error:
        raise TableError(f'{sidecar}: no title in it ({type(error).__name__}: {error})') from None
