"""Videos to look at, and the frames that are shown of them."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from vito_mm.utils.worker_pool import run_in_workers
from vito_mm.videos import (
    IMAGE_EXTENSIONS,
    VIDEO_EXTENSIONS,
    VideoReadError,
    decode_frames,
    find_videos,
    part_within,
    read_manifest,
)
from vito_mm.videos.tables import ENDINGS

_TIME_LIMIT = 60.0


@dataclass(frozen=True)
class Clip:
    """Frames of one video.

    Attributes:
        title (str): What a picture calls it.
        frames (np.ndarray): RGB, uint8, shape (n, size, size, 3).
        times (np.ndarray): When they begin, in seconds, shape (n, ). Zeros for an image.
        seconds (float): Duration of the video, 0 for an image.
    """

    title: str
    frames: np.ndarray
    times: np.ndarray
    seconds: float


def rows_of(source: str | os.PathLike | Sequence[str | os.PathLike]) -> Sequence[Mapping[str, Any]]:
    """Videos and images as rows of a manifest.

    Args:
        source: A manifest (see :func:`vito_mm.videos.read_manifest`), a folder of videos or images,
            which is searched with its sub-folders, a video or an image; or a list of such files.

    Returns:
        Sequence[Mapping]: Rows with ``path`` and what else the manifest says.

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
    if not os.path.exists(source):
        raise FileNotFoundError(f'there is no file or folder {source!r}')
    return [dict(path=source)]


def evenly(count: int) -> Callable[[float, float], np.ndarray]:
    """Moments in the middle of as many equal parts.

    Args:
        count (int): Number of parts.

    Returns:
        Callable: Takes start and end in seconds, returns the times, shape (count, ).
    """
    return lambda start, end: start + (np.arange(count) + 0.5) / count * (end - start)


def read_clip(
    row: Mapping[str, Any],
    size: int,
    choose_times: Callable[[float, float], np.ndarray],
) -> Clip:
    """Frames of a video as a network gets them without augmentation.

    Args:
        row (Mapping): Row of a manifest: ``path``, and ``start`` and ``end`` (seconds) of the part
            that counts, ``fps`` of a folder of images.
        size (int): Side of the square in the middle of each frame, see :func:`centre_view`.
        choose_times (Callable): Takes start and end of the part in seconds and returns the times.

    Returns:
        Clip: Each frame once, although several times may show it.

    Raises:
        VideoReadError: If it cannot be decoded, or has no such part.
    """
    path, duration = row['path'], 0.0

    def times_of(seconds: float) -> np.ndarray:
        nonlocal duration
        duration = seconds
        return choose_times(*part_within(row, seconds))

    frames, times = decode_frames(
        path, times_of, short_side=size, time_limit=_TIME_LIMIT, fps=row.get('fps')
    )
    times, first = np.unique(times, return_index=True)
    views = np.stack([centre_view(frames[i], size) for i in first])
    return Clip(os.path.basename(os.fspath(path).rstrip('/')), views, times, duration)


def read_clips(
    rows: Sequence[Mapping[str, Any]],
    order: Iterable[int],
    read: Callable[[Mapping[str, Any]], Clip],
    workers: int = 1,
) -> Iterator[tuple[int, Clip | str]]:
    """Read clips in other processes, which a file that makes the decoder crash may end.

    Args:
        rows (Sequence[Mapping]): Rows of a manifest.
        order (Iterable[int]): Indices of the rows to read.
        read (Callable): Reads the clip of a row.
        workers (int): Number of processes. Defaults to 1, which keeps the order unless one dies.

    Yields:
        tuple: Index, and the clip or the reason why there is none.
    """

    def work(index: int) -> Clip | VideoReadError:
        try:
            return read(rows[index])
        except VideoReadError as error:
            return error

    for index, result in run_in_workers(work, order, workers, 2 * _TIME_LIMIT):
        if isinstance(result, (Clip, VideoReadError)):
            yield index, result if isinstance(result, Clip) else str(result)
        else:  # what ended the process is not a word about the file
            yield index, f'cannot read video {rows[index]["path"]}: {result}'


def read_some(
    rows: Sequence[Mapping[str, Any]],
    count: int,
    read: Callable[[Mapping[str, Any]], Clip],
    seed: int = 0,
) -> tuple[list[Clip], list[str]]:
    """Clips of a fixed choice among videos, passing over those that cannot be read.

    Args:
        rows (Sequence[Mapping]): Rows of a manifest. If there are no more than ``count``, all are
            taken.
        count (int): Number of clips.
        read (Callable): Reads the clip of a row.
        seed (int): Decides the choice. Defaults to 0.

    Returns:
        tuple: At most ``count`` clips in the order of the rows, and what was wrong with others, of
        which no more than 16 are tried.
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


def centre_view(frame: np.ndarray, size: int) -> np.ndarray:
    """The square in the middle of a frame whose short side is scaled to the square's.

    Args:
        frame (np.ndarray): Shape (height, width, 3).
        size (int): Side of the square in pixels.

    Returns:
        np.ndarray: Shape (size, size, 3).
    """
    height, width = frame.shape[:2]
    if min(height, width) != size:
        scale = size / min(height, width)
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        frame = cv2.resize(
            frame,
            (max(size, round(width * scale)), max(size, round(height * scale))),
            None,
            0,
            0,
            method,
        )
    top, left = (frame.shape[0] - size) // 2, (frame.shape[1] - size) // 2
    return frame[top : top + size, left : left + size]
