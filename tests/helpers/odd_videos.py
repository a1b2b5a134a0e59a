"""Sound video files of which some reader gets the times, the frames or their shape wrong."""

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from tests.conftest import frame_index, write_video
from tests.helpers.faulty_videos import wrong_duration

EVEN = np.arange(50) / 25
SLIDES = np.array([0, 0.04, 0.08, 0.12, 3.5, 3.54, 3.58, 14, 14.04, 14.08, 14.12])
UNIT = 1 << 16


def as_stored(image: np.ndarray) -> np.ndarray:
    return image


@dataclass
class Odd:
    """A kind of file.

    Attributes:
        ending: Of its name.
        make: Writes it.
        times: When its frames begin, in seconds from the first one.
        indices: What they show, by ``frame_index``. Defaults to 0, 1, 2, ...
        length: Seconds that the last one lasts.
        size: Width and height as shown.
        back: Turns a frame as shown into one that ``frame_index`` can read.
        notes: Word that the notes of its row have.
    """

    ending: str
    make: Callable[[Path], object]
    times: Sequence[float] = field(default_factory=EVEN.copy)
    indices: Sequence[int] | None = None
    length: float = 0.04
    size: tuple[int, int] = (64, 48)
    back: Callable[[np.ndarray], np.ndarray] = as_stored
    notes: str = ''

    def __post_init__(self) -> None:
        self.times = np.asarray(self.times, float)
        if self.indices is None:
            self.indices = np.arange(len(self.times))
        self.indices = np.asarray(self.indices)

    @property
    def duration(self) -> float:
        """Seconds to the end of the last frame."""
        return float(self.times[-1] + self.length)

    def on_screen(self, times: np.ndarray) -> np.ndarray:
        """What the frames on screen show."""
        return self.indices[np.searchsorted(self.times, np.asarray(times) + 1e-4, 'right') - 1]

    def found(self, frames: Iterable[np.ndarray]) -> list[int]:
        """What frames show."""
        return [frame_index(self.back(frame)) for frame in frames]


def video(path: Path, **arguments) -> Path:
    return write_video(path, **{'num_frames': 50} | arguments)


def joined(*offsets: float) -> Callable[[Path], None]:
    """Recordings one behind the other, whose time stamps begin at some seconds each."""

    def make(path: Path) -> None:
        parts = []
        for offset in offsets:
            part = path.with_name(f'part_{path.name}')
            parts.append(video(part, times=EVEN + offset).read_bytes())
            part.unlink()
        path.write_bytes(b''.join(parts))

    return make


def copied(
    change: Callable[[int, av.Packet], bool], to_options: dict | None = None, **arguments
) -> Callable[[Path], None]:
    """Packets of another file, each changed, or left out where ``change`` returns False."""

    def make(path: Path) -> None:
        whole = video(path.with_name('whole.mp4'), **{'gop': 12} | arguments)
        with av.open(str(whole)) as reader, av.open(str(path), 'w', options=to_options or {}) as to:
            stream = to.add_stream_from_template(reader.streams.video[0])
            for number, packet in enumerate(reader.demux(video=0)):
                if packet.dts is not None and change(number, packet):
                    packet.stream = stream
                    to.mux(packet)
        whole.unlink()

    return make


def from_frame(first: int, key: int) -> Callable[[int, av.Packet], bool]:
    """A cut at a frame: what is needed from its key frame on is kept, at times before zero."""

    def change(number: int, packet: av.Packet) -> bool:
        packet.pts -= round(first / 25 / packet.time_base)
        packet.dts -= round(first / 25 / packet.time_base)
        return number >= key

    return change


def repeated(number: int, packet: av.Packet) -> bool:
    """Every fifth frame has the time of the one before."""
    if number % 5 == 0 and number:
        step = round(1 / 25 / packet.time_base)
        packet.pts -= step
        packet.dts = packet.pts
    return True


def two_tracks(path: Path) -> None:
    """A small one, then the large one that FFmpeg calls the best."""
    with av.open(str(path), 'w') as container:
        streams = []
        for width, height in ((32, 24), (64, 48)):
            stream = container.add_stream('libx264', rate=25, options={'crf': '10'})
            stream.width, stream.height = width, height
            stream.disposition = Disposition.default if width == 64 else Disposition(0)
            streams.append(stream)
        for index in range(50):
            for which, stream in enumerate(streams):
                image = np.empty((stream.height, stream.width, 3), np.uint8)
                tens, ones = divmod(index if which else 99 - index, 10)
                image[:, : stream.width // 2] = 16 * tens + 20
                image[:, stream.width // 2 :] = 16 * ones + 20
                frame = av.VideoFrame.from_ndarray(image, format='rgb24')
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())


def with_matrix(*numbers: float) -> Callable[[Path], None]:
    """A, b, c and d of the display matrix of an MP4 (ISO/IEC 14496-12, 8.3.2)."""

    def make(path: Path) -> None:
        data = bytearray(video(path).read_bytes())
        start = data.index(b'tkhd') + 44
        a, b, c, d = (round(number * UNIT) for number in numbers)
        data[start : start + 36] = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 1 << 30)
        path.write_bytes(data)

    return make


def with_aspect(width: int, height: int, **arguments) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        options = {'x264-params': f'sar={width}\\:{height}'}
        video(path, options=options, **arguments)

    return make


