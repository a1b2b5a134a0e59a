"""Frames of videos as networks get them: read at chosen times, evenly spread, or the first ones.

A video is given as a row of a manifest: ``path`` (or ``video_path``, as in
:class:`vito_mm.datasets.VideoDataset`), and ``start`` and ``end`` of a part and ``fps`` of a folder
or tar of images where they are known. Images are videos of one frame.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from vito_mm.utils.text import first_few

from .backends import load_backend
from .backends.request import Request, deadline_after
from .decoding import decode_request, opened_file
from .errors import VideoReadError
from .frame_archives import read_frame_archive
from .manifest import part_within, path_of

TIME_LIMIT = 60.0
"""Seconds after which training, probes and pictures give up a video."""

Row = Mapping[str, Any]
Times = Callable[[float, float], np.ndarray]
"""Takes start and end of a part of a video in seconds; returns times in seconds, shape (n, )."""


@dataclass(frozen=True)
class View:
    """The part of a frame that a network gets: a square in the middle.

    Attributes:
        resize (int): Short side in pixels that frames are scaled to, up or down.
        crop (int): Side of the square in pixels.
        squash (bool): Scale both sides to ``resize`` instead. Defaults to False.
        bicubic (bool): Scale and cut decoded frames as torchvision's ``Resize`` (bicubic,
            antialiased) and ``CenterCrop`` do with images, instead of scaling by area while frames
            are decoded, which is faster. Defaults to False.

    Raises:
        ValueError: If the square does not fit into the scaled frame.
    """

    resize: int
    crop: int
    squash: bool = False
    bicubic: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.crop <= self.resize:
            raise ValueError(
                f'a square of {self.crop} pixels cannot be cut from frames whose short side is '
                f'{self.resize} pixels'
            )

    def __call__(self, frame: np.ndarray | Image.Image) -> np.ndarray:
        """Cut the square, shape (crop, crop, 3), from a frame: RGB, uint8.

        It is already scaled, unless the view is ``bicubic``.
        """
        if self.bicubic:
            return self._bicubic(frame)
        top, left = ((side - self.crop) // 2 for side in frame.shape[:2])
        return frame[top : top + self.crop, left : left + self.crop]

    def scaled_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that frames of a size are decoded to."""
        if self.bicubic:
            return width, height
        if self.squash:
            return self.resize, self.resize
        scale = self.resize / min(width, height)
        return round(width * scale), round(height * scale)

    def _bicubic(self, frame: np.ndarray | Image.Image) -> np.ndarray:
        image = frame if isinstance(frame, Image.Image) else Image.fromarray(frame)
        short = min(image.size)
        size = [int(self.resize * side / short) for side in image.size]
        if self.squash:
            size = [self.resize, self.resize]
        if list(image.size) != size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = (round((side - self.crop) / 2) for side in image.size)
        return np.asarray(image.crop((left, top, left + self.crop, top + self.crop)))


def evaluation_view(size: int) -> View:
    """The view of all evaluations, as torchvision's of ResNets, for a square of ``size`` pixels."""
    return View(size, size, bicubic=True)


@dataclass(frozen=True)
class Clip:
    """Frames of one video.

    Attributes:
        path (str): The video.
        frames (np.ndarray): RGB, uint8, shape (n, size, size, 3).
        times (np.ndarray): Seconds at which they begin, shape (n, ). Zeros for an image.
        seconds (float): Duration of the video, 0 for an image.
    """

    path: str
    frames: np.ndarray
    times: np.ndarray
    seconds: float

    @property
    def name(self) -> str:
        """Name of the file."""
        return os.path.basename(self.path.rstrip('/'))

    def distinct(self) -> 'Clip':
        """Each frame once, in order of time."""
        times, first = np.unique(self.times, return_index=True)
        return Clip(self.path, self.frames[first], times, self.seconds)


