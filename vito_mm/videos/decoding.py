"""Pixels of a video at given times."""

import os
import time
from collections.abc import Callable

import numpy as np

from .backends import load_backend
from .backends.request import Request
from .errors import VideoReadError
from .file_checks import HEAD_BYTES, check_file, check_head, is_mp4_or_matroska
from .frame_archives import IMAGE_EXTENSIONS, is_frame_archive, read_frame_archive, read_image


def decode_frames(
    path: str | os.PathLike,
    choose_times: Callable[[float], np.ndarray],
    backend: str = 'pyav',
    channel_order: str = 'rgb',
    short_side: int | None = None,
    time_limit: float | None = None,
    fps: float | None = None,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Decode the frames shown at some times of a video.

    The file is opened, read from front to back with one thread, and closed again in this call: a
    reader that outlives a fork dead-locks, and one that is kept leaks. All backends give the same
    frames for the same times; colours may differ by rounding, and durations by a frame.

    Other backends than PyAV decode plain files only, see
    :func:`vito_mm.videos.description.plain_timeline`; they misplace, squeeze or turn frames of
    others, which are decoded by PyAV whatever the backend.

    A folder or a ``.tar`` of images is a video whose frames are the images in the order of their
    names; an image file is a video of one frame without duration.

    Args:
        path: Video file; or an image or a ``.tar``, by its ending; or a folder of images.
        choose_times: Called once with the duration in seconds, returns the wanted times in seconds
            from the first frame, shape (n, ). A time gives the frame on screen at that moment;
            times beyond the end give the last frame. Times may repeat and be in any order.
        backend: ``'pyav'``, ``'decord'``, ``'torchcodec'`` or ``'opencv'``. Defaults to 'pyav'.
        channel_order: ``'rgb'`` or ``'bgr'``. Defaults to 'rgb'.
        short_side: Short side in pixels to which larger frames are scaled down. Defaults to None,
            which means the video's own size.
        time_limit: Seconds after which decoding is given up. Defaults to None, no limit.
        fps: Frames per second of a folder or archive of images. Defaults to None, which means 25.

    Returns:
        tuple: Frames, uint8, each of shape (height, width, 3), a list in the order of the times
        (the same array where a frame repeats), and the times at which these frames begin, in
        seconds, shape (n, ).

    Raises:
        VideoReadError: If the file is missing, no video, damaged, or takes longer than the limit.
        ValueError: If a setting is unknown.
        ImportError: If the backend is not installed; names the extra that has it.
    """
    if channel_order not in ('rgb', 'bgr'):
        raise ValueError(f"channel_order must be 'rgb' or 'bgr', got {channel_order!r}")
    path = os.fspath(path)
    deadline = None if time_limit is None else time.monotonic() + time_limit
    request = Request(path, choose_times, channel_order, short_side, deadline)
    try:
        return _decode(request, backend, fps)
    except OSError as error:  # a bad disk, a network that is gone
        reason = f'cannot be read: {error.strerror or error}'
        raise VideoReadError(path, reason) from error


def _decode(
    request: Request, backend: str, fps: float | None
) -> tuple[list[np.ndarray], np.ndarray]:
    path = request.path
    check_file(path)
    if path.lower().endswith(IMAGE_EXTENSIONS):
        return read_image(request)
    if is_frame_archive(path):
        return read_frame_archive(request, fps)
    with open(path, 'rb') as file:
        head = file.read(HEAD_BYTES)
        check_head(path, head)
        decode = load_backend(backend if is_mp4_or_matroska(head) else 'pyav').decode
        if is_utf8(path):
            return decode(request)
        # Decoders take no other names; Linux has another one for an open file.
        request.path = f'/proc/self/fd/{file.fileno()}'
        try:
            return decode(request)
        except VideoReadError as error:
            raise VideoReadError(path, error.reason) from None


def is_utf8(path: str) -> bool:
    """Whether decoders can be given a path as it is.

    Args:
        path (str): Path, with lone surrogates where its bytes are not UTF-8.

    Returns:
        bool: False if it has some.
    """
    try:
        path.encode('utf-8')
    except UnicodeEncodeError:
        return False
    return True
