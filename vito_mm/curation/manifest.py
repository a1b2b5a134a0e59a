"""From the last table to the manifest that pre-training reads."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vito_mm.utils.text import near_text
from vito_mm.videos.manifest import write_manifest

from .stage import finished_record
from .tables import Row, TableError, find_files, read_kept

_FIRST = (
    *('path', 'title', 'label', 'class_name'),
    *('seconds', 'fps', 'num_frames', 'width', 'height', 'codec'),
)

LEFT_OUT = (
    *('classes', 'matches', 'labels', 'label_frames', 'label_scores', 'top1', 'frames_seen'),
    *('hashes', 'embedding', 'similarity', 'cluster'),
    *('pix_fmt', 'rotation', 'keyframe_interval', 'bytes', 'mtime_ns', 'sha256', 'checked'),
    'notes',
)
"""Columns of the stages that pre-training has no use for."""


def write_training_manifest(table: Path, file: Path, include: Sequence[str] = ()) -> int:
    """Write the rows that the last stage kept, in order, as :func:`vito_mm.videos.read_manifest`
    reads them.

    A row has path, title, label, class_name, seconds, fps, num_frames, width, height and codec, as
    far as the table has them, and then the user's columns. The file is whole or not there.

    Args:
        table (Path): Folder of a stage that is finished.
        file (Path): Manifest, ends in ``.jsonl``. Paths of videos below its folder are relative to
            it, so that both can be moved.
        include (Sequence[str]): Columns of ``LEFT_OUT`` that are written too. Defaults to none.

    Returns:
        int: Number of videos.

    Raises:
        TableError: If the table is not finished, keeps no video, lacks a column of ``include``, or
            has a value that JSON does not know.
        ValueError: If the file does not end in ``.jsonl``.
    """
    finished_record(table)
    rows = _Rows(Path(table), Path(file), include)
    try:
        write_manifest(file, rows)
    except TypeError:
        raise TableError(_unwritable(rows.last)) from None
    return rows.count


class _Rows:
    """Rows as they are written, one shard in memory at a time."""

    def __init__(self, table: Path, file: Path, include: Sequence[str]) -> None:
        self.table, self.include = table, include
        self.folder = os.path.join(os.path.abspath(file.parent), '')
        self.left_out = frozenset(LEFT_OUT) - set(include)
        self.count, self.last = 0, {}

    def __iter__(self) -> Iterator[Row]:
        seen: dict[str, None] = {}
        for shard in find_files(self.table):
            for row in read_kept(shard):
                seen.update(dict.fromkeys(row))
                self.count += 1
                self.last = self._written(row)
                yield self.last
        if not self.count:
            raise TableError(f'{self.table} keeps no video, so there is nothing to train on')
        for name in self.include:
            if name not in seen:
                near = near_text(name, seen)
                raise TableError(f'{self.table} has no column {name!r}{near}')

    def _written(self, row: Row) -> Row:
        first = {name: row[name] for name in _FIRST if name in row}
        first['path'] = str(row['path']).removeprefix(self.folder)
        others = {name: row[name] for name in row if name not in self.left_out}
        return first | {name: others[name] for name in others if name not in first}


def _unwritable(row: Row) -> str:
    name = next(name for name in row if not _is_json(row[name]))
    return (
        f'{row["path"]}: the column {name!r} has a {type(row[name]).__name__}, which JSON does not '
        'know: give it as text or a number, or leave it out of the table'
    )


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
