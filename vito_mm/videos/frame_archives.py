"""Videos that are kept as images: a folder or a tar of frames, and the single image."""

import errno
import hashlib
import io
import math
import os
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np

from vito_mm.utils.hashing import sha256_of_file

from .backends.request import Request, frames_on_screen
from .errors import VideoReadError
from .file_checks import MAX_PIXELS, check_file
from .images import (
    IMAGE_EXTENSIONS,
    decode_image,
    is_still,
    looks_like_image,
    open_image,
    read_image_file,
)
from .names import is_visible, natural_order
from .tars import followed, opened_member, read_members, split_member

DEFAULT_FPS = 25.0
"""Frames per second of images, unless the manifest says another number."""


class FrameArchive(AbstractContextManager):
    """Images that are the frames of a video, in the order of :func:`.names.natural_order`.

    Attributes:
        path (str): The video.
        names (list[str]): Names of the images.
        fps (float): Frames per second.
    """

    path: str
    names: list[str]
    fps: float = DEFAULT_FPS

    @property
    def seconds(self) -> float:
        """From the first frame to the end of the last."""
        return len(self.names) / self.fps

    def read(self, index: int) -> bytes:
        """Content of an image."""
        raise NotImplementedError

    def __exit__(self, *error: object) -> None:
        """Stop reading."""


class _Folder(FrameArchive):
    """Images of one folder; folders within are other videos."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.names = _frames_of(path)

    def read(self, index: int) -> bytes:
        name = self.names[index]
        file = os.path.join(self.path, name)
        try:
            check_file(file)
        except VideoReadError as error:
            reason = f'a frame cannot be read: {name} {error.reason}'
            raise VideoReadError(self.path, reason) from None
        with open(file, 'rb') as content:
            return read_image_file(self.path, content, name)


class _Tar(FrameArchive):
    """Images of an uncompressed tar; only the headers and the wanted images are read."""

    def __init__(self, path: str, file: BinaryIO, check_deadline: Callable[[], None]) -> None:
        self.path = path
        file.seek(0)
        self.file = tarfile.open(fileobj=file, mode='r:')  # noqa: SIM115
        members = dict(read_members(self.file, check_deadline))
        frames = {name: self._frame(members, name) for name in members if _is_frame(name)}
        self.names = sorted(frames, key=natural_order)
        self.frames = [frames[name] for name in self.names]

    def _frame(self, members: dict[str, tarfile.TarInfo], name: str) -> tarfile.TarInfo:
        member = followed(self.path, members, name)
        if not member.isreg():
            raise VideoReadError(self.path, f'a frame is no file: {name}')
        return member

    def read(self, index: int) -> bytes:
        with self.file.extractfile(self.frames[index]) as file:
            return read_image_file(self.path, file, self.names[index])


class _Image(FrameArchive):
    """A video of one frame without duration."""

    seconds = 0.0

    def __init__(self, path: str, data: bytes) -> None:
        self.path, self.data, self.names = path, data, ['']

    def read(self, index: int) -> bytes:
        return self.data


def _is_frame(name: str) -> bool:
    return name.lower().endswith(IMAGE_EXTENSIONS) and is_visible(name)


def _frames_of(folder: str) -> list[str]:
    return sorted(filter(_is_frame, os.listdir(folder)), key=natural_order)


def size_and_time(path: str) -> tuple[int, int]:
    """Bytes and time of the last change, in nanoseconds, of a file or of a folder's images.

    The time of a member of a tar is that of the tar.

    Raises:
        OSError: If there is no such file.
    """
    if (found := split_member(path)) is not None:
        try:
            with opened_member(*found) as member:
                return member.seek(0, os.SEEK_END), os.stat(found[0]).st_mtime_ns
        except VideoReadError as error:
            raise FileNotFoundError(errno.ENOENT, error.reason, path) from None
    statuses = [os.stat(path)]
    if os.path.isdir(path):
        statuses += [os.stat(os.path.join(path, name)) for name in _frames_of(path)]
    size = sum(status.st_size for status in statuses[len(statuses) > 1 :])
    return size, max(status.st_mtime_ns for status in statuses)


def sha256_of(path: str) -> str:
    """SHA-256 of a file, or of names and contents of a folder's images, in hexadecimal digits."""
    if not os.path.isdir(path):
        return sha256_of_file(path)
    folder, digest = _Folder(path), hashlib.sha256()
    for index, name in enumerate(folder.names):
        digest.update(os.fsencode(name) + b'\0' + hashlib.sha256(folder.read(index)).digest())
    return digest.hexdigest()


