"""PyAV: demuxes and decodes only what the wanted frames need.

What makes it fast (``benchmarks/data_loading.py`` measures it): the file is opened without a trial
decoder; packets are read until the wanted frame is certain, not to the end of the file; frames that
no other frame refers to are not decoded unless wanted; behind the last wanted frame the decoder is
drained and not fed further; only wanted frames are converted. None of it changes a pixel.
"""

import threading
from abc import ABC, abstractmethod
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from math import inf

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from vito_mm.videos.containers import open_container
from vito_mm.videos.errors import VideoReadError

from .request import TOLERANCE, Request

_IN_MEMORY = 2**26
"""Bytes of a file without an index of its frames up to which all its packets are read at once."""
_QUEUE = 64
"""Packets that may wait for the decoder: as many as it takes to know which frame is wanted."""
_thread = threading.local()
_LONG_WAY = 4.0
"""Seconds between wanted frames from which a seek is tried where key frames are not known."""


def decode(request: Request) -> tuple[list[np.ndarray], np.ndarray]:
    """Decode with PyAV, see :func:`vito_mm.videos.decode_frames`."""
    try:
        with (
            opened(request) as (container, stream),
            closing(_packets(request, container, stream)) as packets,
        ):
            return _decode(request, stream, packets)
    except (av.error.FFmpegError, ValueError, MemoryError) as error:
        reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        raise VideoReadError(request.path, f'{reason} (FFmpeg)') from None


@contextmanager
def opened(request: Request) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video with one thread.

    Args:
        request (Request): Names the file.

    Yields:
        tuple: The container and its first video stream.

    Raises:
        VideoReadError: If there is no video stream.
        av.error.FFmpegError: If it cannot be opened.
    """
    # Opening a decoder by trial tells what the first packet tells as well, and costs more than all
    # else together. Only these containers say in their header what FFmpeg needs to know of the
    # order of frames; the trial is for the others.
    try:
        container = open_container(request.path, stream_options=[{'codec_whitelist': 'none'}])
    except ValueError:  # the container has no streams before it is searched
        container = open_container(request.path)
    video = _video_stream(container)
    if not (
        video is None
        or container.format.name.startswith('mov')
        or video.codec_context.name in ('vp8', 'vp9', 'av1', 'libdav1d')
    ):
        container.close()
        container = open_container(request.path)
        video = _video_stream(container)
    with container:
        if video is None:
            kinds = sorted({stream.type for stream in container.streams})
            raise VideoReadError(
                request.path, f'no video stream, only {", ".join(kinds) or "nothing"}'
            )
        video.codec_context.thread_count = 1
        yield container, video


def _video_stream(container: InputContainer) -> VideoStream | None:
    """First video stream that is not the picture on a record's cover."""
    for stream in container.streams.video:
        if not stream.disposition & stream.disposition.attached_pic:
            return stream
    return None


def _decode(
    request: Request, stream: VideoStream, packets: '_Packets'
) -> tuple[list[np.ndarray], np.ndarray]:
    reader = _Reader(request, stream, packets)
    times = request.times_within(packets.duration)
    time_base = float(stream.time_base)
    ticks = [packets.first + int((time + TOLERANCE) / time_base) for time in times.tolist()]
    ordered = sorted(set(ticks))
    keys = packets.key_frames_before(ordered)
    found: dict[int, tuple[np.ndarray, float]] = {}
    convert, current = Converter(request), None
    for i, tick in enumerate(ordered):
        if i == 0 or keys[i] != keys[i - 1]:
            reader.start(keys[i], tick)
            current = None
        frame = _patient_frame_at(
            reader, keys[i], tick, is_last=i + 1 == len(ordered) or keys[i + 1] != keys[i]
        )
        if frame is not current:
            current, image = frame, convert(frame)
        found[tick] = image, (reader.begin - packets.first) * time_base
    return [found[tick][0] for tick in ticks], np.array([found[tick][1] for tick in ticks])


class _UndecodableFrame(VideoReadError):
    """The decoder does not give a frame that the file has."""


def _patient_frame_at(reader: '_Reader', key: int | None, tick: int, is_last: bool) -> VideoFrame:
    """Start earlier if need be: with periodic intra refresh no frame is a key frame by itself."""
    for earlier in (2, 4):
        try:
            return reader.frame_at(tick, is_last)
        except _UndecodableFrame:
            if key is None:
                raise
            reader.start(key, tick, earlier)
    return reader.frame_at(tick, is_last)


