"""Plain files by decoders other than PyAV; all others by PyAV."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import av
import numpy as np

from vito_mm.videos.description import plain_timeline

from . import pyav_backend
from .request import Request, frames_on_screen


def decode_plain(
    request: Request,
    codecs: Sequence[str],
    read: Callable[[Request, np.ndarray, np.ndarray], list[np.ndarray] | None],
) -> tuple[list[np.ndarray], np.ndarray]:
    """Decode with another decoder if it reads the file exactly, else with PyAV.

    Args:
        request (Request): What is wanted.
        codecs (Sequence[str]): FFmpeg's names of the codecs that it reads exactly.
        read (Callable): Takes the request, the numbers of the wanted frames, increasing, and when
            each frame of the file begins, in seconds from the first. Returns the frames, or None
            if it finds others than there are.

    Returns:
        tuple: Frames and the times at which they begin, see
        :func:`vito_mm.videos.decode_frames`.

    Raises:
        VideoReadError: If the file cannot be read.
    """
    try:
        timeline = plain_timeline(request.path, codecs)
    except (av.error.FFmpegError, ValueError):
        timeline = None  # PyAV's backend says what is wrong
    request.check_deadline()
    if timeline is None:
        return pyav_backend.decode(request)
    times = request.times_within(timeline.duration)
    ordered, position = frames_on_screen(times, timeline.seconds)
    frames = read(request, ordered, timeline.seconds)
    request.check_deadline()
    if frames is None:
        return pyav_backend.decode(replace(request, choose_times=lambda duration: times))
    return [frames[i] for i in position], timeline.seconds[ordered][position]
