"""OpenCV: goes through a file twice, as its seeks and its header's duration are not exact."""

import cv2
import numpy as np

from vito_mm.videos.errors import VideoReadError

from .conversion import converted
from .request import Request, frames_on_screen


def decode(request: Request) -> tuple[list[np.ndarray], np.ndarray]:
    """Decode with OpenCV, see :func:`vito_mm.videos.decode_frames`.

    The first pass lists when each frame is shown, the second one converts the wanted ones. A file
    that is cut off is taken for as long as what is left of it.
    """
    shown_at = np.array(list(_walk(request)))
    if not len(shown_at):
        raise VideoReadError(request.path, 'OpenCV can decode no frame')
    shown_at = (shown_at - shown_at[0]) / 1000
    last = np.median(np.diff(shown_at)) if len(shown_at) > 1 else 0.0
    times = request.times_within(float(shown_at[-1] + last))
    ordered, position = frames_on_screen(times, shown_at)
    frames = list(_walk(request, ordered.tolist()))
    if len(frames) < len(ordered):
        raise VideoReadError(request.path, 'OpenCV cannot decode the same frames again')
    return [frames[i] for i in position], shown_at[ordered][position]


def _walk(request: Request, wanted: list[int] | None = None):
    """Yield the time of every frame in milliseconds, or the images of the wanted ones."""
    capture = cv2.VideoCapture(request.path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not capture.isOpened():
            raise VideoReadError(request.path, 'OpenCV finds no video stream that it can decode')
        request.check_size(
            int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        )
        index = 0
        while (wanted is None or wanted) and capture.grab():
            request.check_deadline()
            if wanted is None:
                yield capture.get(cv2.CAP_PROP_POS_MSEC)
            elif wanted[0] == index:
                wanted = wanted[1:]
                yield converted(capture.retrieve()[1], request, 'bgr')
            index += 1
    finally:
        capture.release()
