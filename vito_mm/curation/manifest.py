"""Manifest that pre-training reads, made from the last table."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vito_mm.utils.text import near_text
from vito_mm.videos.manifest import write_manifest
from vito_mm.videos.tables import RowError, plain

from .stage_folder import finished_record
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
"""Columns of the stages that pre-training does not use."""


def write_training_manifest(table: Path, file: Path, include: Sequence[str] = ()) -> int:
    """Write the rows that the last stage kept, in order, as :func:`vito_mm.videos.read_manifest`
    reads them.

    A row has path, title, label, class_name, seconds, fps, num_frames, width, height and codec, as
    far as the table has them, and then the user's columns. The file is complete or not there.

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
    folder = os.path.join(os.path.abspath(file.parent), '')
    left_out = frozenset(LEFT_OUT) - set(include)
    count = 0

    def rows() -> Iterator[Row]:
        nonlocal count
        seen: set[str] = set()
        for shard in find_files(table):
            for row in read_kept(shard):
                seen |= row.keys()
                count += 1
                row['path'] = str(row['path']).removeprefix(folder)
                names = dict.fromkeys(name for name in (*_FIRST, *row) if name in row)
                try:
                    yield {name: plain(row[name], name) for name in names if name not in left_out}
                except RowError as error:
                    raise TableError(f'{row["path"]}: {error}') from None
        if not count:
            raise TableError(f'{table} keeps no video, so there is nothing to train on')
        for name in include:
            if name not in seen:
                raise TableError(f'{table} has no column {name!r}{near_text(name, seen)}')

    write_manifest(file, rows())
    return count
