"""Index of the rows of manifests by video."""

from pathlib import Path
from typing import Any

from vito_mm.videos.manifest import part_name
from vito_mm.videos.tables import RowError, mark_length, parse_line, typed


class RowIndex:
    """Places of videos' rows in JSON-lines files: a million rows need not fit into memory.

    Args:
        key (str): Column that names the video, ``path`` where a row does not have it.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._files: list[Any] = []
        # Of each video its place, or a list of places.
        self._places: dict[str, tuple[int, int] | list[tuple[int, int]]] = {}
        self._last_parts: tuple[str, dict[str, dict[str, Any]]] = '', {}

    def __enter__(self) -> 'RowIndex':
        return self

    def __exit__(self, *exception) -> None:
        for file in self._files:
            file.close()

    def add(self, path: Path, torn: bool) -> None:
        """Add the rows of a file; later ones replace earlier ones.

        Args:
            path (Path): JSON lines.
            torn (bool): Whether a line may be cut off by a kill, which is then skipped.

        Raises:
            ValueError: If a line cannot be used; names it.
        """
        file = path.open('rb')
        self._files.append(file)
        place = mark_length(file.read(4), path)
        file.seek(place)
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    row = typed(parse_line(line))
                    key = row.get(self._key, row.get('path'))
                    if not isinstance(key, str):
                        raise RowError('no "path" in this row')
                    self._enter(key, (len(self._files) - 1, place))
                except RowError as error:
                    if not torn:
                        raise ValueError(f'{path}, line {number}: {error}') from None
            place += len(line)

    def _enter(self, key: str, place: tuple[int, int]) -> None:
        others = self._places.setdefault(key, place)
        if isinstance(others, list):
            others.append(place)
        elif others is not place:
            self._places[key] = [others, place]

    def drop(self, key: str) -> None:
        """Forget the rows of a video."""
        self._places.pop(key, None)

    def get(self, key: str) -> dict[str, Any] | None:
        """Last row of a video, None if there is none."""
        places = self._all(key)
        return self._read(places[-1]) if places else None

    def parts(self, key: str) -> dict[str, dict[str, Any]]:
        """Rows of a video by :func:`part_name`, the last of several for the same part."""
        if self._last_parts[0] != key:  # rows of a video come one after the other
            rows = map(self._read, self._all(key))
            self._last_parts = key, {part_name({**row, 'path': key}): row for row in rows}
        return self._last_parts[1]

    def _all(self, key: str) -> list[tuple[int, int]]:
        places = self._places.get(key, [])
        return places if isinstance(places, list) else [places]

    def _read(self, place: tuple[int, int]) -> dict[str, Any]:
        self._files[place[0]].seek(place[1])
        return typed(parse_line(self._files[place[0]].readline()))
