"""Videos that are prepared: those of a folder, a tar or a manifest."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vito_mm.utils.remote_files import is_address
from vito_mm.videos.errors import VideoReadError
from vito_mm.videos.manifest import VIDEO_EXTENSIONS, find_videos, read_manifest
from vito_mm.videos.tables import ENDINGS
from vito_mm.videos.tars import find_members


def search(source: str, extensions: Sequence[str]) -> list[dict[str, Any]]:
    """List the videos in a folder or a tar, and in the tars of a folder, as rows.

    Raises:
        FileNotFoundError: If there is none such.
    """
    if os.path.isdir(source):
        paths = [row['path'] for row in find_videos(source, extensions)]
    elif os.path.exists(source):
        paths = [source]
    else:
        raise FileNotFoundError(f'there is no tar {source!r}')
    rows = []
    for path in paths:
        members = find_members(path, VIDEO_EXTENSIONS) if path.lower().endswith('.tar') else []
        rows += [dict(path=each) for each in members or [path]]
    return rows


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read the rows of a manifest, with absolute paths.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is none, or has columns of the user that would be replaced.
    """
    if not file.exists():
        raise FileNotFoundError(f'there is no folder or manifest {str(file)!r}')
    if file.suffix.lower() not in ENDINGS:
        endings = ', '.join(ENDINGS)
        raise ValueError(f'give a folder, or a manifest ending in {endings}, got {str(file)!r}')
    try:
        rows = list(read_manifest(file, keep_bad=True))
    except VideoReadError as error:
        raise ValueError(f'{error.path}: {error.reason}') from None
    for row in rows:
        check_columns(row, file)
        if not is_address(row['path']):
            row['path'] = os.path.abspath(row['path'])
    return rows


def check_columns(row: Mapping[str, Any], file: Path) -> None:
    """Raise a ValueError for ``notes`` and ``reason`` that are the user's, not of a preparation."""
    for name in ('notes', 'reason'):
        if name in row and 'verdict' not in row:
            raise ValueError(
                f'{file}: the row of {row["path"]!r} has a column {name!r} of your own, in the '
                'place of which a preparation writes its findings: rename it'
            )
