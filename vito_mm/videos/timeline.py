"""Times at which the frames of a video stream are on screen, from its packets. Needs PyAV."""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

_UNKNOWN = -(2**63)
_KEY, _HIDDEN = 1, 2
_RANGE = 2**33
"""Time stamps of MPEG streams are below it."""
_BACK = 0.1
"""Seconds by which decoding times go back where a recording starts again; less is jitter."""
_NEAR = 4
"""Packets before a reset that FFmpeg may consider damaged; it notices late."""


@dataclass(frozen=True)
class Timeline:
    """Frames of a stream in the order in which they are shown, and their times.

    A frame stays until the next one begins, however long that takes. Where time stamps start again
    or jump by the range that they have, the frames after follow those before. Frames before the
    first key frame, those that refer to frames before it, and those that an edit list hides do not
    count.

    Attributes:
        starts (np.ndarray): Begin of each frame after the first one, in time stamps, shape (n, ),
            int64.
        end (int): End of the last frame.
        origin (int): Time stamp of the first one.
        time_base (Fraction): Seconds per time stamp.
        numbers (np.ndarray): Number of the frame of each packet of the file, -1 if it makes none
            that counts, shape (packets, ).
        first_packet (int): Packet to decode from.
        key_packets (np.ndarray): Packets that hold key frames, from that one on.
        is_counted (bool): Packets do not have the times of their frames. Then ``numbers`` are in no
            order, and the decoder's first frame is number 0, and so on.
        resets (np.ndarray): Seconds at which time stamps start again.
        spliced (frozenset): Numbers of the frames next to these and next to gaps of MPEG streams,
            which FFmpeg considers damaged, as it misses what was between.
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
        """Begin of each frame in seconds, shape (n, )."""
        return self.starts * float(self.time_base)

    @property
    def duration(self) -> float:
        """Seconds from the first frame's begin to the last one's end."""
        return float(self.end * self.time_base)

    @property
    def key_seconds(self) -> np.ndarray:
        """Begin of key frames in seconds, increasing."""
        numbers = self.numbers[self.key_packets]
        return self.seconds[np.sort(numbers[numbers >= 0])]

    @property
    def is_steady(self) -> bool:
        """True if frames are evenly spaced, up to the rounding of time stamps."""
        steps = np.diff(self.starts)
        return len(steps) == 0 or (steps.min() > 0 and np.ptp(steps) <= max(1, steps.min() // 100))

    def numbered(self, packets: Iterable[Packet], start: int = 0) -> Iterator[Packet | None]:
        """Let packets of the file, from number ``start`` on, carry the numbers of their frames.

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


class PacketLog:
    """Time stamps of all packets of a stream, in the order of the file."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.stream = stream
        self.format = container.format.name
        self.columns = [array('q') for _ in range(3)]  # pts, dts, duration
        self.flags = array('b')

    def __len__(self) -> int:
        return len(self.flags)

    def add(self, packet: Packet) -> None:
        """Note the next packet that has data."""
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
        # AVI has no times of presentation: FFmpeg infers them from the order of the packets, which
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
                for number in numbers[max(0, splice - _NEAR) : splice + 1]
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
        """Times of presentation, estimated where the file has none."""
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
        """Let frames after a reset follow those before; hide what key frames cannot start."""
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
        """Length of the last frame, which no next frame gives."""
        length = durations[order[-1]]
        steps = np.diff(starts)
        # MP4 has lengths in the order of decoding: they are those of other frames.
        if self.format.startswith('mov') and len(set(durations[order[-1] :].tolist())) > 1:
            length = origin + (self.stream.duration or 0) - starts[-1]
        return int(length) if length > 0 else self._step(steps)


def makes_frame(packet: Packet) -> bool:
    """False for hidden frames: VP8's alternate references (RFC 6386, 9.1)."""
    return packet.stream.codec_context.name != 'vp8' or bool(memoryview(packet)[0] & 0x10)