class Converter:
    """Frames of the decoder as images: upright, in the wanted size and order of channels."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.format = {'rgb': 'rgb24', 'bgr': 'bgr24'}[request.channel_order]
        # Its tables cost as much as four frames: kept while the size of the videos stays the same.
        if not hasattr(_thread, 'reformatter'):
            _thread.reformatter = VideoReformatter()
        self.reformatter = _thread.reformatter

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        self.request.check_size(frame.width, frame.height)
        width, height = self.request.scaled_size(frame.width, frame.height)
        smaller = (width, height) != (frame.width, frame.height)
        image = self.reformatter.reformat(
            frame,
            width,
            height,
            self.format,
            interpolation='AREA' if smaller else 'BILINEAR',
            threads=1,  # threads would not be there any more in data workers that are forked
        ).to_ndarray()
        quarters = round(frame.rotation / 90) % 4  # counter-clockwise
        return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image


class _Reader:
    """Frames at increasing times, between one seek and the next.

    Args:
        request (Request): What to read.
        stream (VideoStream): Its video stream.
        packets (_Packets): Where its packets come from.
    """

    def __init__(self, request: Request, stream: VideoStream, packets: '_Packets') -> None:
        self.request, self.packets = request, packets
        self.decoder = stream.codec_context
        self.time_base = float(stream.time_base)
        self.used = False
        self.counted: Iterator[int] = iter(())
        self.begin = None
        """Time stamp of the frame that :meth:`frame_at` returned."""

    def start(self, key: int | None, tick: int, earlier: int = 0) -> None:
        """Go to a key frame from which the frame at a time can be decoded, or to an earlier one."""
        for attempt in range(earlier, earlier + 8):
            if self.used:
                self.decoder.flush_buffers()
            self.used = True
            self.source = self.packets.read_from(key, attempt)
            self.queue: deque[Packet] = deque()
            self.known: list[int] = []
            self.horizon, self.at_end = -inf, False
            self.key_frame: Packet | None = None
            self.decoded: dict[int, VideoFrame] = {}
            self.drained = False
            self.begin = self.frame = None
            self._look_ahead(tick)
            # Indices give decoding times, and seeks may land behind the wanted frame or between
            # key frames.
            key_frame = self.key_frame
            if key_frame and (key_frame.pts is None or key_frame.pts <= tick):
                break
        self.counted = iter(self.packets.output_order())

    def frame_at(self, tick: int, is_last: bool) -> VideoFrame:
        """Decode the frame on screen at a time, not before that of the last call.

        Args:
            tick (int): Time stamp.
            is_last (bool): Whether nothing behind it is wanted before the next start.
        """
        self._look_ahead(tick)
        wanted = self._latest(tick)
        del self.known[: max(0, bisect_right(self.known, tick) - 1)]
        if wanted is None or (self.at_end and self._seconds_behind(wanted, tick) > 1):
            raise VideoReadError(
                self.request.path,
                'no frame is shown at the wanted time'
                if wanted is None
                else f'ends {self._seconds_behind(wanted, tick):.1f} s before its header says: cut '
                'off, or a wrong duration',
            )
        if wanted != self.begin:
            self.frame, self.begin = self._decode(wanted, tick, is_last), wanted
        return self.frame

    def _seconds_behind(self, pts: int, tick: int) -> float:
        return (tick - pts - self.packets.longest_frame) * self.time_base

    def _look_ahead(self, tick: int) -> None:
        """Read packets until no frame that begins before ``tick`` can follow."""
        while not self.at_end and self.horizon <= tick:
            self._read_packet()
            if len(self.queue) > _QUEUE and self.packets.has_pts:
                latest = self._latest(tick)
                if latest is not None and self.queue[0].pts < latest:
                    self._send(self.queue.popleft(), latest)

    def _latest(self, tick: int) -> int | None:
        """Start of the last known frame that begins before a time."""
        position = bisect_right(self.known, tick)
        return self.known[position - 1] if position else None

    def _read_packet(self) -> None:
        packet = next(self.source, None)
        if packet is None:
            self.at_end = True
            return
        self.request.check_deadline()
        self.queue.append(packet)
        if packet.is_keyframe and self.key_frame is None:
            self.key_frame = packet
        self.horizon = self.packets.note(packet, self.known)

    def _send(self, packet: Packet | None, wanted: int, tick: int | None = None) -> None:
        """Decode a packet, or what is left in the decoder, and keep frames from ``wanted`` on.

        Frames that begin before ``tick`` and are not the wanted one are of no use to anybody but
        the frames that refer to them.
        """
        if packet is not None:
            until = wanted if tick is None else tick
            useless = self.packets.has_pts and packet.pts <= until and packet.pts != wanted
            self.decoder.skip_frame = 'NONREF' if useless else 'DEFAULT'
        for frame in self.decoder.decode(packet):
            pts = next(self.counted, frame.pts)
            if pts is not None and pts >= wanted:
                self.decoded[pts] = frame

    def _decode(self, wanted: int, tick: int, is_last: bool) -> VideoFrame:
        self.decoded = {pts: frame for pts, frame in self.decoded.items() if pts >= wanted}
        is_sent = wanted not in [packet.pts for packet in self.queue]
        while wanted not in self.decoded and not self.drained and len(self.decoded) < 32:
            self.request.check_deadline()
            if not (self.queue or self.at_end):
                self._read_packet()
            if self.queue and not (is_sent and is_last and self.packets.has_pts):
                packet = self.queue.popleft()
                is_sent = is_sent or packet.pts == wanted
                self._send(packet, wanted, tick)
            else:
                self._send(None, wanted)
                self.drained = True
        frame = self.decoded.pop(wanted, None)
        if frame is None or frame.is_corrupt:
            at = (wanted - self.packets.first) * self.time_base
            raise _UndecodableFrame(
                self.request.path,
                f'the frame at {at:.2f} s '
                + ('is damaged' if frame else 'cannot be decoded: damage, or no key frame before'),
            )
        return frame


class _Packets(ABC):
    """Packets of a stream from a key frame on. Times are time stamps of the stream."""

    first: int
    """When the first frame is shown."""
    duration: float
    """From the first frame to the end of the last, in seconds."""
    longest_frame = 0
    """Of the frames seen so far."""
    has_pts = True
    """Whether packets tell when their frame is shown."""

    @abstractmethod
    def key_frames_before(self, ticks: list[int]) -> list[int | None]:
        """Key frames to start from, for increasing times; None is the start of the file."""

    @abstractmethod
    def read_from(self, key: int | None, attempt: int) -> Iterator[Packet]:
        """Packets from a key frame on; further attempts start earlier."""

    def note(self, packet: Packet, known: list[int]) -> float:
        """Enter when a packet is shown into a sorted list; return before when none can follow."""
        self.longest_frame = max(self.longest_frame, packet.duration or 0)
        if packet.pts is None:
            self.has_pts = False
        elif not packet.is_discard and _is_shown(packet):
            insort(known, packet.pts)
        return -inf if packet.dts is None else packet.dts

    def output_order(self) -> list[int]:
        """Times of the decoder's frames, in order, where the frames do not know them."""
        return []

    def close(self) -> None:  # noqa: B027 - nothing to do where all is read
        """Stop reading."""


