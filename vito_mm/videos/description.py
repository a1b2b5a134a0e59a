"""Facts about an opened video file, decided once for all who read it. Needs PyAV.

Which stream is the video, when each of its frames is on screen, and how stored frames are shown.
Training, preparation, re-encoding, curation and all decoders go by these.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import dropwhile, pairwise

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .containers import open_container
from .errors import VideoReadError
from .file_checks import MAX_PIXELS, check_pixels

_UNKNOWN = -(2**63)
_KEY, _HIDDEN = 1, 2
_RANGE = 2**33
"""Time stamps of MPEG streams are below it."""
_EBML, _SEGMENT = b'\x1a\x45\xdf\xa3', b'\x18\x53\x80\x67'
# AVCOL_RANGE_UNSPECIFIED and _MPEG; AVCOL_SPC_UNSPECIFIED, _BT470BG and _SMPTE170M (BT.601).
_USUAL_RANGES, _USUAL_MATRICES = (0, 1), (2, 5, 6)
_BACK = 0.1
"""Seconds by which decoding times go back where a recording starts again; less is jitter."""
_BESIDE = 4
"""Packets before a reset that FFmpeg may take for damaged; it notices late."""
_WITHOUT_TRIAL = ('vp8', 'vp9', 'av1', 'libdav1d')


@contextmanager
def opened(
    path: str, trial: bool = False, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the video stream of a file, to be decoded with one thread.

    It is FFmpeg's best video stream and never the picture on a cover.

    Args:
        path (str): File that FFmpeg can open by this name.
        trial (bool): Whether FFmpeg decodes the first frames in any case, which tells what the
            header does not. Defaults to False: only where it must.
        max_pixels (int): Largest believable frame; the decoder refuses larger ones. Defaults to
            MAX_PIXELS.

    Yields:
        tuple: The container and the stream.

    Raises:
        VideoReadError: If there is no video stream, no decoder for it, or frames are too large.
        av.error.FFmpegError: If it cannot be opened.
    """
    container, streams = _open(path, trial)
    with container:
        if not streams:
            kinds = sorted({stream.type for stream in container.streams})
            raise VideoReadError(path, f'no video stream, only {", ".join(kinds) or "nothing"}')
        best = container.streams.best('video') if len(streams) > 1 else None
        stream = best if best in streams else streams[0]
        if stream.codec_context is None:
            raise VideoReadError(path, 'there is no decoder for its video stream')
        decoder = stream.codec_context
        check_pixels(path, decoder.width, decoder.height, max_pixels)
        decoder.thread_count = 1
        decoder.options = {'max_pixels': str(max_pixels)}  # where the header does not tell
        yield container, stream


def _open(path: str, trial: bool) -> tuple[InputContainer, list[VideoStream]]:
    if not trial:
        # Opening a decoder by trial tells what the first packet tells as well, and costs more than
        # all else together. Only these containers say in their header what FFmpeg needs to know of
        # the order of frames; the trial is for the others, and for a choice between streams.
        try:
            container = open_container(path, stream_options=[{'codec_whitelist': 'none'}])
        except ValueError:  # the container has no streams before it is searched
            container = None
        if container is not None:
            streams = _videos(container)
            if not streams or (
                len(streams) == 1
                and (
                    container.format.name.startswith('mov')
                    or streams[0].codec_context is None
                    or streams[0].codec_context.name in _WITHOUT_TRIAL
                )
            ):
                return container, streams
            container.close()
    container = open_container(path)
    return container, _videos(container)


def _videos(container: InputContainer) -> list[VideoStream]:
    return [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]


