"""Pixels of a video at given times."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backends import load_backend
from .backends.request import Request, deadline_after
from .errors import VideoReadError
from .file_checks import (
    CANNOT_READ,
    HEAD_BYTES,
    check_file,
    check_head,
    is_mp4_or_matroska,
    name_for_decoders,
)
from .frame_archives import FrameArchive, frame_archive, read_frame_archive
from .storage import local_name


def decode_frames(
    path: str | os.PathLike,
    choose_times: Callable[[float], np.ndarray],
    backend: str = 'pyav',
    channel_order: str = 'rgb',
    short_side: int | None = None,
    time_limit: float | None = None,
    fps: float | None = None,
    backend_args: Mapping[str, Any] | None = None,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Decode the frames shown at some times of a video.

    The file is opened, read with one thread, and closed again in this call: a reader that outlives
    a fork dead-locks, and one that is kept leaks. All backends give the same frames for the same
    times; colours may differ by rounding, and durations by a frame. Files that other backends
    misplace, squeeze or turn (see :func:`.backends.plain.plain_timeline`) are decoded by PyAV.

    A folder or a tar of images is a video whose frames are the images, frame2 before frame10; an
    image is a video of one frame without duration, shown upright as its EXIF orientation says. The
    content decides, not the name. Files and addresses that it names are not opened.

    Args:
        path: Video file, image, tar of images or folder of images; a member of a tar
            (``shard.tar::cats/1.mp4``) or an address (``s3://bucket/1.mp4``), decoded from memory.
        choose_times: Called once with the duration in seconds, returns the wanted times in seconds
            from the first frame, shape (n, ). A time gives the frame on screen at that moment;
            times beyond the end give the last frame. Times may repeat and be in any order.
        backend: ``'pyav'``, ``'decord'`` or ``'torchcodec'``. Defaults to 'pyav'.
        channel_order: ``'rgb'`` or ``'bgr'``. Defaults to 'rgb'.
        short_side: Short side in pixels to which larger frames are scaled down. Defaults to None,
            which means the video's own size.
        time_limit: Seconds after which decoding is given up. Defaults to None, no limit.
        fps: Frames per second of a folder or archive of images. Defaults to None, which means 25.
        backend_args: Storage that paths are read from, see :func:`.storage.local_name`. Defaults to
            None: disks, and addresses by their prefix.

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

    def scaled_size(width: int, height: int) -> tuple[int, int]:
        scale = 1.0 if short_side is None else min(1.0, short_side / min(width, height))
        return round(width * scale), round(height * scale)

    deadline = deadline_after(time_limit)
    request = Request(os.fspath(path), choose_times, scaled_size, channel_order, deadline)
    return decode_request(request, backend, fps, backend_args)


def decode_request(
    request: Request,
    backend: str = 'pyav',
    fps: float | None = None,
    backend_args: Mapping[str, Any] | None = None,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Decode the frames of a request, whose path becomes the name for decoders."""
    with opened_file(request.path, fps, request.check_deadline, backend_args) as source:
        if source.images is not None:
            return read_frame_archive(request, source.images)
        request.path = source.name
        if not is_mp4_or_matroska(source.head):
            backend = 'pyav'
        return load_backend(backend).decode(request)


@dataclass(frozen=True)
class OpenedFile:
    """A video as it is found on disk or in memory.

    Attributes:
        images (FrameArchive, optional): Its images, if it is kept as such; None for a video file.
        name (str): Name of a video file for decoders.
        head (bytes): First bytes of a video file.
    """

    images: FrameArchive | None
    name: str = ''
    head: bytes = b''


@contextmanager
def opened_file(
    path: str,
    fps: float | None = None,
    check_deadline: Callable[[], None] = lambda: None,
    backend_args: Mapping[str, Any] | None = None,
) -> Iterator[OpenedFile]:
    """Open a video as its content says, for training and preparation alike.

    For the arguments see :func:`.frame_archives.frame_archive` and :func:`.storage.local_name`. A
    VideoReadError in the ``with`` block gets the path.

    Raises:
        VideoReadError: If the file is missing or certainly no video.
    """
    try:
        with local_name(path, backend_args, check_deadline) as name:
            if stat.S_ISDIR(check_file(name).st_mode):
                yield OpenedFile(frame_archive(path, None, fps=fps))
                return
            with open(name, 'rb') as file:
                head = file.read(HEAD_BYTES)
                check_head(path, head)
                archive = frame_archive(path, file, head, fps, check_deadline)
                with archive or nullcontext() as images:
                    yield OpenedFile(images, name_for_decoders(name, file), head)
    except VideoReadError as error:
        if error.path == path:
            raise
        raise VideoReadError(path, error.reason) from None
    except OSError as error:  # a bad disk, a network that is gone
        raise VideoReadError(path, f'{CANNOT_READ}: {error.strerror or error}') from error