def frame_archive(
    path: str,
    file: BinaryIO | None,
    head: bytes = b'',
    fps: float | None = None,
    check_deadline: Callable[[], None] = lambda: None,
) -> FrameArchive | None:
    """Open a video that is kept as images; content decides, not the ending of the name.

    Args:
        path (str): A folder or a file.
        file (BinaryIO, optional): The file, open; None for a folder.
        head (bytes): Its first :data:`.file_checks.HEAD_BYTES` bytes.
        fps (float, optional): Frames per second. Defaults to None: ``DEFAULT_FPS``.
        check_deadline (Callable): Called for each member of a tar. Defaults to nothing.

    Returns:
        FrameArchive, optional: Folder, uncompressed tar or still image, which is closed as a
        context; None for a video that FFmpeg reads, including animated GIF and PNG.

    Raises:
        VideoReadError: If there is no image in it, it is damaged, a member of the archive refers
            to what is not in it, or ``fps`` is no positive number.
    """
    try:
        if file is None:
            archive = _Folder(path)
        else:
            archive = _archive_of_file(path, file, head, check_deadline)
    except tarfile.TarError as error:
        raise VideoReadError(path, f'a damaged archive: {error}') from None
    if archive is None:
        return None
    if fps is not None:
        archive.fps = _positive(path, fps)
    if not archive.names:
        with archive:
            raise VideoReadError(path, f'holds no images ({", ".join(IMAGE_EXTENSIONS)})')
    return archive


def _archive_of_file(
    path: str, file: BinaryIO, head: bytes, check_deadline: Callable[[], None]
) -> FrameArchive | None:
    if looks_like_image(head):
        file.seek(0)
        data = read_image_file(path, file)
        return _Image(path, data) if is_still(data) else None
    has_signature = head[257:262] == b'ustar'
    if has_signature or path.lower().endswith('.tar'):  # those of before 1988 have none
        try:
            return _Tar(path, file, check_deadline)
        except tarfile.ReadError:
            if has_signature:
                raise
    return None


def _positive(path: str, fps: float) -> float:
    try:
        value = float(fps)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 < value < math.inf:
        raise VideoReadError(path, f'fps in the manifest is no positive number: {fps!r}')
    return value


def read_frame_archive(
    request: Request, archive: FrameArchive
) -> tuple[list[np.ndarray], np.ndarray]:
    """Read the frames that a request asks for, see :func:`vito_mm.videos.decode_frames`."""
    shown_at = np.arange(len(archive.names)) / archive.fps
    ordered, position = frames_on_screen(request.times_within(archive.seconds), shown_at)
    frames = []
    for index in ordered:
        request.check_deadline()
        frames.append(decode_image(request, archive.read(index), archive.names[index]))
    return [frames[i] for i in position], shown_at[ordered][position]


def inspect_frame_archive(
    archive: FrameArchive,
    row: dict[str, Any],
    check: bool = False,
    max_pixels: int = MAX_PIXELS,
    on_frame: Callable[[Any, Any, Fraction], None] | None = None,
) -> None:
    """Add what :func:`vito_mm.videos.prepare.integrity.inspect_video` says of images to a row."""
    request = Request(archive.path, np.zeros)
    rate = Fraction(archive.fps).limit_denominator(10000)
    count = len(archive.names)
    for index in range(count if check or on_frame else 1):
        data, name = archive.read(index), archive.names[index]
        image = open_image(archive.path, io.BytesIO(data), name, max_pixels)
        frame = decode_image(request, data, name)
        if index == 0:
            row.update(
                codec='mjpeg' if image.format in ('JPEG', 'MPO') else image.format.lower(),
                seconds=round(archive.seconds, 6),
                fps=archive.fps,
                num_frames=count,
                keyframe_interval=dict.fromkeys(('max', 'mean'), round(1 / archive.fps, 3)),
                width=frame.shape[1],
                height=frame.shape[0],
                rotation=0,
            )
        if on_frame is not None:
            from .description import Display

            on_frame(_video_frame(frame, index, rate), Display(), rate)
    if check or on_frame:
        row['checked'] = True
    if count == 1:
        row['notes'] = 'a single frame'


def _video_frame(image: np.ndarray, index: int, rate: Fraction) -> Any:
    import av

    frame = av.VideoFrame.from_ndarray(image, 'rgb24')
    frame.pts, frame.time_base, frame.duration = index, 1 / rate, 1
    return frame
