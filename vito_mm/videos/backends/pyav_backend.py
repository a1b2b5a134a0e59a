"""PyAV: demuxes and decodes only what the wanted frames need.

What makes it fast (``benchmarks/data_loading.py`` measures it): the file is opened without a trial
decoder; packets are read until the wanted frame is certain, not to the end of the file; frames that
no other frame refers to are not decoded unless wanted; behind the last wanted frame the decoder is
drained and not fed further; only wanted frames are converted. None of it changes a pixel.
"""

import threading
from abc import ABC, abstractmethod
from bisect import bisect_right, insort
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from itertools import dropwhile, islice
from math import inf

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from vito_mm.videos.containers import ffmpeg_errors
from vito_mm.videos.description import Display, missing_bytes, opened
from vito_mm.videos.errors import VideoReadError
from vito_mm.videos.file_checks import check_pixels
from vito_mm.videos.timeline import PacketLog, makes_frame

from .request import TOLERANCE, Request

_IN_MEMORY = 2**26
"""Bytes of a file without an index of its frames up to which all its packets are read at once."""
_FEW = 32
"""Frames up to which all packets are looked at."""
_EXACT_SEEKS = ('mov', 'matroska')
"""Containers in which time stamps rise and seeks land before the wanted time."""
_QUEUE = 64
"""Packets that may wait for the decoder: as many as it takes to know which frame is wanted."""
_thread = threading.local()
_LONG_WAY = 4.0
"""Seconds between wanted frames from which a seek is tried where key frames are not known."""


def decode(request: Request) -> tuple[list[np.ndarray], np.ndarray]:
    """Decode with PyAV, see :func:`vito_mm.videos.decode_frames`."""
    with ffmpeg_errors(request.path):
        with (
            opened(request.path) as (container, stream),
            closing(_packets(request, container, stream)) as packets,
        ):
            times = request.times_within(packets.duration)
            try:
                return _frames_at(request, stream, packets, times)
            except _UndecodableFrame:
                if isinstance(packets, _ScannedPackets):
                    raise
        # Perhaps the file can be decoded from a later key frame on: all of them are looked at.
        with (
            opened(request.path) as (container, stream),
            closing(_ScannedPackets(request, container, stream)) as packets,
        ):
            return _frames_at(request, stream, packets, times)


def first_frames(request: Request) -> Iterator[np.ndarray]:
    """Frames of a video from the first one on that can be decoded, as a request converts them.

    Raises:
        VideoReadError: If there is none, a later one is damaged, or the file is cut off.
    """
    path = request.path
    with (
        ffmpeg_errors(path),
        opened(path) as (container, stream),
        closing(container.demux(stream)) as packets,  # one that is left to itself is never freed
    ):
        key, is_first, convert = None, True, Converter(request, stream)
        for packet in dropwhile(lambda packet: not packet.is_keyframe, packets):
            key = key or packet
            try:
                frames = stream.codec_context.decode(packet)
            except av.error.InvalidDataError:
                if not is_first:
                    raise
                continue
            for frame in frames:
                if None not in (frame.pts, key.pts) and frame.pts < key.pts and not key.is_discard:
                    continue  # it refers to frames before the key frame
                if frame.is_corrupt and not is_first:
                    raise VideoReadError(path, f'damaged: at {frame.time or 0:.2f} s')
                is_first = is_first and frame.is_corrupt
                if not frame.is_corrupt:
                    yield convert(frame)
        if missing := missing_bytes(path, container, stream):
            raise VideoReadError(path, f'cut off: {missing} bytes are missing')
        if is_first:
            raise VideoReadError(path, 'no frame can be decoded')