def read(row: Row, times: Times, view: View, time_limit: float | None = TIME_LIMIT) -> Clip:
    """Read the frames on screen at some times.

    Args:
        row (Mapping): The video or its part.
        times (Callable): Takes start and end of the part in seconds; returns the wanted times in
            seconds from the start of the video, shape (n, ), in any order.
        view (View): How frames are scaled and cut.
        time_limit (float, optional): Seconds after which decoding is given up, None for never.
            Defaults to 60.

    Returns:
        Clip: One frame for each time.

    Raises:
        VideoReadError: If a frame cannot be decoded, or there is no such part.
        ImportError: If PyAV is not installed.
    """
    duration = 0.0

    def times_of(seconds: float) -> np.ndarray:
        nonlocal duration
        duration = seconds
        return times(*part_within(row, seconds))

    path = path_of(row)
    request = Request(path, times_of, view.scaled_size, deadline=deadline_after(time_limit))
    frames, begins = decode_request(request, fps=row.get('fps'))
    return Clip(path, _cut(view, frames), begins, duration)


def evenly(count: int) -> Times:
    """Times in the middle of ``count`` equal parts, for :func:`read`."""
    if count < 1:
        raise ValueError(f'{count} frames are asked for: give 1 or more')
    return lambda start, end: start + (np.arange(count) + 0.5) / count * (end - start)


def every(seconds: float) -> Times:
    """Times every so many seconds from the start, for :func:`read`."""
    if not seconds > 0:
        raise ValueError(f'a frame every {seconds} seconds is asked for: give more than 0')
    # The last one is before the end, whatever division rounds to.
    return lambda start, end: np.arange(start, max(end, start + 1e-9), seconds)


def at(seconds: Iterable[float]) -> Times:
    """Times that are given, for :func:`read`: a VideoReadError if one is not within."""
    wanted = np.asarray(list(seconds), np.float64)

    def times(start: float, end: float) -> np.ndarray:
        if outside := [f'{time:g}' for time in wanted if not start <= time <= end]:
            reason = f'it has frames from {start:g} to {end:g} s, not at {first_few(outside)} s'
            raise VideoReadError('', reason)  # the reader knows the path
        return wanted

    return times


def spread(row: Row, count: int, view: View, time_limit: float | None = TIME_LIMIT) -> Clip:
    """Read the frames in the middle of ``count`` equal parts, see :func:`read`.

    Frames of very short videos repeat.
    """
    return read(row, evenly(count), view, time_limit)


def first(row: Row, count: int, view: View) -> np.ndarray:
    """Read the first frames of a video, in the order in which they are shown.

    They are decoded from the start until there are enough. Frames before the first one that can be
    decoded, which recordings that start in the middle have, are not counted, as in
    :func:`vito_mm.videos.prepare.integrity.inspect_video`. Of a part, there is one frame for each
    interval of the mean frame rate (``fps`` of the row, or 25).

    Args:
        row (Mapping): The video or its part.
        count (int): Number of frames.
        view (View): How frames are scaled and cut.

    Returns:
        np.ndarray: RGB, uint8, shape (n, crop, crop, 3), where n is ``count`` or, of a shorter
        video, the number of its frames.

    Raises:
        VideoReadError: If there is no frame, or one of them cannot be decoded.
        ImportError: If PyAV is not installed.
    """
    if count < 1:
        raise ValueError(f'{count} frames are asked for: give 1 or more')
    if row.get('start') or row.get('end') is not None:
        fps = row.get('fps') or 25.0

        def times(start: float, end: float) -> np.ndarray:
            wanted = np.clip(round((end - start) * fps), 1, count)
            return start + (np.arange(wanted) + 0.5) / fps

        return read(row, times, view, None).frames
    with opened_file(path_of(row), row.get('fps')) as source:
        if source.images is not None:
            times = np.arange(min(count, len(source.images.names))) / source.images.fps
            request = Request(source.images.path, lambda _: times, view.scaled_size)
            return _cut(view, read_frame_archive(request, source.images)[0])
        request = Request(source.name, np.zeros, view.scaled_size)
        with closing(load_backend('pyav').first_frames(request)) as frames:
            return _cut(view, islice(frames, count))


def _cut(view: View, frames: Iterable[np.ndarray]) -> np.ndarray:
    return np.stack([view(frame) for frame in frames])
