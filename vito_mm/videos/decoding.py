"""Pixels of a video at given times."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from .manifest import IMAGE_EXTENSIONS


class VideoReadError(RuntimeError):
    """A video could not be opened or decoded.

    Args:
        path (str): File that failed.
        reason (str): Why, in one line.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f'cannot read video {self.path}: {self.reason}'


def decode_frames(
    path: str | os.PathLike, choose_times: Callable[[float], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Decode the frames shown at some times of a video with decord.

    The file is opened, read in one request with one thread, and closed again in this call: a
    reader that outlives a fork dead-locks, and one that is kept leaks.

    An image file is a video of one frame without duration.

    Args:
        path: Video file, or an image by its ending.
        choose_times: Called once with the duration in seconds, returns the wanted times in seconds
            from the first frame, shape (n, ). A time gives the frame on screen at that moment;
            times beyond the end give the last frame. Times may repeat and be in any order.

    Returns:
        tuple: RGB frames, uint8, shape (n, height, width, 3), in the order of the times, and the
        times at which these frames begin, in seconds, shape (n, ).

    Raises:
        VideoReadError: If the file is missing, empty, no video, or damaged.
        ImportError: If decord is not installed.
    """
    path = os.fspath(path)
    if path.lower().endswith(IMAGE_EXTENSIONS):
        return _read_image(path, len(choose_times(0.0)))
    try:
        import decord
    except ImportError as error:
        raise ImportError('decoding videos needs decord: pip install "vito_mm[video]"') from error
    _check_file(path)
    decord.logging.set_level(decord.logging.FATAL)  # what fails is reported once, by the caller
    try:
        reader = decord.VideoReader(path, num_threads=1)
        num_frames = len(reader)
        if num_frames == 0:
            raise VideoReadError(path, 'the video stream has no frames')
        begins, ends = np.asarray(reader.get_frame_timestamp(np.arange(num_frames))).T
        # Containers may start late or list a last frame without length: measure from frame to
        # frame, and let the last one last as long as the average.
        shown_at = begins - begins[0]
        duration = max(ends[-1] - begins[0], shown_at[-1] + 1 / reader.get_avg_fps())
        times = np.asarray(choose_times(float(duration)), dtype=np.float64)
        # decord's time stamps are float32: 1e-4 s keeps a time on a boundary with its frame.
        indices = np.searchsorted(shown_at, times + 1e-4, side='right') - 1
        ordered, position = np.unique(indices.clip(0), return_inverse=True)
        frames = reader.get_batch(ordered).asnumpy()
    except VideoReadError:
        raise
    except (decord.DECORDError, RuntimeError, IndexError, ZeroDivisionError) as error:
        raise VideoReadError(path, _reason(error, path)) from None
    return frames[position], shown_at[ordered][position]


def _read_image(path: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    _check_file(path)
    # Not cv2.imread, which reads no path that is not ASCII on some systems and prints its warnings.
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # e.g. a header that claims more pixels than OpenCV allows
        raise VideoReadError(path, f'OpenCV cannot decode this image: {error.err}') from None
    if image is None:
        raise VideoReadError(path, 'OpenCV cannot decode this image')
    return np.broadcast_to(image[..., ::-1], (n, *image.shape)), np.zeros(n)


def _check_file(path: str) -> None:
    """Name the simple faults by their names, which FFmpeg's messages do not."""
    if not os.path.exists(path):
        raise VideoReadError(path, 'no such file')
    if os.path.isdir(path):
        raise VideoReadError(path, 'is a folder')
    if not os.access(path, os.R_OK):
        raise VideoReadError(path, 'no permission to read it')
    if Path(path).stat().st_size == 0:
        raise VideoReadError(path, 'is empty (0 bytes)')


def _reason(error: Exception, path: str) -> str:
    """First line of decord's message without time, source file, stack trace and bare numbers."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = re.sub(r'^\[[\d:]+\] \S+?:\d+: ', '', lines[0]).replace(f'[{path}]', '')
    # AVERROR_INVALIDDATA of FFmpeg
    return reason.replace('1094995529', 'invalid data: the file is damaged or cut off')
