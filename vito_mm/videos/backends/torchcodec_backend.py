"""torchcodec: PyTorch's decoder, on the FFmpeg libraries of the system."""

import ctypes
import itertools

import numpy as np
from torchcodec.decoders import VideoDecoder

from vito_mm.videos.errors import VideoReadError

from .conversion import converted
from .request import TOLERANCE, Request

# Where videos differ in size, what torchcodec frees stays with the C library, some 10 kB a clip.
_trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)  # glibc has it
_clips = itertools.count(1)


def decode(request: Request) -> tuple[list[np.ndarray], np.ndarray]:
    """Decode with torchcodec, see :func:`vito_mm.videos.decode_frames`.

    torchcodec 0.11.1 loses about 1 kB of memory a clip where videos differ in size. Opening reads
    the time stamps of the whole file (``seek_mode='exact'``). It cannot be interrupted: the time
    limit is checked before and after each call of it. H.264 with periodic intra refresh instead of
    key frames gives other frames than those asked for.
    """
    try:
        decoder = VideoDecoder(
            request.path, dimension_order='NHWC', num_ffmpeg_threads=1, seek_mode='exact'
        )
        request.check_deadline()
        about = decoder.metadata
        if about.width and about.height:
            request.check_size(about.width, about.height)
        first, end = about.begin_stream_seconds, about.end_stream_seconds
        times = request.times_within(end - first)
        # Frame times, not frame numbers: no table of all frames is offered. A frame is played
        # until the next one begins, and the end itself belongs to no frame.
        inside = np.minimum(times + first + TOLERANCE, end - 1e-6)
        ordered, position = np.unique(inside, return_inverse=True)
        batch = decoder.get_frames_played_at(ordered.tolist())
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        if isinstance(error, VideoReadError):
            raise
        raise VideoReadError(request.path, _reason(error)) from None
    request.check_deadline()
    if _trim and next(_clips) % 500 == 0:
        _trim(0)
    frames = [converted(image, request, 'rgb') for image in batch.data.contiguous().numpy()]
    begins = batch.pts_seconds.numpy() - first
    return [frames[i] for i in position], begins[position]


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
