"""What a video file holds, and whether all of it can be read. Needs PyAV, imported where used."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np

from vito_mm.videos.decoding import opened_file
from vito_mm.videos.errors import VideoReadError
from vito_mm.videos.file_checks import CANNOT_READ, MAX_PIXELS, TOO_LARGE, check_file
from vito_mm.videos.frame_archives import inspect_frame_archive, sha256_of, size_and_time

OK, BAD = 'ok', 'bad'
"""The two verdicts."""

# FFmpeg's own VP9 decoder decodes overwritten bytes to noise and says nothing; libvpx notices.
_STRICTER_DECODERS = {'vp9': 'libvpx-vp9'}
_LONG_STILL = 10.0
"""Seconds without a new frame that are noted."""


def inspect_video(
    path: str | os.PathLike,
    check: bool = False,
    expected_sha256: str | None = None,
    max_pixels: int = MAX_PIXELS,
    on_frame: Callable[[Any, Any, Fraction], None] | None = None,
    fps: float | None = None,
) -> dict[str, Any]:
    """Tell what is in a video file and whether it can be read.

    Folders, tars and images are what they are to training, see
    :func:`vito_mm.videos.decode_frames`.

    All packets are read and the first key frame is decoded, which finds files that are no videos,
    cut off or undecodable. Damage in the middle shows only when every frame is decoded (``check``):
    a packet or frame that FFmpeg marks as corrupt, a packet that the decoder refuses, or an error
    that decoder or demuxer log. Measured by overwriting 200 bytes, at 100 places a file drawn from
    its middle four fifths, in files of 75 frames of 320 x 240:

    =========================  ==================  ===================
    found in percent           by reading packets  by decoding (check)
    =========================  ==================  ===================
    H.264 in mp4               0                   82
    H.264 in mp4, GOP of 1     0                   99
    H.264 in mp4, no CABAC     0                   99
    H.264 in mkv, in ts        0                   87, 86
    VP9 in webm                1                   99
    MPEG-4 in avi              0                   100
    MPEG-2 in ts               0                   99
    AV1 in mp4                 9                   100
    HEVC in mp4                5                   50
    VP8 in webm                1                   13
    =========================  ==================  ===================

    with no false alarm on 420 intact H.264 files and one or two of each format above. FFmpeg's own
    VP9 decoder finds 14 percent, so libvpx checks VP9. The flags of ``err_detect`` (``bitstream``,
    ``buffer``, ``careful``, ``explode``) and counting frames against packets found nothing more;
    ``crccheck`` is set for streams that carry check sums. Sound is not decoded. A hash that differs
    from a known one (``expected_sha256``) finds all damage, whatever the decoder says.

    Args:
        path: Video file.
        check: Whether to decode all frames. Defaults to False.
        expected_sha256: Hash that the file should have. Defaults to None, any.
        max_pixels: Largest believable number of pixels in a frame. Defaults to MAX_PIXELS.
        on_frame: Called with every decoded frame (``av.VideoFrame``; its ``pts`` and ``duration``
            say when it is shown, from the first frame), how it is shown
            (``vito_mm.videos.description.Display``), and the mean frame rate that the header
            tells; turns ``check`` on. Its errors are passed on, other than OSError.
        fps: Frames per second of a folder or tar of images. Defaults to None, 25.

    Returns:
        dict[str, Any]: As far as they could be told, else absent:

        - ``path``;
        - ``seconds`` (float): from the start of the first frame to the end of the last;
        - ``fps`` (float): mean frame rate, frames by seconds;
        - ``num_frames`` (int): frames from the first one on that can be decoded;
        - ``width``, ``height`` (int): as shown, turned and with square pixels;
        - ``codec``, ``pix_fmt`` (str): FFmpeg's names;
        - ``rotation`` (int): degrees clockwise that stored frames are turned to be shown: 0, 90,
          180 or 270;
        - ``keyframe_interval`` (dict): seconds between key frames, the end counting as one, as
          ``max`` and ``mean``;
        - ``bytes``, ``mtime_ns`` (int): size and time of change of the file;
        - ``sha256`` (str): hash of the file. Absent if the file could not be read through, which
          says nothing about its bytes (e.g. no permission);
        - ``checked`` (bool): True if all frames were decoded;
        - ``verdict`` (str): ``'ok'`` or ``'bad'``;
        - ``reason`` (str): why it is bad, in one line; what comes before a colon has no numbers;
        - ``expected_sha256`` (str): only if the file's hash differs from it;
        - ``notes`` (str): what is odd about a readable file, in one line.

        A file of a single frame is ok, with a note.

    Raises:
        ImportError: If PyAV is not installed.
    """
    av = import_av()
    path = os.fspath(path)
    row: dict[str, Any] = {'path': path}
    try:
        check_file(path)
        row['bytes'], row['mtime_ns'] = size_and_time(path)
        row['sha256'] = sha256_of(path)
        if expected_sha256 not in (None, row['sha256']):
            row['expected_sha256'] = expected_sha256
            raise VideoReadError(path, 'its bytes are not those that the manifest has the hash of')
        with opened_file(path, fps) as source:
            if source.images is not None:
                inspect_frame_archive(source.images, row, check, max_pixels, on_frame)
            else:
                with _logged_errors(av) as log:
                    _read_stream(path, source, row, log, check, max_pixels, on_frame)
        row['verdict'] = OK
    except VideoReadError as error:
        row.update(verdict=BAD, reason=' '.join(error.reason.split()))
        if error.reason.startswith((TOO_LARGE, CANNOT_READ)):
            row.pop('sha256', None)  # another limit may be set, the disk be there again
    except OSError as error:
        row.pop('sha256', None)
        row.update(verdict=BAD, reason=f'{CANNOT_READ}: {error.strerror}')
    if _has_changed(row):
        row.pop('sha256', None)
        row.update(verdict=BAD, reason='is written to while it is read')
    return row


def _has_changed(row: dict[str, Any]) -> bool:
    """Whether a file is not as it was when its reading began."""
    try:
        return 'bytes' in row and (row['bytes'], row['mtime_ns']) != size_and_time(row['path'])
    except OSError:
        return True


def import_av() -> ModuleType:
    """Import PyAV.

    Returns:
        ModuleType: The module ``av``.

    Raises:
        ImportError: If it is not installed; names the remedy.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError('preparing videos needs PyAV: pip install "vito_mm[video]"') from error
    return av


