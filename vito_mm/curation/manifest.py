"""Manifest that pre-training reads, made from the last table."""

import os
from collections.abc import Iterator
from pathlib import Path

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


def write_training_manifest(table: Path, file: Path) -> int:
    """Write the rows that the last stage kept, in order, as :func:`vito_mm.videos.read_manifest`
    reads them.

    A row has path, title, label, class_name, seconds, fps, num_frames, width, height and codec, as
    far as the table has them, and then the user's columns. The file is complete or not there.

    Args:
        table (Path): Folder of a stage that is finished.
        file (Path): Manifest, ends in ``.jsonl``. Paths of videos below its folder are relative to
            it, so that both can be moved.

    Returns:
        int: Number of videos.

    Raises:
        TableError: If the table is not finished, keeps no video, or has a value that JSON does not
            know.
        ValueError: If the file does not end in ``.jsonl``.
    """
    finished_record(table)
    folder = os.path.join(os.path.abspath(file.parent), '')
    count = 0

    def rows() -> Iterator[Row]:
        nonlocal count
        for shard in find_files(table):
            for row in read_kept(shard):
                count += 1
                row['path'] = str(row['path']).removeprefix(folder)
                names = dict.fromkeys(name for name in (*_FIRST, *row) if name in row)
                try:
                    yield {name: plain(row[name], name) for name in names if name not in LEFT_OUT}
                except RowError as error:
                    raise TableError(f'{row["path"]}: {error}') from None
        if not count:
            raise TableError(f'{table} keeps no video, so there is nothing to train on')

    write_manifest(file, rows())
    return count
