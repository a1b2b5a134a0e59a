"""OpenCV: goes through a file from its start, as its seeks are not exact."""

import cv2
import numpy as np

from vito_mm.videos.errors import VideoReadError

from .conversion import converted
from .plain import decode_plain
from .request import Request

_CODECS = ('h264', 'hevc', 'vp8', 'vp9', 'mpeg4')


def decode(request: Request) -> tuple[list[np.ndarray], np.ndarray]:
    """Decode with OpenCV, see :func:`vito_mm.videos.decode_frames`."""
    return decode_plain(request, _CODECS, _read)


def _read(request: Request, numbers: np.ndarray, shown_at: np.ndarray) -> list[np.ndarray] | None:
    frames, begins = [], []
    capture = cv2.VideoCapture(request.path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not capture.isOpened():
            return None
        for number in range(int(numbers[-1]) + 1):
            request.check_deadline()
            if not capture.grab():
                raise VideoReadError(
                    request.path, f'OpenCV cannot decode the frame at {shown_at[number]:.2f} s'
                )
            if number in (0, *numbers):
                begins.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            if number in numbers:
                frames.append(converted(capture.retrieve()[1], request, 'bgr'))
    finally:
        capture.release()
    expected = shown_at[np.union1d([0], numbers)]
    is_same = np.abs(np.array(begins) - begins[0] - expected).max() < 2e-3
    return frames if is_same else None
