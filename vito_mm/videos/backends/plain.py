"""Plain files by decoders other than PyAV; all others by PyAV."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from vito_mm.videos.description import Display, missing_bytes, opened
from vito_mm.videos.timeline import PacketLog, Timeline

from . import pyav_backend
from .request import Request, frames_on_screen

# AVCOL_RANGE_UNSPECIFIED and _MPEG; AVCOL_SPC_UNSPECIFIED, _BT470BG and _SMPTE170M (BT.601).
_USUAL_RANGES, _USUAL_MATRICES = (0, 1), (2, 5, 6)


def decode_plain(
    request: Request,
    codecs: Sequence[str],
    read: Callable[[Request, np.ndarray, np.ndarray], list[np.ndarray] | None],
) -> tuple[list[np.ndarray], np.ndarray]:
    """Decode with another decoder if it reads the file exactly, else with PyAV.

    Args:
        request (Request): Frames that are wanted.
        codecs (Sequence[str]): FFmpeg's names of the codecs that it reads exactly.
        read (Callable): Takes the request, the numbers of the wanted frames, increasing, and the
            begin of each frame of the file, in seconds from the first. Returns the frames, or None
            if it finds others than there are.

    Returns:
        tuple: Frames and their begins, see :func:`vito_mm.videos.decode_frames`.
    """
    try:
        timeline = plain_timeline(request.path, codecs)
    except (av.error.FFmpegError, ValueError):
        timeline = None  # PyAV's backend says what is wrong
    request.check_deadline()
    if timeline is None:
        return pyav_backend.decode(request)
    times = request.times_within(timeline.duration)
    ordered, position = frames_on_screen(times, timeline.seconds)
    frames = read(request, ordered, timeline.seconds)
    request.check_deadline()
    if frames is None:
        return pyav_backend.decode(replace(request, choose_times=lambda duration: times))
    return [frames[i] for i in position], timeline.seconds[ordered][position]


def plain_timeline(path: str, codecs: Sequence[str]) -> Timeline | None:
    """Lay out a file if it is so plain that other decoders than PyAV read it exactly.

    That is MP4, MOV, Matroska or WebM that is complete, with a single video stream whose frames are
    evenly spaced, all of them shown as they are stored, whole frames in 8 bits and the usual
    colours, and whose key frames can be started from.

    Returns:
        Timeline or None: None for other files.
    """
    with opened(path, trial=True) as (container, stream):
        codec = stream.codec_context
        if (
            not container.format.name.startswith(('mov', 'matroska'))
            or len(container.streams.video) > 1
            or codec.name not in codecs
            or missing_bytes(path, container, stream)
        ):
            return None
        log, frames = PacketLog(container, stream), []
        with closing(container.demux(stream)) as packets:
            for packet in packets:
                if packet.size:
                    log.add(packet)
                    if codec.name == 'h264' and packet.is_keyframe and not _is_idr(packet, codec):
                        return None
                if not frames:
                    frames = codec.decode(packet if packet.size else None)
        timeline = log.timeline()
        is_plain = (
            frames
            and frames[0].pts is not None
            and not (frames[0].interlaced_frame or frames[0].is_corrupt)
            and Display.of(stream, frames[0]) == Display()
            and frames[0].format.name == 'yuv420p'
            and frames[0].color_range in _USUAL_RANGES
            and frames[0].colorspace in _USUAL_MATRICES
            and timeline.is_steady
            and not (timeline.is_counted or len(timeline.resets))
            and len(timeline) == len(log)
        )
        return timeline if is_plain else None


def _is_idr(packet: Packet, codec: VideoCodecContext) -> bool:
    """True if nothing after a packet of H.264 in MP4 or Matroska refers to frames before it."""
    if not codec.extradata or codec.extradata[0] != 1:
        return False
    length_size, position = (codec.extradata[4] & 3) + 1, 0
    data = memoryview(packet)
    while position + length_size < len(data):
        if data[position + length_size] & 31 == 5:  # ITU-T H.264, table 7-1
            return True
        size = int.from_bytes(data[position : position + length_size], 'big')
        position += length_size + size
    return False