def short_header(path: Path) -> None:
    """A header that tells a quarter of the duration."""
    data = bytearray(video(path).read_bytes())
    if path.suffix == '.mkv':
        start = data.index(b'\x44\x89\x88') + 3
        value = struct.unpack('>d', data[start : start + 8])[0]
        data[start : start + 8] = struct.pack('>d', value / 4)
    else:
        for box, offset in ((b'mvhd', 20), (b'tkhd', 24), (b'mdhd', 20)):
            start = data.index(box) + offset
            value = int.from_bytes(data[start : start + 4], 'big')
            data[start : start + 4] = (value // 4).to_bytes(4, 'big')
        start = data.index(b'elst')  # which would hide the rest
        data[start : start + 4] = b'free'
    path.write_bytes(data)


def broken_beginning(path: Path) -> None:
    """A first key frame of zeros."""
    video(path, gop=10, options={'bf': '0', 'sc_threshold': '0'})
    with av.open(str(path)) as container:
        packet = next(container.demux(video=0))
        place, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    if path.suffix == '.mkv':
        place = data.index(bytes(packet)[:40])
    data[place : place + size] = bytes(size)
    path.write_bytes(data)


def mirror(image: np.ndarray) -> np.ndarray:
    return image[:, ::-1]


NO_B = {'bf': '0', 'sc_threshold': '0'}
MATRICES = {
    'none': ((1, 0, 0, 1), as_stored),
    'mirrored': ((-1, 0, 0, 1), mirror),
    'upside down': ((1, 0, 0, -1), np.flipud),
    'turned by 180': ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    'transposed': ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    'turned clockwise': ((0, 1, -1, 0), np.rot90),
    'turned counter-clockwise': ((0, -1, 1, 0), lambda image: np.rot90(image, -1)),
    'transversed': ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
    'turned by 30 degrees': ((0.866, 0.5, -0.5, 0.866), as_stored),
}
"""Display matrices; ``back`` undoes them. The last one is not followed, as in FFmpeg's tools."""

ODD: dict[str, Odd] = {
    **{
        f'slides, {ending}': Odd(
            ending, lambda path: video(path, times=SLIDES), SLIDES, notes='no new frame for 10.4 s'
        )
        for ending in ('mkv', 'ts', 'mp4')
    },
    'time starts again': Odd(
        'ts',
        joined(1, 1),
        np.arange(100) / 25,
        [*range(50), *range(50)],
        notes='start again at 2.00 s',
    ),
    'time goes back': Odd(
        'ts',
        joined(100, 7, 50),
        [*(np.arange(100) / 25), *(EVEN + 45)],
        [*range(50)] * 3,
        notes='start again at 2.00 s',
    ),
    'time jumps ahead': Odd(
        'ts', joined(1, 101), [*EVEN, *(EVEN + 100)], [*range(50)] * 2, notes='no new frame for 98'
    ),
    'bare H.264': Odd('h264', video),
    'bare HEVC': Odd(
        'hevc',
        lambda path: video(
            path, codec='libx265', options={'x265-params': 'log-level=none:keyint=12'}
        ),
    ),
    'interlaced': Odd(
        'mp4',
        lambda path: video(path, options={'flags': '+ildct+ilme'}),
        notes='interlaced',
    ),
    'cut, edit list': Odd(
        'mp4', copied(from_frame(18, 12), options=NO_B), EVEN[:32], np.arange(18, 50)
    ),
    'cut, negative start': Odd(
        'mkv',
        copied(from_frame(18, 12), to_options={'avoid_negative_ts': 'disabled'}, options=NO_B),
        EVEN[:38],
        np.arange(12, 50),
    ),
    'two tracks': Odd('mp4', two_tracks),
    'wide pixels': Odd('mp4', with_aspect(16, 11), size=(93, 48)),
    'narrow pixels, ts': Odd('ts', with_aspect(8, 9), size=(57, 48)),
    'times twice': Odd(
        'mkv',
        copied(repeated, options=NO_B),
        [time - (0.04 if index % 5 == 0 and index else 0) for index, time in enumerate(EVEN)],
    ),
    'long header': Odd('mp4', wrong_duration, np.arange(100) / 25),
    'short header, mp4': Odd('mp4', short_header, notes='the header says'),
    'short header, mkv': Odd('mkv', short_header, notes='the header says'),
    **{
        f'one frame, {ending}': Odd(
            ending, lambda path: video(path, num_frames=1), [0.0], notes='a single frame'
        )
        for ending in ('mp4', 'mkv', 'ts')
    },
    'gap': Odd(
        'mkv',
        copied(lambda number, packet: not 24 <= number < 36, options=NO_B),
        np.delete(EVEN, slice(24, 36)),
        np.delete(np.arange(50), slice(24, 36)),
    ),
    **{
        f'no key frame at the start, {ending}': Odd(
            ending,
            copied(lambda number, packet: number >= 5, options=NO_B),
            EVEN[:38],
            np.arange(12, 50),
            notes='before the first key frame',
        )
        for ending in ('mp4', 'mkv', 'ts')
    },
    **{
        f'broken beginning, {ending}': Odd(
            ending,
            broken_beginning,
            EVEN[:40],
            np.arange(10, 50),
            notes='before the first key frame',
        )
        for ending in ('mp4', 'mkv')
    },
    **{
        name: Odd(
            'mp4',
            with_matrix(*numbers),
            size=(64, 48) if numbers[0] else (48, 64),
            back=back,
            notes='mirrored' if np.linalg.det(np.reshape(numbers, (2, 2))) < 0 else '',
        )
        for name, (numbers, back) in MATRICES.items()
    },
}
"""Kinds of files by what is odd about them."""


def write_odd(folder: Path) -> dict[str, Path]:
    """Write a file of each kind."""
    files = {}
    for index, (name, odd) in enumerate(ODD.items()):
        files[name] = folder / f'{index}.{odd.ending}'
        odd.make(files[name])
    return files