def _frames_at(
    request: Request, stream: VideoStream, packets: '_Packets', times: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    reader = _Reader(request, stream, packets)
    places = [packets.place_of(time) for time in times.tolist()]
    ordered = sorted(set(places))
    keys = packets.key_frames_before(ordered)
    found: dict[int, tuple[np.ndarray, float]] = {}
    convert, current, image = Converter(request, stream), None, None
    for i, place in enumerate(ordered):
        if i == 0 or keys[i] != keys[i - 1]:
            reader.start(keys[i], place)
            current = None
        frame = _patient_frame_at(
            reader, keys[i], place, is_last=i + 1 == len(ordered) or keys[i + 1] != keys[i]
        )
        if frame is not current:
            current, image = frame, convert(frame)
        found[place] = image, packets.seconds_at(reader.begin)
    return [found[place][0] for place in places], np.array([found[place][1] for place in places])


class _UndecodableFrame(VideoReadError):
    """The decoder does not give a frame that the file has."""


def _patient_frame_at(reader: '_Reader', key: int | None, place: int, is_last: bool) -> VideoFrame:
    """Start earlier if need be: with periodic intra refresh no frame is a key frame by itself.

    Where nothing of the beginning can be decoded, the first frame that can be replaces it.
    """
    for earlier in () if key is None else (2, 4):
        try:
            return reader.frame_at(place, is_last)
        except _UndecodableFrame:
            reader.start(key, place, earlier)
    try:
        return reader.frame_at(place, is_last)
    except _UndecodableFrame:
        frame = reader.first_frame_behind(place)
        if frame is None:
            raise
        return frame


class Converter:
    """Frames of the decoder as images: as shown, in the size and order of channels of a request."""

    def __init__(self, request: Request, stream: VideoStream) -> None:
        self.request, self.stream = request, stream
        self.format = {'rgb': 'rgb24', 'bgr': 'bgr24'}[request.channel_order]
        # Its tables cost as much as four frames: kept while the size of the videos stays the same.
        if not hasattr(_thread, 'reformatter'):
            _thread.reformatter = VideoReformatter()
        self.reformatter = _thread.reformatter

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """Convert a decoded frame to uint8, shape (height, width, 3)."""
        display = Display.of(self.stream, frame)
        size = display.square(frame.width, frame.height)
        check_pixels(self.request.path, *size)
        width, height = self.request.scaled_size(*size)
        smaller = (width, height) != size
        image = self.reformatter.reformat(
            frame,
            width,
            height,
            self.format,
            interpolation='AREA' if smaller else 'BILINEAR',
            threads=1,  # threads would not be there any more in data workers that are forked
        ).to_ndarray()
        return display.upright(image)


class _Reader:
    """Frames of a stream at increasing places, between one seek and the next."""

    def __init__(self, request: Request, stream: VideoStream, packets: '_Packets') -> None:
        self.request, self.packets = request, packets
        self.decoder = stream.codec_context
        self.used = False
        self.counted: Iterator[int] | None = None
        self.begin = None
        """Place of the frame that was returned last."""

    def start(self, key: int | None, place: int, earlier: int = 0) -> None:
        """Go to a key frame from which a frame can be decoded, or to an earlier one."""
        for attempt in range(earlier, earlier + 8):
            self._reset()
            self.source = self.packets.read_from(key, attempt)
            self.queue: deque[Packet] = deque()
            self.known: list[int] = []
            self.horizon, self.at_end = -inf, False
            self.key_frame: Packet | None = None
            self.decoded: dict[int, VideoFrame] = {}
            self.drained = False
            self.given: Counter[int] = Counter()
            self.begin = self.frame = None
            self._look_ahead(place)
            # Indices give decoding times, and seeks may land behind the wanted frame or between
            # key frames.
            key_frame = self.key_frame
            if key_frame and (key_frame.pts is None or key_frame.pts <= place):
                break

    def _reset(self) -> None:
        if self.used:
            self.decoder.flush_buffers()
        self.used = True
        self.counted = self.packets.output_order()

    def frame_at(self, place: int, is_last: bool) -> VideoFrame:
        """Decode the frame on screen at a place, not before that of the last call.

        ``is_last`` says that no later frame is wanted before the next start.
        """
        self._look_ahead(place)
        wanted = self._latest(place)
        self.alike = self.known.count(wanted)  # of frames at one time, the last one is seen
        del self.known[: max(0, bisect_right(self.known, place) - 1)]
        if wanted is None:
            raise VideoReadError(self.request.path, 'no frame is shown at the wanted time')
        if self.at_end and self.packets.is_cut_before(place, wanted):
            raise VideoReadError(
                self.request.path, 'cut off: the frame at the wanted time is missing'
            )
        if wanted != self.begin:
            self.frame, self.begin = self._decode(wanted, place, is_last), wanted
        return self.frame

    def first_frame_behind(self, place: int) -> VideoFrame | None:
        """First frame of the file that can be decoded, if it is shown after a place."""
        first = self.packets.first_place
        if first is None:
            return None
        self._reset()
        self.decoder.skip_frame = 'DEFAULT'
        for packet in [*self.packets.read_from(None, 0), None]:
            self.request.check_deadline()
            try:
                frames = self.decoder.decode(packet)
            except av.error.InvalidDataError:
                continue
            for frame in frames:
                number = self._place(frame)
                if not frame.is_corrupt and number is not None and number >= first:
                    # What comes next is decoded from its own key frame.
                    self.frame, self.begin, self.queue, self.drained = frame, number, deque(), True
                    return frame if number > place else None
        return None

    def _place(self, frame: VideoFrame) -> int | None:
        return frame.pts if self.counted is None else next(self.counted, None)

    def _look_ahead(self, place: int) -> None:
        """Read packets until no frame that begins before ``place`` can follow."""
        while not self.at_end and self.horizon <= place:
            self._read_packet()
            if len(self.queue) > _QUEUE and self.packets.has_pts:
                latest = self._latest(place)
                if latest is not None and self.queue[0].pts < latest:
                    self._send(self.queue.popleft(), latest)

    def _latest(self, place: int) -> int | None:
        """Last known frame that does not begin after a place."""
        position = bisect_right(self.known, place)
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

    def _send(self, packet: Packet | None, wanted: int, place: int | None = None) -> None:
        """Decode a packet, or what is left in the decoder, and keep frames from ``wanted`` on.

        Frames that begin before ``place`` and are not the wanted one are of no use to anybody but
        the frames that refer to them.
        """
        if packet is not None:
            until = wanted if place is None else place
            useless = self.packets.has_pts and packet.pts <= until and packet.pts != wanted
            self.decoder.skip_frame = 'NONREF' if useless else 'DEFAULT'
        try:
            frames = self.decoder.decode(packet)
        except av.error.InvalidDataError as error:
            raise _UndecodableFrame(self.request.path, f'{error.strerror} (FFmpeg)') from None
        for frame in frames:
            begin = self._place(frame)
            if begin is not None and begin >= wanted:
                self.decoded[begin] = frame
                self.given[begin] += 1

    def _decode(self, wanted: int, place: int, is_last: bool) -> VideoFrame:
        self.decoded = {begin: frame for begin, frame in self.decoded.items() if begin >= wanted}
        is_end = is_last and self.packets.has_pts
        while self.given[wanted] < self.alike and not self.drained and len(self.decoded) < 32:
            self.request.check_deadline()
            if not (self.queue or self.at_end):
                self._read_packet()
            # Nothing that comes is needed once all packets of the wanted time are sent.
            if self.queue and not (is_end and all(one.pts != wanted for one in self.queue)):
                self._send(self.queue.popleft(), wanted, place)
            else:
                self._send(None, wanted)
                self.drained = True
        frame = self.decoded.pop(wanted, None)
        is_damaged = frame is not None and frame.is_corrupt and not self.packets.is_splice(wanted)
        if frame is None or is_damaged:
            raise _UndecodableFrame(
                self.request.path,
                f'the frame at {self.packets.seconds_at(wanted):.2f} s '
                + ('is damaged' if frame else 'cannot be decoded: damage, or no key frame before'),
            )
        return frame


class _Packets(ABC):
    """Packets of a stream from a key frame on, by places in the order in which frames are shown."""

    duration: float
    """From the first frame to the end of the last, in seconds."""
    first_place: int | None = None
    """Place of the first frame, where all frames of the file are known."""
    has_pts = True
    """True if the ``pts`` of packets is the place of their frames."""

    @abstractmethod
    def place_of(self, seconds: float) -> int:
        """Latest place that is not after a time."""

    @abstractmethod
    def seconds_at(self, place: int) -> float:
        """Begin of the frame at a place."""

    @abstractmethod
    def key_frames_before(self, places: list[int]) -> list[int | None]:
        """Key frames to start from, for increasing places; None is the start of the file."""

    @abstractmethod
    def read_from(self, key: int | None, attempt: int) -> Iterator[Packet]:
        """Packets from a key frame on; further attempts start earlier."""

    @abstractmethod
    def note(self, packet: Packet, known: list[int]) -> float:
        """Enter the place of a packet into a sorted list; return before which none can follow."""

    def is_cut_before(self, place: int, last: int) -> bool:
        """True if the file ended at its last frame, before a place that its index has."""
        return False

    def is_splice(self, place: int) -> bool:
        """True if a frame is next to a gap in the data that is no damage."""
        return False

    def output_order(self) -> Iterator[int] | None:
        """Places of the decoder's frames, in order, where the frames do not know them."""
        return None

    def close(self) -> None:  # noqa: B027 - nothing to do where all is read
        """Stop reading."""


def _packets(request: Request, container: InputContainer, stream: VideoStream) -> _Packets:
    is_long = (container.size or 0) > _IN_MEMORY
    if container.format.name.startswith('mov'):
        index = stream.index_entries
        if 0 < stream.frames == len(index) and (is_long or _is_regular(index)):
            return _IndexedPackets(container, stream)
    if is_long and container.format.name.startswith(_EXACT_SEEKS):
        packets = _SoughtPackets(container, stream)
        if packets.has_pts:
            return packets
        packets.close()
        return _ScannedPackets(request, container, stream, is_used=True)
    return _ScannedPackets(request, container, stream)


def _is_regular(index: Sequence) -> bool:
    """True if frames are evenly spaced and none is hidden. If not, all packets must be read.

    The index has decoding times, which do not give the times of the last few frames.
    """
    last = len(index) - 1
    if last < _FEW:
        return False
    step = index[1].timestamp - index[0].timestamp
    middle = [index[i].timestamp - index[0].timestamp for i in (last // 2, last)]
    return (
        middle == [last // 2 * step, last * step]
        and index[0].is_keyframe
        and not any(index[i].is_discard for i in (0, *range(max(0, last - _QUEUE), last + 1)))
    )


class _SoughtPackets(_Packets):
    """A long file that can be sought exactly: its last frames give its duration. Places are pts."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.container, self.stream = container, stream
        self.time_base = float(stream.time_base)
        self.demuxer: Generator | None = None
        self.head: list[Packet] = []
        self.longest_frame = 0
        self.num_leading = 0
        lowest = inf
        for packet in self._demux():
            if not (self.head or packet.is_keyframe):
                self.num_leading += 1
                continue
            self.head.append(packet)
            if packet.pts is not None and not packet.is_discard:
                lowest = min(lowest, packet.pts)
            if packet.dts is not None and packet.dts >= lowest:
                break
        if lowest == inf:
            raise ValueError('the video stream has no frames')
        self.has_pts = all(packet.pts is not None for packet in self.head)
        key = self.head[0]
        # What is shown before the first key frame refers to frames that are not there.
        self.first = lowest if key.is_discard or key.pts is None else key.pts
        self.duration = self._measure()

    def _measure(self) -> float:
        """Seconds from the first frame to the end of the last one."""
        stream = self.stream
        seconds = stream.duration and stream.duration * self.time_base
        seconds = seconds or (self.container.duration or 0) / av.time_base
        for back in (0.0, 10.0, 60.0, seconds):
            place = self.first + int(max(0.0, seconds - back) / self.time_base)
            with suppress(av.error.FFmpegError):  # beyond the end
                log = PacketLog(self.container, stream)
                for packet in _SoughtPackets.read_from(self, place, 0):
                    log.add(packet)
            with suppress(ValueError):  # nothing is left there
                tail = log.timeline(self.first)
                break
        self.head = []
        return (tail.origin + tail.end - self.first) * self.time_base

    def place_of(self, seconds: float) -> int:
        return self.first + int((seconds + TOLERANCE) / self.time_base)

    def seconds_at(self, place: int) -> float:
        return (place - self.first) * self.time_base

    def note(self, packet: Packet, known: list[int]) -> float:
        self.longest_frame = max(self.longest_frame, packet.duration or 0)
        if packet.pts is None:
            self.has_pts = False
        elif not packet.is_discard and makes_frame(packet):
            insort(known, packet.pts)
        return -inf if packet.dts is None else packet.dts

    def _demux(self) -> Iterator[Packet]:
        self.close()
        self.demuxer = self.container.demux(self.stream)
        return (packet for packet in self.demuxer if packet.size)

    def close(self) -> None:
        if self.demuxer is not None:  # one that is left to itself is never freed
            self.demuxer.close()

    def key_frames_before(self, places: list[int]) -> list[int | None]:
        far = _LONG_WAY / self.time_base
        keys: list[int | None] = []
        last = self.first
        for place in places:
            keys.append(place if place - last > far else keys[-1] if keys else None)
            last = place
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
            yield from dropwhile(lambda packet: not packet.is_keyframe, self._demux())
            return
        head, self.head = self.head, []
        yield from head
        yield from self._demux()


class _IndexedPackets(_SoughtPackets):
    """MP4 and MOV: the header lists every frame, so it is known where key frames are."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.index = stream.index_entries
        last = self.index[-1]
        self.is_truncated = last.pos + last.size > container.size
        super().__init__(container, stream)
        # The index has decoding times. This is by how much key frames are shown later.
        head = self.head[0] if self.head else next(self._from_start())
        self.delay = 0 if None in (head.pts, head.dts) else head.pts - head.dts

    def _measure(self) -> float:
        if not _is_regular(self.index):
            return super()._measure()
        before = sum(packet.pts is not None and packet.pts < self.first for packet in self.head)
        step = self.index[1].timestamp - self.index[0].timestamp
        step = step or self.head[0].duration
        return (len(self.index) - self.num_leading - before) * step * self.time_base

    def is_cut_before(self, place: int, last: int) -> bool:
        return self.is_truncated and place - last > self.longest_frame

    def key_frames_before(self, places: list[int]) -> list[int | None]:
        positions = [self.index.search_timestamp(place - self.delay) for place in places]
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


class _ScannedPackets(_Packets):
    """All packets of a file. Places are numbers of frames.

    Those of a short file are kept in memory, a long one is read again.
    """

    first_place = 0

    def __init__(
        self,
        request: Request,
        container: InputContainer,
        stream: VideoStream,
        is_used: bool = False,
    ) -> None:
        self.path = request.path
        self.packets: list[Packet] | None = [] if (container.size or 0) <= _IN_MEMORY else None
        self.again: Generator | None = None
        log = PacketLog(container, stream)
        with closing(self._all() if is_used else container.demux(stream)) as packets:
            for packet in packets:
                request.check_deadline()
                if packet.size:
                    log.add(packet)
                    if self.packets is not None:
                        self.packets.append(packet)
        self.timeline = timeline = log.timeline()
        self.duration = timeline.duration
        self.has_pts = not timeline.is_counted
        self.keys = timeline.key_packets
        self.key_numbers = timeline.numbers[self.keys]
        # Before the number of a frame that none can follow: the lowest one behind each packet.
        numbers = np.where(timeline.numbers < 0, len(timeline), timeline.numbers)
        self.lowest = np.append(np.minimum.accumulate(numbers[::-1])[::-1][1:], len(timeline))

    def place_of(self, seconds: float) -> int:
        return max(0, bisect_right(self.timeline.seconds, seconds + TOLERANCE) - 1)

    def seconds_at(self, place: int) -> float:
        return float(self.timeline.seconds[place])

    def key_frames_before(self, places: list[int]) -> list[int | None]:
        if self.timeline.is_counted:
            return [None] * len(places)
        before = [
            self.keys[(self.key_numbers >= 0) & (self.key_numbers <= place)] for place in places
        ]
        return [int(keys[-1]) if len(keys) else None for keys in before]

    def read_from(self, key: int | None, attempt: int) -> Iterator[Packet]:
        # Further attempts start 1, 3, 7, ... key frames earlier.
        position = bisect_right(self.keys, key or 0) - 2**attempt
        is_inside = key is not None and position >= 0
        start = int(self.keys[position]) if is_inside else self.timeline.first_packet
        self.position = start
        packets = self.packets[start:] if self.packets is not None else self._read_again(start)
        return (packet for packet in self.timeline.numbered(packets, start) if packet is not None)

    def _read_again(self, start: int) -> Iterator[Packet]:
        self.close()
        self.again = self._all()
        return islice(self.again, start, None)

    def _all(self) -> Generator[Packet, None, None]:
        with opened(self.path) as (container, stream), closing(container.demux(stream)) as demuxer:
            yield from (packet for packet in demuxer if packet.size)

    def close(self) -> None:
        if self.again is not None:
            self.again.close()

    def note(self, packet: Packet, known: list[int]) -> float:
        if self.timeline.is_counted:
            if not known:
                known.extend(range(len(self.timeline)))
            return inf
        if packet.pts >= 0:
            insort(known, packet.pts)
        self.position += 1
        return float(self.lowest[self.position - 1]) - 0.5

    def is_splice(self, place: int) -> bool:
        return place in self.timeline.spliced

    def output_order(self) -> Iterator[int] | None:
        return iter(range(len(self.timeline))) if self.timeline.is_counted else None
