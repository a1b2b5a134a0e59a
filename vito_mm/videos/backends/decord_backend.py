"""decord: reads the time stamps of the whole file when it opens it."""

import re

import av
import decord
import numpy as np

from vito_mm.videos.containers import open_container
from vito_mm.videos.errors import VideoReadError

from . import pyav_backend
from .conversion import converted
from .request import Request, frames_on_screen

_EXACT_CODECS = ('h264', 'vp8', 'vp9', 'av1', 'libdav1d')

decord.logging.set_level(decord.logging.FATAL)  # what fails is reported once, by the caller


def decode(request: Request) -> tuple[list[np.ndarray], np.ndarray]:
    """Decode with decord, see :func:`vito_mm.videos.decode_frames`.

    decord cannot be interrupted: the time limit is checked before and after each call of it. Codecs
    other than H.264, VP8, VP9 and AV1 go to PyAV, because decord 0.6.0 returns other frames than
    those asked for where a decoder holds frames back (HEVC, MPEG-4); so do videos that are shown
    turned by a quarter, which it squeezes. Not told apart, and wrong: H.264 with periodic intra
    refresh instead of key frames.
    """
    codec, size = _header(request.path)
    if codec not in _EXACT_CODECS:
        return pyav_backend.decode(request)
    try:
        reader = decord.VideoReader(request.path, num_threads=1)
        request.check_deadline()
        num_frames = len(reader)
        if num_frames == 0:
            raise VideoReadError(request.path, 'the video stream has no frames')
        begins, ends = np.asarray(reader.get_frame_timestamp(np.arange(num_frames))).T
        # Containers may start late or list a last frame without length: measure from frame to
        # frame, and let the last one last as long as the average.
        shown_at = (begins - begins[0]).astype(np.float64)
        duration = max(ends[-1] - begins[0], shown_at[-1] + 1 / reader.get_avg_fps())
        times = request.times_within(float(duration))
        ordered, position = frames_on_screen(times, shown_at)
        # Not get_batch, which fails on videos that are shown turned.
        frames = [reader[int(index)].asnumpy() for index in ordered]
    except (decord.DECORDError, RuntimeError, IndexError, ZeroDivisionError) as error:
        if isinstance(error, VideoReadError):
            raise
        raise VideoReadError(request.path, _reason(error, request.path)) from None
    request.check_deadline()
    if frames and frames[0].shape[1::-1] != size:
        return pyav_backend.decode(request)
    frames = [converted(frame, request, 'rgb') for frame in frames]
    return [frames[i] for i in position], shown_at[ordered][position]


def _header(path: str) -> tuple[str | None, tuple[int, int] | None]:
    """Name of the codec, and width and height as stored."""
    try:
        with open_container(path, stream_options=[{'codec_whitelist': 'none'}]) as container:
            codec = container.streams.video[0].codec_context
            return codec.name, (codec.width, codec.height)
    except (av.error.FFmpegError, ValueError, IndexError):
        return None, None


def _reason(error: Exception, path: str) -> str:
    """First line of decord's message without time, source file, stack trace and bare numbers."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = re.sub(r'^\[[\d:]+\] \S+?:\d+: ', '', lines[0]).replace(f'[{path}]', '')
    # AVERROR_INVALIDDATA of FFmpeg
    return reason.replace('1094995529', 'invalid data: the file is damaged or cut off')
