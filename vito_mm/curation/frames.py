"""Frames of videos as a network gets them, decoded and shrunk in one go."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from vito_mm.videos.backends import load_backend
from vito_mm.videos.backends.request import Request
from vito_mm.videos.decoding import decode_request, opened_file
from vito_mm.videos.errors import VideoReadError
from vito_mm.videos.frame_archives import read_frame_archive
from vito_mm.videos.manifest import part_within

_WHOLE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class View:
    """The part of a frame that a network gets: a square in the middle.

    Attributes:
        resize (int): Short side in pixels that frames are scaled to, up or down.
        crop (int): Side of the square in pixels.
        squash (bool): Whether both sides are scaled to ``resize`` instead. Defaults to False.

    Raises:
        ValueError: If the square does not fit into the scaled frame.
    """

    resize: int
    crop: int
    squash: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.crop <= self.resize:
            raise ValueError(
                f'a square of {self.crop} pixels cannot be cut from frames whose short side is '
                f'{self.resize} pixels'
            )

    def cut(self, frame: np.ndarray) -> np.ndarray:
        """Cut the square from a scaled frame.

        Args:
            frame (np.ndarray): Shape (height, width, 3).

        Returns:
            np.ndarray: Shape (crop, crop, 3).
        """
        top, left = ((side - self.crop) // 2 for side in frame.shape[:2])
        return frame[top : top + self.crop, left : left + self.crop]


@dataclass
class _Request(Request):
    """Frames scaled as a view asks for, up as well as down."""

    view: View | None = None

    def scaled_size(self, width: int, height: int) -> tuple[int, int]:
        if self.view.squash:
            return self.view.resize, self.view.resize
        scale = self.view.resize / min(width, height)
        return round(width * scale), round(height * scale)


def first_frames(
    path: str | os.PathLike, count: int, view: View, fps: float | None = None
) -> np.ndarray:
    """The first frames of a video, in the order in which they are shown.

    They are decoded from the start until there are enough, with one thread, and each is scaled and
    cut at once. Frames before the first one that can be decoded, which recordings that start in the
    middle have, are not counted; neither does
    :func:`vito_mm.videos.prepare.integrity.inspect_video` count them.

    Args:
        path (str | os.PathLike): Video.
        count (int): Number of frames.
        view (View): How they are scaled and cut.
        fps (float, optional): Of a folder or tar of images. Defaults to None, 25.

    Returns:
        np.ndarray: RGB, uint8, shape (n, crop, crop, 3), where n is ``count`` or, of a shorter
        video, the number of its frames.

    Raises:
        VideoReadError: If there is no frame, or one of them cannot be decoded.
        ImportError: If PyAV is not installed.
    """
    if count < 1:
        raise ValueError(f'{count} frames are asked for: give 1 or more')
    with opened_file(os.fspath(path), fps) as source:
        if source.images is not None:
            times = np.arange(min(count, len(source.images.names))) / source.images.fps
            request = _Request(source.images.path, lambda _: times, 'rgb', None, None, view)
            return _cut(view, read_frame_archive(request, source.images)[0])
        backend = load_backend('pyav')
        from vito_mm.videos.description import frames_in_order, missing_bytes, opened

        request = _Request(source.name, _no_times, 'rgb', None, None, view)
        frames = np.empty((count, view.crop, view.crop, 3), np.uint8)
        found = 0
        try:
            with opened(source.name) as (container, stream):
                convert = backend.Converter(request, stream)
                for frame in frames_in_order(source.name, container, stream):
                    frames[found] = view.cut(convert(frame))
                    found += 1
                    if found == count:
                        return frames
                if missing := missing_bytes(source.name, container, stream):
                    raise VideoReadError(source.name, f'cut off: {missing} bytes are missing')
                if not found:
                    raise VideoReadError(source.name, 'no frame can be decoded')
        except (backend.av.error.FFmpegError, ValueError, MemoryError) as error:
            reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
            raise VideoReadError(source.name, f'{reason} (FFmpeg)') from None
    return frames[:found]


def part_frames(row: Mapping[str, Any], count: int, view: View) -> np.ndarray:
    """The first frames of a part of a video, one per interval of its mean frame rate.

    Args:
        row (Mapping): ``path``, ``start`` and ``end``; and ``fps``, 25 if it is not known.
        count (int): Number of frames.
        view (View): How they are scaled and cut.

    Returns:
        np.ndarray: See :func:`first_frames`.

    Raises:
        VideoReadError: If a frame cannot be decoded, or there is no such part.
    """
    fps = row.get('fps') or 25.0

    def times(seconds: float) -> np.ndarray:
        start, end = part_within(row, seconds)
        return start + (np.arange(np.clip(round((end - start) * fps), 1, count)) + 0.5) / fps

    return _frames_at(row, times, view)


def spread_frames(
    path: str | os.PathLike, count: int, view: View, part: Mapping[str, Any] = _WHOLE
) -> np.ndarray:
    """Frames spread evenly over a video or a part of it: those in the middle of as many parts.

    Args:
        path (str | os.PathLike): Video.
        count (int): Number of parts.
        view (View): How they are scaled and cut.
        part (Mapping): Row with ``start`` and ``end`` in seconds, and ``fps`` of a folder or tar of
            images. Defaults to the complete video, and 25.

    Returns:
        np.ndarray: RGB, uint8, shape (count, crop, crop, 3). Frames of very short videos repeat.

    Raises:
        VideoReadError: If a frame cannot be decoded, or there is no such part.
        ImportError: If PyAV is not installed.
    """
    row = {**part, 'path': os.fspath(path)}
    return _frames_at(row, partial(middles, row, count), view)


def middles(row: Mapping[str, Any], count: int, seconds: float) -> np.ndarray:
    """Middles of equal parts of a video, or of the part of it that a row names.

    Args:
        row (Mapping): ``path``, and ``start`` and ``end`` if given.
        count (int): Number of parts.
        seconds (float): Length of the video.

    Returns:
        np.ndarray: Seconds, shape (count, ).

    Raises:
        VideoReadError: If there is no such part.
    """
    start, end = part_within(row, seconds)
    return start + (np.arange(count) + 0.5) / count * (end - start)


def _frames_at(
    row: Mapping[str, Any], times: Callable[[float], np.ndarray], view: View
) -> np.ndarray:
    request = _Request(row['path'], times, 'rgb', None, None, view)
    return _cut(view, decode_request(request, fps=row.get('fps'))[0])


def image_view(path: str | os.PathLike, view: View) -> np.ndarray:
    """An image file as a network gets it.

    Args:
        path (str | os.PathLike): Image that OpenCV can read.
        view (View): How it is scaled and cut.

    Returns:
        np.ndarray: RGB, uint8, shape (crop, crop, 3).

    Raises:
        VideoReadError: If it cannot be read.
    """
    return spread_frames(path, 1, view)[0]


def _cut(view: View, frames: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([view.cut(frame) for frame in frames])


def dropped_for(error: VideoReadError) -> str:
    """Why a video is dropped that cannot be decoded.

    Args:
        error (VideoReadError): What decoding raised.

    Returns:
        str: One line; what stands before the colon has no numbers.
    """
    return f'a frame cannot be decoded: {" ".join(error.reason.split())}'


_no_times: Callable[[float], np.ndarray] = np.zeros  # nobody asks for times here