@contextmanager
def _logged_errors(av: ModuleType) -> Iterator[list[tuple[int, str, str]]]:
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


def _read_stream(path, source, row, log, check, max_pixels, on_frame) -> None:
    av, head = import_av(), source.head
    from vito_mm.videos.description import opened

    reading = None
    try:
        with opened(source.name, True, max_pixels) as (container, stream):
            row['codec'] = stream.codec_context.codec.canonical_name
            reading = _Reading(path, container, stream, check, on_frame)
            reading.scan(container, stream)
        log_of_demuxer = [entry for entry in log if entry[1] == reading.format]
        with opened(source.name, True, max_pixels) as (container, stream):
            log.clear()  # of the trial, which is repeated
            stream.codec_context.options |= {'err_detect': 'crccheck'}
            reading.decode(container, stream, log)
    except av.FFmpegError as error:
        if reading is not None:
            raise VideoReadError(
                path, f'cut off or damaged: reading stops ({error.strerror})'
            ) from None
        if head[4:8] == b'ftyp' and any('moov atom' in message for _, _, message in log):
            raise VideoReadError(path, 'cut off: the index (moov) is missing') from None
        raise VideoReadError(path, f'no known video format: {error.strerror}') from None
    finally:
        if reading is not None:
            row.update(reading.facts())
    reading.judge(row, [*log_of_demuxer, *log])


class _Reading:
    """Two passes over a file: its packets, which tell when frames are shown, and its frames."""

    def __init__(self, path, container, stream, check, on_frame) -> None:
        from vito_mm.videos.description import Display, missing_bytes

        self.path = path
        self.decode_all, self.on_frame = check or on_frame is not None, on_frame
        self.format = container.format.name
        self.names = {self.format, stream.codec_context.name}  # that messages in the log come from
        self.time_base = stream.time_base
        self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.declared = (container.duration or 0) / import_av().time_base
        self.missing = missing_bytes(path, container, stream)
        self.timeline = None
        self.span = [float('inf'), float('-inf')]  # seconds, of all streams
        self.display, self.first = Display(), None  # of the first frame, and that frame
        self.first_number = 0  # frames before it cannot be decoded
        self.num_packets = self.num_decoded = self.num_corrupt = self.num_refused = 0
        self.damaged_at = None

    def scan(self, container, stream) -> None:
        """Read all packets."""
        from vito_mm.videos.description import PacketLog

        packets = PacketLog(container, stream)
        try:
            for packet in container.demux():
                if packet.size and packet.stream is stream:
                    packets.add(packet)
                elif packet.size and packet.pts is not None:
                    length = packet.duration or 0
                    self._extend_span(packet.pts, packet.pts + length, packet.time_base)
        finally:
            self.num_packets = len(packets)
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
        codecs = import_av().codecs_available
        stricter = _STRICTER_DECODERS.get(native.name) if self.decode_all else None
        if stricter in codecs:
            decoder = import_av().CodecContext.create(stricter, 'r')
            decoder.thread_count = 1
            self.names.add(stricter)
        counter = itertools.count() if self.timeline.is_counted else None
        is_start = True
        for packet in self.timeline.numbered(container.demux(stream)):
            if is_start:
                log.clear()  # of packets before the first key frame
                is_start = False
            if self.first is None and decoder is not native:  # which alone knows how it is shown
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
        except import_av().FFmpegError:
            if not is_excused:
                self.num_refused += counted
                self._blame(packet and packet.pts)
            return []
        finally:
            if is_excused:
                del log[before:]

    def _begin(self, stream, frame, log: list) -> None:
        """Take the first frame; errors about what could not be decoded before it do not matter."""
        from vito_mm.videos.description import Display

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
            # The first frame stands for those that cannot be decoded.
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
        if self.timeline is not None:
            timeline = self.timeline
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
        av = import_av()
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
            yield f'{timeline.num_leading} frames before the first key frame are left out'
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