def _is_shown(packet: Packet) -> bool:
    """Whether a packet makes a frame: VP8's alternate references do not (RFC 6386, 9.1)."""
    return packet.stream.codec_context.name != 'vp8' or bool(memoryview(packet)[0] & 0x10)


def _packets(request: Request, container: InputContainer, stream: VideoStream) -> _Packets:
    request.check_size(stream.codec_context.width, stream.codec_context.height)
    is_long = (container.size or 0) > _IN_MEMORY
    index = stream.index_entries
    is_indexed = container.format.name.startswith('mov') and 0 < stream.frames == len(index)
    if is_indexed and (is_long or _is_regular(index)):
        return _IndexedPackets(container, stream)
    if is_long and container.format.name != 'avi':
        return _SoughtPackets(container, stream)
    return _PacketsInMemory(request, container, stream)


def _is_regular(index: Sequence) -> bool:
    """Whether frames are evenly spaced. If not, an index of decoding times hides the end."""
    last = len(index) - 1
    step = index[min(1, last)].timestamp - index[0].timestamp
    middle = [index[i].timestamp - index[0].timestamp for i in (last // 2, last)]
    return middle == [last // 2 * step, last * step]


class _SoughtPackets(_Packets):
    """A long file without an index of its frames: the header's duration, seeks by time."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.container, self.stream = container, stream
        self.time_base = float(stream.time_base)
        self.demuxer: Generator | None = None
        self.head: list[Packet] = []
        self.first = inf
        for packet in self._demux():
            self.head.append(packet)
            if packet.pts is not None and not packet.is_discard:
                self.first = min(self.first, packet.pts)
            if packet.dts is not None and packet.dts >= self.first:
                break
        if self.first == inf:
            raise ValueError('the video stream has no frames')
        seconds = (
            stream.duration * self.time_base
            if stream.duration
            else (container.duration or 0) / av.time_base
        )
        self.duration = max(0.0, seconds)

    def _demux(self) -> Iterator[Packet]:
        self.close()
        self.demuxer = self.container.demux(self.stream)
        return (packet for packet in self.demuxer if packet.size)

    def close(self) -> None:
        if self.demuxer is not None:  # one that is left to itself is never freed
            self.demuxer.close()

    def key_frames_before(self, ticks: list[int]) -> list[int | None]:
        far = _LONG_WAY / self.time_base
        keys: list[int | None] = []
        last = self.first
        for tick in ticks:
            keys.append(tick if tick - last > far else keys[-1] if keys else None)
            last = tick
        return keys

    def read_from(self, key: int | None, attempt: int) -> Iterator[Packet]:
        back = (2**attempt - 1) / self.time_base
        if key is None or key - back <= self.first:
            yield from self._from_start()
            return
        self.head = []
        self.container.seek(int(key - back), stream=self.stream, backward=True)
        yield from self._demux()

    def _from_start(self) -> Iterator[Packet]:
        if not self.head:
            self.container.seek(int(self.first), stream=self.stream, backward=True)
        head, self.head = self.head, []
        yield from head
        yield from self._demux()


class _IndexedPackets(_SoughtPackets):
    """MP4 and MOV: the header lists every frame, so it is known where key frames are."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        super().__init__(container, stream)
        self.index = stream.index_entries
        # The index has decoding times. This is by how much key frames are shown later.
        head = self.head[0]
        self.delay = 0 if None in (head.pts, head.dts) else head.pts - head.dts

    def key_frames_before(self, ticks: list[int]) -> list[int | None]:
        positions = [self.index.search_timestamp(tick - self.delay) for tick in ticks]
        return [position if position > 0 else None for position in positions]

    def read_from(self, key: int | None, attempt: int) -> Iterator[Packet]:
        for _ in range(attempt):
            if key is not None:
                key = self.index.search_timestamp(self.index[key].timestamp - 1)
                key = key if key > 0 else None
        if key is None:
            return self._from_start()
        self.head = []
        shown_at = self.index[key].timestamp + self.delay
        self.container.seek(shown_at, stream=self.stream, backward=True)
        return self._demux()


class _PacketsInMemory(_Packets):
    """A short file without an index of its frames: all of its packets."""

    def __init__(self, request: Request, container: InputContainer, stream: VideoStream) -> None:
        self.packets: list[Packet] = []
        self.shown_at: list[int] = []
        with closing(container.demux(stream)) as demuxer:
            for packet in demuxer:
                request.check_deadline()
                if packet.size:
                    self.packets.append(packet)
                    self.note(packet, self.shown_at)
        if not self.shown_at:
            raise ValueError('the video stream has no frames')
        # AVI has no such times: FFmpeg takes them from the order of the packets, which B-frames
        # change. Frames are then counted from the start of the file.
        self.is_counted = container.format.name == 'avi' and stream.codec_context.has_b_frames > 0
        self.has_pts = self.has_pts and not self.is_counted
        self.first = self.shown_at[0]
        steps = np.diff(self.shown_at)
        last = self.packets[-1].duration or (int(np.median(steps)) if len(steps) else 0)
        self.duration = float((self.shown_at[-1] + last - self.first) * stream.time_base)
        self.keys = [
            i
            for i, packet in enumerate(self.packets)
            if packet.is_keyframe and packet.pts is not None
        ]
        self.key_times = [self.packets[i].pts for i in self.keys]

    def key_frames_before(self, ticks: list[int]) -> list[int | None]:
        if self.is_counted:
            return [None] * len(ticks)
        positions = [bisect_right(self.key_times, tick) - 1 for tick in ticks]
        return [self.keys[position] if position >= 0 else None for position in positions]

    def read_from(self, key: int | None, attempt: int) -> Iterator[Packet]:
        # Further attempts start 1, 3, 7, ... key frames earlier.
        position = bisect_right(self.keys, key or 0) - 2**attempt
        self.start = self.keys[position] if key and position >= 0 else 0
        return iter(self.packets[self.start :])

    def note(self, packet: Packet, known: list[int]) -> float:
        super().note(packet, known)
        return -inf

    def output_order(self) -> list[int]:
        return self.shown_at[self.start :] if self.is_counted else []
