"""decord: reads the time stamps of the whole file when it opens it."""

import re

import decord
import numpy as np

from vito_mm.videos.errors import VideoReadError

from .plain import decode_plain
from .request import Request

_CODECS = ('h264', 'vp8', 'vp9', 'av1', 'libdav1d')

decord.logging.set_level(decord.logging.FATAL)  # what fails is reported once, by the caller


def decode(request: Request) -> tuple[list[np.ndarray], np.ndarray]:
    """Decode with decord, see :func:`vito_mm.videos.decode_frames`.

    decord cannot be interrupted: the time limit is checked before and after each call of it. Codecs
    other than H.264, VP8, VP9 and AV1 go to PyAV, because decord 0.6.0 returns other frames than
    those asked for where a decoder holds frames back (HEVC, MPEG-4).
    """
    return decode_plain(request, _CODECS, _read)


def _read(request: Request, numbers: np.ndarray, shown_at: np.ndarray) -> list[np.ndarray] | None:
    try:
        reader = decord.VideoReader(request.path, num_threads=1)
        request.check_deadline()
        if len(reader) != len(shown_at):
            return None
        frames = [reader[int(number)].asnumpy() for number in numbers]
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        if isinstance(error, VideoReadError):
            raise
        raise VideoReadError(request.path, _reason(error, request.path)) from None
    if any(frame.shape[2] != 3 for frame in frames):  # upright frames of some widths have four
        return None
    return [request.converted(frame, 'rgb') for frame in frames]


def _reason(error: Exception, path: str) -> str:
    """First line of decord's message without time, source file, stack trace and bare numbers."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = re.sub(r'^(\[[\d:]+\] \S+?:\d+: )+', '', lines[0]).replace(f'[{path}]', '')
    # AVERROR_INVALIDDATA of FFmpeg
    return reason.replace('1094995529', 'invalid data: the file is damaged or cut off')