@dataclass(frozen=True)
class Display:
    """How stored frames are shown.

    Attributes:
        aspect (Fraction): Width of a pixel by its height.
        transposed (bool): Whether rows become columns, before the other two.
        flipped_x (bool): Whether left and right are exchanged.
        flipped_y (bool): Whether top and bottom are exchanged.
    """

    aspect: Fraction = Fraction(1)
    transposed: bool = False
    flipped_x: bool = False
    flipped_y: bool = False

    @classmethod
    def of(cls, stream: VideoStream, frame: VideoFrame) -> 'Display':
        """Read it from a decoded frame and its stream; the container's word comes first.

        Args:
            stream (VideoStream): Stream of the frame.
            frame (VideoFrame): Frame as decoded.

        Returns:
            Display: A display matrix that does more than mirror and turn by quarters counts as
            none, as does a pixel aspect ratio that is not positive.
        """
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
        aspect = Fraction(aspect) if aspect and aspect > 0 else Fraction(1)
        if not len(frame.side_data):
            return cls(aspect)
        try:
            data = frame.side_data['DISPLAYMATRIX']
        except KeyError:
            return cls(aspect)
        a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
        small = 0.0175  # a degree, as in FFmpeg
        if max(abs(b), abs(c)) <= small * min(abs(a), abs(d)):
            return cls(aspect, False, a < 0, d < 0)
        if max(abs(a), abs(d)) <= small * min(abs(b), abs(c)):
            return cls(aspect, True, c < 0, b < 0)
        return cls(aspect)

    @property
    def is_mirrored(self) -> bool:
        """Whether left and right are exchanged before frames are turned."""
        return (self.transposed + self.flipped_x + self.flipped_y) % 2 == 1

    @property
    def degrees(self) -> int:
        """Degrees clockwise by which frames are turned: 0, 90, 180 or 270."""
        if self.transposed:
            return 90 if self.flipped_x else 270
        return 180 if self.flipped_y else 0

    def square(self, width: int, height: int) -> tuple[int, int]:
        """Size of a frame that is scaled to square pixels, before it is turned.

        Args:
            width (int): As stored, in pixels.
            height (int): As stored, in pixels.

        Returns:
            tuple[int, int]: Width and height.
        """
        return max(1, round(width * self.aspect)), height

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Size of a frame as shown.

        Args:
            width (int): As stored, in pixels.
            height (int): As stored, in pixels.

        Returns:
            tuple[int, int]: Width and height.
        """
        width, height = self.square(width, height)
        return (height, width) if self.transposed else (width, height)

    def upright(self, image: np.ndarray) -> np.ndarray:
        """Mirror and turn an image.

        Args:
            image (np.ndarray): Shape (height, width, channels).

        Returns:
            np.ndarray: The image itself, or a contiguous one.
        """
        if not (self.transposed or self.flipped_x or self.flipped_y):
            return image
        if self.transposed:
            image = image.swapaxes(0, 1)
        image = image[:: -1 if self.flipped_y else 1, :: -1 if self.flipped_x else 1]
        return np.ascontiguousarray(image)

    def filters(self) -> list[tuple[str, str | None]]:
        """The same for FFmpeg.

        Returns:
            list[tuple[str, str | None]]: Names and arguments of filters.
        """
        transpose = [('transpose', 'cclock_flip')] if self.transposed else []
        flips = [('hflip', None)] * self.flipped_x + [('vflip', None)] * self.flipped_y
        return transpose + flips


@dataclass(frozen=True)
class Timeline:
    """When the frames of a stream are on screen.

    A frame stays until the next one begins, however long that takes. Where time stamps start again
    or jump by the range that they have, the frames behind follow those before. Frames before the
    first key frame, those that refer to frames before it, and those that an edit list hides do not
    count.

    Attributes:
        starts (np.ndarray): When each frame begins, from the first one, in the order in which they
            are shown; in time stamps, shape (n, ), int64.
        end (int): When the last one ends.
        origin (int): Time stamp of the first one.
        time_base (Fraction): Seconds of a time stamp.
        numbers (np.ndarray): For each packet of the file the number of its frame, -1 if it makes
            none that counts, shape (packets, ).
        first_packet (int): Packet to decode from.
        key_packets (np.ndarray): Packets that hold key frames, from that one on.
        is_counted (bool): Whether packets cannot tell when their frames are shown. Then ``numbers``
            are in no order, and the decoder's first frame is number 0, and so on.
        resets (np.ndarray): Seconds at which time stamps start again.
        spliced (frozenset): Numbers of the frames beside these and beside gaps of MPEG streams,
            which FFmpeg takes for damaged, as it misses what was between.
        num_leading (int): Packets before the first key frame, and those that need such.
    """

    starts: np.ndarray
    end: int
    origin: int
    time_base: Fraction
    numbers: np.ndarray
    first_packet: int
    key_packets: np.ndarray
    is_counted: bool
    resets: np.ndarray
    spliced: frozenset[int]
    num_leading: int

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def seconds(self) -> np.ndarray:
        """When each frame begins, in seconds, shape (n, )."""
        return self.starts * float(self.time_base)

    @property
    def duration(self) -> float:
        """From the first frame's begin to the last one's end, in seconds."""
        return float(self.end * self.time_base)

    @property
    def key_seconds(self) -> np.ndarray:
        """When key frames begin, in seconds, increasing."""
        numbers = self.numbers[self.key_packets]
        return self.seconds[np.sort(numbers[numbers >= 0])]

    def numbered(self, packets: Iterable[Packet], start: int = 0) -> Iterator[Packet | None]:
        """Let packets carry the numbers of their frames through the decoder.

        Args:
            packets (Iterable[Packet]): Packets of the file, in order.
            start (int): Number of the first of them. Defaults to 0, the start of the file.

        Yields:
            Packet or None: Packets with data, from ``first_packet`` on, whose ``pts`` is the number
            of the frame, or -1 if it does not count, or None where frames are counted. At the end
            None, which makes the decoder give what it holds back.
        """
        with_data = (packet for packet in packets if packet.size)
        for number, packet in zip(self.numbers[start:].tolist(), with_data, strict=False):
            start += 1
            if start > self.first_packet:
                packet.pts = None if self.is_counted else number
                yield packet
        yield None

    @property
    def is_steady(self) -> bool:
        """Whether frames are evenly spaced, up to the rounding of time stamps."""
        steps = np.diff(self.starts)
        return len(steps) == 0 or (steps.min() > 0 and np.ptp(steps) <= max(1, steps.min() // 100))


class PacketLog:
    """Time stamps of all packets of a stream, in the order of the file.

    Args:
        container (InputContainer): The file.
        stream (VideoStream): Its video stream.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.stream = stream
        self.format = container.format.name
        self.columns = [array('q') for _ in range(3)]  # pts, dts, duration
        self.flags = array('b')

    def __len__(self) -> int:
        return len(self.flags)

    def add(self, packet: Packet) -> None:
        """Note the next packet.

        Args:
            packet (Packet): A packet with data.
        """
        pts, dts, durations = self.columns
        pts.append(_UNKNOWN if packet.pts is None else packet.pts)
        dts.append(_UNKNOWN if packet.dts is None else packet.dts)
        durations.append(packet.duration or 0)
        is_hidden = packet.is_discard or not makes_frame(packet)
        self.flags.append(_KEY * packet.is_keyframe + _HIDDEN * is_hidden)

    def timeline(self, origin: int | None = None) -> Timeline:
        """Lay out the frames of these packets.

        Args:
            origin (int, optional): Time stamp of the file's first frame, where these packets are
                only its last ones. Defaults to None: they are all.

        Returns:
            Timeline: When each is shown.

        Raises:
            ValueError: If there are no frames.
        """
        pts, dts, durations = (np.frombuffer(column, np.int64) for column in self.columns)
        pts, dts = self._unwrapped(pts, dts)
        flags = np.frombuffer(self.flags, np.int8)
        keys = np.flatnonzero(flags & _KEY)
        if not len(keys):
            raise ValueError('no frame can be decoded: there is no key frame')
        first = int(keys[0])
        shown = (flags & _HIDDEN) == 0
        shown[:first] = False
        if not shown.any():
            raise ValueError('the video stream has no frames')
        # AVI has no times of presentation: FFmpeg takes them from the order of the packets, which
        # B-frames change. Bare streams have none at all.
        known = pts[shown] != _UNKNOWN
        is_counted = not known.all() or (
            self.format == 'avi' and bool(self.stream.codec_context.has_b_frames)
        )
        times = self._filled(pts, dts, durations, shown)
        times, resets = self._joined(times.copy(), dts, durations, flags, shown, first)
        packets = np.flatnonzero(shown)
        order = packets[np.argsort(times[packets], kind='stable')]
        numbers = np.full(len(flags), -1)
        numbers[order] = np.arange(len(order))
        starts = times[order]
        end = starts[-1] + self._last_length(
            starts, order, durations, starts[0] if origin is None else origin
        )
        return Timeline(
            starts - starts[0],
            int(end - starts[0]),
            int(starts[0]),
            self.stream.time_base,
            numbers,
            first,
            keys,
            is_counted,
            (times[resets] - starts[0]) * float(self.stream.time_base),
            frozenset(
                int(number)
                for splice in [*resets, *self._jumps(dts)]
                for number in numbers[max(0, splice - _BESIDE) : splice + 1]
            ),
            int(((flags & _HIDDEN) == 0).sum()) - len(order),
        )

    def _unwrapped(self, pts: np.ndarray, dts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Undo FFmpeg's guess which times of an MPEG stream, of 33 bits, are beyond an overflow."""
        known = dts != _UNKNOWN
        if not (self.format == 'mpegts' and known.any() and np.ptp(dts[known]) > _RANGE // 2):
            return pts, dts
        times = dts[known] % _RANGE
        steps = np.diff(times, prepend=times[:1])
        times += _RANGE * np.cumsum((steps < -_RANGE // 2).astype(int) - (steps > _RANGE // 2))
        shift = np.zeros_like(dts)
        shift[known] = times - dts[known]
        return np.where(pts == _UNKNOWN, pts, pts + shift), dts + shift

    def _filled(self, pts, dts, durations, shown) -> np.ndarray:
        """Times of presentation, made up where the file has none."""
        unknown = shown & (pts == _UNKNOWN)
        if not unknown.any():
            return pts
        step = self._step(durations[shown])
        rest = np.flatnonzero(shown & ~unknown)
        if len(rest) and not unknown[rest[0] :].any():  # Matroska has no times before zero
            times, ahead = pts.copy(), np.flatnonzero(unknown)
            times[ahead] = pts[rest].min() - step * np.arange(len(ahead), 0, -1)
            return times
        if (dts[shown] != _UNKNOWN).all():
            return dts
        return np.arange(len(pts)) * step

    def _joined(self, times, dts, durations, flags, shown, first):
        """Let frames behind a reset follow those before; hide what key frames cannot start."""
        begins = [first, *self._resets(times, dts, flags, first), len(times)]
        reach = None
        for begin, end in pairwise(begins):
            part = np.arange(begin, end)
            if flags[begin] & _KEY:
                shown[part] &= times[part] >= times[begin]
            part = part[shown[part]]
            if not len(part):
                continue
            if reach is not None:
                times[begin:end] += reach - times[part].min()
            last = part[np.argmax(times[part])]
            steps = np.diff(np.sort(times[part]))
            reach = times[last] + (durations[last] or self._step(steps))
        return times, begins[1:-1]

    def _jumps(self, dts: np.ndarray) -> np.ndarray:
        """Packets of an MPEG stream before which there is a gap."""
        if self.format != 'mpegts':
            return np.empty(0, int)
        known = np.flatnonzero(dts != _UNKNOWN)
        return known[1:][np.diff(dts[known]) > 1 / self.stream.time_base]

    def _resets(self, times, dts, flags, first) -> list[int]:
        """Packets at which time stamps start again."""
        back = _BACK / float(self.stream.time_base)
        known = np.flatnonzero(dts != _UNKNOWN)
        known = known[known >= first]
        resets = set(known[1:][np.diff(dts[known]) < -back].tolist())
        # All that comes before a key frame in a file is shown before it.
        reach = np.maximum.accumulate(times[first:])
        keys = first + np.flatnonzero(flags[first:] & _KEY)[1:]
        unknown = keys[dts[keys] == _UNKNOWN]
        resets.update(unknown[times[unknown] < reach[unknown - first - 1] - back].tolist())
        return sorted(resets)

    def _step(self, steps: np.ndarray) -> int:
        """Usual time stamps from frame to frame."""
        steps = steps[steps > 0]
        if len(steps):
            return int(np.median(steps))
        rate = self.stream.average_rate or self.stream.guessed_rate or 25
        return round(1 / (rate * self.stream.time_base))

    def _last_length(self, starts, order, durations, origin) -> int:
        """Length of the last frame, which no next one tells."""
        length = durations[order[-1]]
        steps = np.diff(starts)
        # MP4 has lengths in the order of decoding: they are those of other frames.
        if self.format.startswith('mov') and len(set(durations[order[-1] :].tolist())) > 1:
            length = origin + (self.stream.duration or 0) - starts[-1]
        return int(length) if length > 0 else self._step(steps)


def makes_frame(packet: Packet) -> bool:
    """Tell packets of hidden frames: VP8's alternate references (RFC 6386, 9.1).

    Args:
        packet (Packet): A packet with data.

    Returns:
        bool: False for these.
    """
    return packet.stream.codec_context.name != 'vp8' or bool(memoryview(packet)[0] & 0x10)


def missing_bytes(path: str, container: InputContainer, stream: VideoStream) -> int:
    """Count the bytes that a container says it has beyond the end of the file.

    Args:
        path (str): The file.
        container (InputContainer): The file, opened.
        stream (VideoStream): Its video stream.

    Returns:
        int: Number of bytes, 0 if there are none or the container does not say.
    """
    with open(path, 'rb') as file:
        head = file.read(64)
    if head.startswith(_EBML):  # its index lists where clusters begin, not frames
        listed = _end_of_segment(head)
    else:
        listed = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if head.startswith(b'RIFF'):
        listed = max(listed, int.from_bytes(head[4:8], 'little') + 8)
    return max(0, listed - container.size)


def _end_of_segment(head: bytes) -> int:
    """Where the segment of a Matroska file ends, 0 if it does not say (RFC 8794, section 4)."""
    header, begin = _element_size(head, 4)
    begin += header
    if head[begin : begin + 4] != _SEGMENT:
        return 0
    size, begin = _element_size(head, begin + 4)
    return begin + size if size else 0


def _element_size(data: bytes, position: int) -> tuple[int, int]:
    """Size of an element, 0 if unknown, and where its data begins."""
    length = 9 - data[position].bit_length()  # leading zeros tell the length of the number
    size = int.from_bytes(data[position : position + length], 'big') - (1 << 7 * length)
    return (0 if size == (1 << 7 * length) - 1 else size), position + length


def plain_timeline(path: str, codecs: Sequence[str]) -> Timeline | None:
    """Lay out a file if it is so plain that other decoders than PyAV read it exactly.

    That is MP4, MOV, Matroska or WebM that is complete, with a single video stream whose frames are
    evenly spaced, all of them shown as they are stored, whole frames in 8 bits and the usual
    colours, and whose key frames can be started from.

    Args:
        path (str): File that FFmpeg can open by this name.
        codecs (Sequence[str]): FFmpeg's names of codecs.

    Returns:
        Timeline or None: None for other files.

    Raises:
        VideoReadError: If there is no video stream, or no decoder for it.
        av.error.FFmpegError: If it cannot be read.
        ValueError: If it has no frames.
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
    """Whether nothing before a packet of H.264 in MP4 or Matroska is referred to behind it."""
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


def frames_in_order(
    path: str, container: InputContainer, stream: VideoStream
) -> Iterator[VideoFrame]:
    """Decode a file from its start, passing over what cannot be decoded before the first frame.

    Args:
        path (str): The file, for errors.
        container (InputContainer): The file, opened.
        stream (VideoStream): Its video stream.

    Yields:
        VideoFrame: Frames in the order in which they are shown.

    Raises:
        VideoReadError: If a later frame is damaged.
        av.error.FFmpegError: If a later one cannot be decoded.
    """
    key, is_first = None, True
    with closing(container.demux(stream)) as packets:  # one that is left to itself is never freed
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
                    yield frame
