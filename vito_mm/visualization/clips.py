"""Videos to look at, and their frames read by processes that a file may crash."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from vito_mm.utils.remote_files import is_address
from vito_mm.utils.worker_pool import run_in_workers
from vito_mm.videos import (
    IMAGE_EXTENSIONS,
    VIDEO_EXTENSIONS,
    VideoReadError,
    find_videos,
    read_manifest,
)
from vito_mm.videos.frames import TIME_LIMIT, Clip
from vito_mm.videos.tables import ENDINGS
from vito_mm.videos.tars import split_member

Read = Callable[[Mapping[str, Any]], Clip]
"""Reads the clip of a row."""


def rows_of(source: str | os.PathLike | Sequence[str | os.PathLike]) -> Sequence[Mapping[str, Any]]:
    """List videos and images as rows of a manifest.

    Args:
        source: A manifest (see :func:`vito_mm.videos.read_manifest`), a folder of videos or images,
            which is searched with its sub-folders, a video or an image; or a list of such files.

    Raises:
        FileNotFoundError: If there is no such file or folder, or nothing to look at in it.
        ValueError: If a manifest is none.
    """
    if not isinstance(source, (str, os.PathLike)):
        return [dict(path=os.fspath(path)) for path in source]
    source = os.fspath(source)
    if source.lower().endswith(ENDINGS):
        return read_manifest(source)
    if os.path.isdir(source):
        return find_videos(source, (*VIDEO_EXTENSIONS, *IMAGE_EXTENSIONS))
    if not (os.path.exists(source) or is_address(source) or split_member(source)):
        raise FileNotFoundError(f'there is no file or folder {source!r}')
    return [dict(path=source)]


def read_clips(
    rows: Sequence[Mapping[str, Any]], order: Iterable[int], read: Read, workers: int = 1
) -> Iterator[tuple[int, Clip | str]]:
    """Read clips in other processes, which a file that makes the decoder crash may end.

    Args:
        rows (Sequence[Mapping]): Rows of a manifest.
        order (Iterable[int]): Indices of the rows to read.
        read (Callable): Reads the clip of a row.
        workers (int): Defaults to 1, which keeps the order unless the process dies.

    Yields:
        tuple: Index, and the clip or the reason why there is none.
    """

    def work(index: int) -> Clip | VideoReadError:
        try:
            return read(rows[index])
        except VideoReadError as error:
            return error

    for index, result in run_in_workers(work, order, workers, 2 * TIME_LIMIT):
        if isinstance(result, (Clip, VideoReadError)):
            yield index, result if isinstance(result, Clip) else str(result)
        else:  # what ended the process is not a word about the file
            yield index, f'cannot read video {rows[index]["path"]}: {result}'


def read_some(
    rows: Sequence[Mapping[str, Any]], count: int, read: Read, seed: int = 0
) -> tuple[list[Clip], list[str]]:
    """Read at most ``count`` clips of a fixed choice among videos.

    Returns:
        tuple: Clips in the order of the rows, and the errors of at most 16 skipped videos.
    """
    order = np.random.default_rng(seed).permutation(len(rows))[: count + 16].tolist()
    clips: dict[int, Clip] = {}
    errors: list[str] = []
    with closing(read_clips(rows, order, read)) as results:
        for index, result in results:
            if isinstance(result, str):
                errors.append(result)
                continue
            clips[index] = result
            if len(clips) == count:
                break
    return [clips[index] for index in sorted(clips)], errors
