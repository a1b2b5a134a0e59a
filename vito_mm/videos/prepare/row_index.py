"""Index of the rows of manifests by video."""

from pathlib import Path
from typing import Any

from vito_mm.videos.errors import VideoReadError
from vito_mm.videos.manifest import Manifest, part_name

from .source import check_columns


class RowIndex:
    """Places of videos' rows in JSON-lines files, which are parsed when they are asked for.

    Args:
        key (str): Column that names the video, ``path`` where a row does not have it.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._places: dict[str, list[tuple[Manifest, int]]] = {}
        self._last_parts: tuple[str, dict[str, dict[str, Any]]] = '', {}

    def add(self, file: Path, torn: bool) -> None:
        """Add the rows of a file; later ones replace earlier ones.

        Args:
            file (Path): JSON lines.
            torn (bool): Skip lines that cannot be used: a kill may have cut them off.

        Raises:
            ValueError: If a line cannot be used, or has columns of the user that would be
                replaced; names it.
        """
        rows = Manifest.of_lines(file, keep_bad=True)
        for number in range(len(rows)):
            try:
                row = rows[number]
            except VideoReadError as error:
                if not torn:
                    raise ValueError(f'{error.path}: {error.reason}') from None
                continue
            if not torn:
                check_columns(row, file)
            key = row.get(self._key)
            key = key if isinstance(key, str) else row['path']
            self._places.setdefault(key, []).append((rows, number))

    def drop(self, key: str) -> None:
        """Forget the rows of a video."""
        self._places.pop(key, None)

    def get(self, key: str) -> dict[str, Any] | None:
        """Last row of a video, None if there is none."""
        if key not in self._places:
            return None
        rows, number = self._places[key][-1]
        return rows[number]

    def parts(self, key: str) -> dict[str, dict[str, Any]]:
        """Rows of a video by :func:`part_name`, the last of several for the same part."""
        if self._last_parts[0] != key:  # rows of a video come one after the other
            rows = [rows[number] for rows, number in self._places.get(key, [])]
            self._last_parts = key, {part_name({**row, 'path': key}): row for row in rows}
        return self._last_parts[1]
