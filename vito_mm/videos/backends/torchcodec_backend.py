"""torchcodec: PyTorch's decoder, on the FFmpeg libraries of the system."""

import ctypes
import itertools

import numpy as np
from torchcodec.decoders import VideoDecoder

from vito_mm.videos.errors import VideoReadError

from .plain import decode_plain
from .request import Request

_CODECS = ('h264', 'hevc', 'vp8', 'vp9', 'av1', 'libdav1d', 'mpeg4')
# Where videos differ in size, what torchcodec frees stays with the C library, some 10 kB a clip.
_trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)  # glibc has it
_clips = itertools.count(1)


def decode(request: Request) -> tuple[list[np.ndarray], np.ndarray]:
    """Decode with torchcodec, see :func:`vito_mm.videos.decode_frames`.

    torchcodec 0.11.1 loses about 1 kB of memory a clip where videos differ in size. Opening reads
    the time stamps of the whole file (``seek_mode='exact'``). It cannot be interrupted: the time
    limit is checked before and after each call of it.
    """
    return decode_plain(request, _CODECS, _read)


def _read(request: Request, numbers: np.ndarray, shown_at: np.ndarray) -> list[np.ndarray] | None:
    try:
        decoder = VideoDecoder(
            request.path, dimension_order='NHWC', num_ffmpeg_threads=1, seek_mode='exact'
        )
        request.check_deadline()
        if len(decoder) != len(shown_at):
            return None
        batch = decoder.get_frames_at(numbers.tolist())
        first = decoder.metadata.begin_stream_seconds
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        if isinstance(error, VideoReadError):
            raise
        raise VideoReadError(request.path, _reason(error)) from None
    if _trim and next(_clips) % 500 == 0:
        _trim(0)
    if np.abs(batch.pts_seconds.numpy() - first - shown_at[numbers]).max() > 2e-3:
        return None
    return [request.converted(image, 'rgb') for image in batch.data.contiguous().numpy()]


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
