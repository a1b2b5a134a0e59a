"""Inspection of a video stream: facts, damage and oddities of packets and frames. Needs PyAV."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import numpy as np

from vito_mm.videos.decoding import OpenedFile
from vito_mm.videos.description import Display, missing_bytes, opened
from vito_mm.videos.errors import VideoReadError
from vito_mm.videos.timeline import PacketLog

# FFmpeg's own VP9 decoder decodes overwritten bytes to noise and says nothing; libvpx notices.
_STRICTER_DECODERS = {'vp9': 'libvpx-vp9'}
_LONG_STILL = 10.0
"""Seconds without a new frame that are noted."""


def inspect_stream(
    path: str,
    source: OpenedFile,
    row: dict[str, Any],
    check: bool,
    max_pixels: int,
    on_frame: Callable[[Any, Any, Fraction], None] | None,
) -> None:
    """Add to a row what :func:`.integrity.inspect_video` says of a video stream.

    Raises:
        VideoReadError: If the file is bad; facts found until then are in the row.
    """
    reading = None
    with _logged_errors() as log:
        try:
            with opened(source.name, True, max_pixels) as (container, stream):
                row['codec'] = stream.codec_context.codec.canonical_name
                reading = _Reading(path, container, stream, check, on_frame)
                reading.scan(container, stream)
            log_of_demuxer = [entry for entry in log if entry[1] == reading.format]
            with opened(source.name, True, max_pixels) as (container, stream):
                log.clear()  # of the trial, which is repeated
                # Other flags of it found nothing more, nor did counting frames against packets.
                stream.codec_context.options |= {'err_detect': 'crccheck'}
                reading.decode(container, stream, log)
        except av.FFmpegError as error:
            if reading is not None:
                raise VideoReadError(
                    path, f'cut off or damaged: reading stops ({error.strerror})'
                ) from None
            if source.head[4:8] == b'ftyp' and any('moov atom' in message for *_, message in log):
                raise VideoReadError(path, 'cut off: the index (moov) is missing') from None
            raise VideoReadError(path, f'no known video format: {error.strerror}') from None
        finally:
            if reading is not None:
                row.update(reading.facts())
        reading.judge(row, [*log_of_demuxer, *log])


@contextmanager
def _logged_errors() -> Iterator[list[tuple[int, str, str]]]:
    """Collect the errors that FFmpeg only logs: they are evidence, and not for the screen."""
    level, skip_repeated = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as log:
            yield log
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skip_repeated)


class _Reading:
    """Two passes over a file: its packets, which have the times of frames, and its frames."""

    def __init__(self, path, container, stream, check, on_frame) -> None:
        self.path = path
        self.decode_all, self.on_frame = check or on_frame is not None, on_frame
        self.format = container.format.name
        self.names = {self.format, stream.codec_context.name}  # that messages in the log come from
        self.time_base = stream.time_base
        self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.declared = (container.duration or 0) / av.time_base
        self.missing = missing_bytes(container.name, container, stream)
        self.timeline = None
        self.span = [float('inf'), float('-inf')]  # seconds, of all streams
        self.display, self.first = Display(), None  # of the first frame, and that frame
        self.first_number = 0  # frames before it cannot be decoded
        self.num_decoded = self.num_corrupt = self.num_refused = 0
        self.damaged_at = None

    def scan(self, container, stream) -> None:
        """Read all packets."""
        packets = PacketLog(container, stream)
        try:
            for packet in container.demux():
                if packet.size and packet.stream is stream:
                    packets.add(packet)
                elif packet.size and packet.pts is not None:
                    length = packet.duration or 0
                    self._extend_span(packet.pts, packet.pts + length, packet.time_base)
        finally:
            with suppress(ValueError):  # no frames
                self.timeline = packets.timeline()
                origin = self.timeline.origin
                self._extend_span(origin, origin + self.timeline.end, self.time_base)

    def _extend_span(self, begin: int, end: int, time_base: Fraction) -> None:
        begin, end = float(begin * time_base), float(end * time_base)
        self.span = [min(self.span[0], begin), max(self.span[1], end)]

    def decode(self, container, stream, log: list) -> None:
        """Decode all frames, or the first one."""
        if self.timeline is None:
            return
        native = decoder = stream.codec_context
        stricter = _STRICTER_DECODERS.get(native.name) if self.decode_all else None
        if stricter in av.codecs_available:
            decoder = av.CodecContext.create(stricter, 'r')
            decoder.thread_count = 1
            self.names.add(stricter)
        counter = itertools.count() if self.timeline.is_counted else None
        is_start = True
        for packet in self.timeline.numbered(container.demux(stream)):
            if is_start:
                log.clear()  # of packets before the first key frame
                is_start = False
            if self.first is None and decoder is not native:  # only the native one has the display
                for frame in self._decode(native, packet, log, counted=False):
                    self._begin(stream, frame, log)
            for frame in self._decode(decoder, packet, log):
                number = frame.pts if counter is None else next(counter)
                if number is None or number < 0 or (self.first is None and frame.is_corrupt):
                    continue
                if self.first is None:
                    self._begin(stream, frame, log)
                    self.first_number = number
                if self.decode_all:
                    self._show(frame, number)
            if self.first is not None and not self.decode_all:
                break

    def _decode(self, decoder, packet, log: list, counted: bool = True) -> list:
        before = len(log)
        # What cannot be shown may refer to frames that are not there.
        is_excused = packet is not None and packet.pts == -1 and not packet.is_discard
        is_excused |= packet is not None and packet.pts in self.timeline.spliced
        if packet is not None and packet.is_corrupt and not is_excused:
            self.num_corrupt += counted
            self._blame(packet.pts)
        try:
            return decoder.decode(packet)
        except av.FFmpegError:
            if not is_excused:
                self.num_refused += counted
                self._blame(packet and packet.pts)
            return []
        finally:
            if is_excused:
                del log[before:]

    def _begin(self, stream, frame, log: list) -> None:
        """Take the first frame; errors about what could not be decoded before it do not matter."""
        if self.num_refused:
            self.num_refused, self.num_corrupt, self.damaged_at = 0, 0, None
            log.clear()
        self.first, self.display = frame, Display.of(stream, frame)

    def _show(self, frame, number: int) -> None:
        self.num_decoded += 1
        if frame.is_corrupt and number not in self.timeline.spliced:
            self.num_corrupt += 1
            self._blame(number)
        if self.on_frame is not None:
            starts, end = self.timeline.starts, self.timeline.end
            # The first frame replaces those before it that cannot be decoded.
            begin = 0 if self.num_decoded == 1 else int(starts[number])
            frame.pts, frame.time_base = begin, self.time_base
            frame.duration = int(starts[number + 1] if number + 1 < len(starts) else end) - begin
            self.on_frame(frame, self.display, self.rate)

    def _blame(self, number: int | None) -> None:
        if self.damaged_at is None and number is not None and number >= 0:
            self.damaged_at = float(self.timeline.seconds[number])

    def facts(self) -> dict[str, Any]:
        """Columns of the row."""
        facts = {}
        if (timeline := self.timeline) is not None:
            seconds = timeline.duration
            count = self.num_decoded if self.decode_all else len(timeline) - self.first_number
            marks = [*timeline.key_seconds.tolist(), seconds]
            spacings = [later - earlier for earlier, later in pairwise(marks)] or [seconds]
            facts.update(
                seconds=round(seconds, 6),
                fps=round(count / seconds, 3),
                num_frames=count,
                keyframe_interval={
                    'max': round(max(spacings), 3),
                    'mean': round(sum(spacings) / len(spacings), 3),
                },
            )
        if self.first is not None:
            width, height = self.display.size(self.first.width, self.first.height)
            pix_fmt, rotation = self.first.format.name, self.display.degrees
            facts.update(width=width, height=height, pix_fmt=pix_fmt, rotation=rotation)
        return facts

    def judge(self, row: dict[str, Any], log: list) -> None:
        """Raise if the file is bad, note what is odd."""
        begin, end = self.span if self.span[1] >= self.span[0] else (0.0, 0.0)
        declared = self.declared
        # Some count from the first packet, some (Matroska) from zero.
        present = min(end - begin, end, key=lambda seconds: abs(seconds - declared))
        disagree = declared and abs(declared - present) > max(0.5, 0.05 * declared)
        said = f'the header says {declared:.2f} s, the packets end at {present:.2f} s'
        messages = [
            message.strip()
            for level, name, message in log
            if level <= av.logging.ERROR and name in self.names
        ]
        if self.missing:
            raise VideoReadError(self.path, f'cut off: {self.missing} bytes are missing; {said}')
        if any('File ended prematurely' in message for message in messages):
            raise VideoReadError(self.path, f'cut off: {said}')
        if self.first is None:
            why = ': there is no key frame' if self.timeline is None else ''
            raise VideoReadError(self.path, f'no frame can be decoded{why}')
        if self.decode_all:
            row['checked'] = True
            self._judge_frames(messages)
        notes = [*([said] if disagree and not len(self.timeline.resets) else []), *self._oddities()]
        if notes:
            row['notes'] = '; '.join(notes)

    def _oddities(self) -> Iterator[str]:
        timeline = self.timeline
        if timeline.num_leading:
            yield f'{timeline.num_leading} frames before the first key frame are skipped'
        if self.first_number:
            yield (
                f'the first {timeline.seconds[self.first_number]:.2f} s cannot be decoded and show '
                'the first frame that can be'
            )
        if len(timeline.resets):
            times = ', '.join(f'{seconds:.2f}' for seconds in timeline.resets[:5])
            yield f'time stamps start again at {times} s and are taken to go on'
        steps = np.diff(timeline.seconds)
        if len(steps) and steps.max() >= _LONG_STILL:
            longest = int(steps.argmax())
            since = timeline.seconds[longest]
            yield f'no new frame for {steps[longest]:.1f} s from {since:.2f} s on'
        expected = len(timeline) - self.first_number
        if self.decode_all and self.num_decoded != expected:
            yield f'{expected} packets give {self.num_decoded} frames'
        if self.display.is_mirrored:
            yield 'shown mirrored'
        if self.first.interlaced_frame:
            yield 'interlaced: a frame holds two moments'
        if expected == 1:
            yield 'a single frame'

    def _judge_frames(self, messages: list[str]) -> None:
        found = [
            f'{number} {what}'
            for number, what in (
                (self.num_corrupt, 'corrupt frames or packets'),
                (self.num_refused, 'packets that cannot be decoded'),
                (len(messages), 'errors of the decoder'),
            )
            if number
        ]
        if found:
            where = '' if self.damaged_at is None else f', first at {self.damaged_at:.2f} s'
            what = f' ({messages[0][:80]})' if messages else ''
            raise VideoReadError(self.path, f'damaged: {", ".join(found)}{where}{what}')
