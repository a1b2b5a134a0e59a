"""Frames that are asked of a decoder, in a size and an order of channels."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import cv2
import numpy as np

from vito_mm.videos.errors import VideoReadError

TOLERANCE = 1e-4
"""Seconds by which a time may fall short of a frame's start and still show it: containers round
time stamps, and some readers hold them in single precision."""


def deadline_after(seconds: float | None) -> float:
    """Moment after some seconds, on the clock of ``time.monotonic``; None is never."""
    return inf if seconds is None else time.monotonic() + seconds


@dataclass
class Request:
    """Frames that are wanted of one video.

    Args:
        path (str): File to read.
        choose_times (Callable): Takes the duration and returns the wanted times, both in seconds
            from the first frame.
        scaled_size (Callable): Takes width and height of a frame in pixels, returns those to scale
            it to. Defaults to the same.
        channel_order (str): ``'rgb'`` or ``'bgr'``. Defaults to 'rgb'.
        deadline (float): When to give up, see :func:`deadline_after`. Defaults to never.
    """

    path: str
    choose_times: Callable[[float], np.ndarray]
    scaled_size: Callable[[int, int], tuple[int, int]] = lambda width, height: (width, height)
    channel_order: str = 'rgb'
    deadline: float = inf

    def times_within(self, duration: float) -> np.ndarray:
        """Wanted times clipped to [0, duration], in seconds, float64, shape (n, )."""
        return np.clip(np.asarray(self.choose_times(duration), np.float64), 0, duration)

    def check_deadline(self) -> None:
        """Raise a VideoReadError after the deadline."""
        if time.monotonic() > self.deadline:
            raise VideoReadError(self.path, 'decoding takes longer than the time limit')

    def converted(self, frame: np.ndarray, channel_order: str) -> np.ndarray:
        """Scale a decoded frame of a channel order by averaging areas, and order its channels."""
        height, width = frame.shape[:2]
        size = self.scaled_size(width, height)
        if size != (width, height):
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        if channel_order != self.channel_order:
            frame = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)  # and the other way round
        return frame


def frames_on_screen(times: np.ndarray, shown_at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the frames shown at some times, where ``shown_at`` has the begin of each.

    Returns:
        tuple: Indices of the frames to decode, each once, increasing; and for each time the
        position of its frame among them.
    """
    indices = np.searchsorted(shown_at, times + TOLERANCE, side='right') - 1
    return np.unique(indices.clip(0), return_inverse=True)
