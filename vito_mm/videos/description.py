"""Facts about an opened video file: its stream, its orientation and whether it is complete.

Training, preparation, re-encoding, curation and all decoders use them. Needs PyAV.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .containers import open_container
from .errors import VideoReadError
from .file_checks import MAX_PIXELS, check_pixels

_EBML, _SEGMENT = b'\x1a\x45\xdf\xa3', b'\x18\x53\x80\x67'
_WITHOUT_TRIAL = frozenset((None, 'vp8', 'vp9', 'av1', 'libdav1d'))


@contextmanager
def opened(
    path: str, trial: bool = False, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open FFmpeg's best video stream of a file, never a cover picture, for one decoding thread.

    With ``trial`` FFmpeg decodes the first frames in any case, which gives facts that the header
    lacks.

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
        decoder.options = {'max_pixels': str(max_pixels)}  # where the header does not say
        yield container, stream


def _open(path: str, trial: bool) -> tuple[InputContainer, list[VideoStream]]:
    if not trial:
        # Opening a decoder by trial costs more than all else together, and the first packet gives
        # the same facts. Only these containers have in their header what FFmpeg needs to know of
        # the order of frames; the trial is for the others, and for a choice between streams.
        # Captured, as torchvision < 0.26 lets FFmpeg say on the screen what it is not allowed.
        with suppress(ValueError), av.logging.Capture():  # no streams before they are searched
            container = open_container(path, codec_whitelist='none')
            streams = _videos(container)
            codecs = {stream.codec_context and stream.codec_context.name for stream in streams}
            is_known = container.format.name.startswith('mov') or codecs <= _WITHOUT_TRIAL
            if is_known and len(streams) < 2:
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
    """Orientation and pixel aspect ratio by which stored frames are shown.

    Attributes:
        aspect (Fraction): Width of a pixel by its height.
        transposed (bool): Rows become columns, before the other two.
        flipped_x (bool): Left and right are exchanged.
        flipped_y (bool): Top and bottom are exchanged.
    """

    aspect: Fraction = Fraction(1)
    transposed: bool = False
    flipped_x: bool = False
    flipped_y: bool = False

    @classmethod
    def of(cls, stream: VideoStream, frame: VideoFrame) -> 'Display':
        """Read it from a decoded frame and its stream; the container has precedence.

        A display matrix that does more than mirror and turn by quarters is ignored, as is a pixel
        aspect ratio that is not positive.
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
        """True if left and right are exchanged before frames are turned."""
        return (self.transposed + self.flipped_x + self.flipped_y) % 2 == 1

    @property
    def degrees(self) -> int:
        """Degrees clockwise by which frames are turned: 0, 90, 180 or 270."""
        if self.transposed:
            return 90 if self.flipped_x else 270
        return 180 if self.flipped_y else 0

    def square(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a frame scaled to square pixels, before it is turned."""
        return max(1, round(width * self.aspect)), height

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a frame as shown."""
        width, height = self.square(width, height)
        return (height, width) if self.transposed else (width, height)

    def upright(self, image: np.ndarray) -> np.ndarray:
        """Mirror and turn an image of shape (height, width, channels)."""
        if not (self.transposed or self.flipped_x or self.flipped_y):
            return image
        if self.transposed:
            image = image.swapaxes(0, 1)
        image = image[:: -1 if self.flipped_y else 1, :: -1 if self.flipped_x else 1]
        return np.ascontiguousarray(image)

    def filters(self) -> list[tuple[str, str | None]]:
        """Names and arguments of the FFmpeg filters that do what :meth:`upright` does."""
        transpose = [('transpose', 'cclock_flip')] if self.transposed else []
        flips = [('hflip', None)] * self.flipped_x + [('vflip', None)] * self.flipped_y
        return transpose + flips


def missing_bytes(path: str, container: InputContainer, stream: VideoStream) -> int:
    """Count the bytes that a container claims beyond the end of the file, 0 if it does not say."""
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
    """End of the segment of a Matroska file, 0 if it does not say (RFC 8794, section 4)."""
    header, begin = _element_size(head, 4)
    begin += header
    if head[begin : begin + 4] != _SEGMENT:
        return 0
    size, begin = _element_size(head, begin + 4)
    return begin + size if size else 0


def _element_size(data: bytes, position: int) -> tuple[int, int]:
    """Size of an element, 0 if unknown, and where its data begins."""
    length = 9 - data[position].bit_length()  # leading zeros give the length of the number
    size = int.from_bytes(data[position : position + length], 'big') - (1 << 7 * length)
    return (0 if size == (1 << 7 * length) - 1 else size), position + length
