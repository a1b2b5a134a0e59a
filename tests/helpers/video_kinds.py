"""Sound video files of every kind that decoders trip over, and what each shows when."""

import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from tests.conftest import digits, frame_index, write_video
from tests.helpers.faulty_videos import change_duration, wrong_duration
from tests.helpers.frame_videos import copy_packets

EVEN = np.arange(50) / 25
LONG = np.arange(100) / 25
_steps = np.random.default_rng(0).choice([0.02, 0.04, 0.12, 0.8], 99, p=[0.4, 0.4, 0.15, 0.05])
UNEVEN = np.concatenate([[0], np.cumsum(_steps)]).round(3)
SLIDES = np.array([0, 0.04, 0.08, 0.12, 3.5, 3.54, 3.58, 14, 14.04, 14.08, 14.12])


def as_stored(image: np.ndarray) -> np.ndarray:
    return image


@dataclass
class Kind:
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
        row: Further columns of its row.
    """

    ending: str
    make: Callable[[Path], object]
    times: Sequence[float] = field(default_factory=EVEN.copy)
    indices: Sequence[int] | None = None
    length: float = 0.04
    size: tuple[int, int] = (64, 48)
    back: Callable[[np.ndarray], np.ndarray] = as_stored
    notes: str = ''
    row: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.times = np.asarray(self.times, float)
        if self.indices is None:
            self.indices = np.arange(len(self.times))
        self.indices = np.asarray(self.indices)

    @property
    def duration(self) -> float:
        """Seconds to the end of the last frame."""
        return float(self.times[-1] + self.length)

    def found(self, frames: Iterable[np.ndarray]) -> list[int]:
        """What frames show."""
        return [frame_index(self.back(frame)) for frame in frames]

    def wanted(self) -> Iterator[np.ndarray]:
        """Times to ask for: the start, a boundary, the end and beyond, and at random."""
        rng = np.random.default_rng(0)
        middle = self.times[len(self.times) // 2]
        ends = [0.0, self.duration + 5, *self.times[-2:], *self.times[:2]]
        yield np.concatenate([ends, rng.uniform(0, self.duration, 12)])
        yield np.array([self.duration + 1000, 0.0, middle + 1e-3, middle])
        yield from rng.uniform(0, self.duration, (12, 3))

    def check(self, path: Path, backend: str = 'pyav', size: tuple[int, int] | None = None) -> None:
        """Fail if a decoder gives other frames of a file than those on screen."""
        from vito_mm.videos import decode_frames

        for wanted in self.wanted():
            durations = []
            frames, begins = decode_frames(
                path, lambda d, wanted=wanted, seen=durations: seen.append(d) or wanted, backend
            )
            position = np.searchsorted(self.times, wanted + 1e-4, side='right') - 1
            assert self.found(frames) == self.indices[position].tolist(), wanted
            np.testing.assert_allclose(begins, self.times[position], atol=2e-3)
            np.testing.assert_allclose(durations, self.duration, atol=2e-3)
            assert {frame.shape[1::-1] for frame in frames} == {size or self.size}


def video(path: Path, **arguments) -> Path:
    return write_video(path, **{'num_frames': 50} | arguments)


CODECS = {'libx264': 'h264', 'libx265': 'hevc', 'libvpx-vp9': 'vp9', 'libvpx': 'vp8'}
"""FFmpeg's names of codecs by those of encoders that are called otherwise."""


def layout(ending: str, notes: str = '', **arguments) -> Kind:
    """A file of 100 frames by ``write_video``."""
    times = arguments.get('times', LONG)
    codec, turned = arguments.get('codec', 'libx264'), arguments.get('rotation', 0)
    size = arguments.get('size', (64, 48))
    return Kind(
        ending,
        lambda path: write_video(path, **arguments),
        times - times[0],
        size=size[::-1] if turned % 180 else size,
        back=lambda image: np.rot90(image, -turned // 90),
        notes=notes,
        row=dict(
            codec=CODECS.get(codec, codec),
            pix_fmt=arguments.get('pix_fmt', 'yuv420p'),
            rotation=-turned % 360,
        ),
    )


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
        copy_packets(whole, path, change, to_options)
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
                image = digits(index if which else 99 - index, (stream.width, stream.height))
                frame = av.VideoFrame.from_ndarray(image, format='rgb24')
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())


def with_matrix(*numbers: float) -> Callable[[Path], None]:
    """A, b, c and d of the display matrix of an MP4 (ISO/IEC 14496-12, 8.3.2)."""

    return lambda path: set_matrix(video(path), numbers)


def set_matrix(path: Path, numbers: Sequence[float]) -> None:
    data = bytearray(path.read_bytes())
    start = data.index(b'tkhd') + 44
    a, b, c, d = (round(number * (1 << 16)) for number in numbers)
    data[start : start + 36] = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def with_aspect(width: int, height: int, **arguments) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        options = {'x264-params': f'sar={width}\\:{height}'}
        video(path, options=options, **arguments)

    return make


def short_header(path: Path) -> None:
    """A header that tells a quarter of the duration."""
    video(path)
    if path.suffix == '.mp4':
        change_duration(path, 1 / 4)
    data = bytearray(path.read_bytes())
    if path.suffix == '.mkv':
        start = data.index(b'\x44\x89\x88') + 3
        value = struct.unpack('>d', data[start : start + 8])[0]
        data[start : start + 8] = struct.pack('>d', value / 4)
    else:
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

KINDS: dict[str, Kind] = {
    'no B-frames': layout('mp4', options={'bf': '0'}),
    'B-frames': layout('mp4', gop=30, options={'bf': '3'}),
    'one key frame': layout('mp4', gop=250, options={'bf': '3', 'sc_threshold': '0'}),
    'all-intra': layout('mp4', gop=1),
    'open GOP': layout('mp4', options={'bf': '3', 'x264-params': 'open-gop=1'}),
    'intra refresh, no key frames': layout('mkv', options={'x264-params': 'intra-refresh=1'}),
    'varying rate': layout('mp4', times=UNEVEN, notes='the header says'),
    'varying rate, mkv': layout('mkv', times=UNEVEN),
    'late start': layout('mp4', times=LONG + 1.48),
    'late start, mkv': layout('mkv', times=LONG + 1.48),
    'late start, ts': layout('ts', times=LONG + 1.48),
    'turned by 90': layout('mp4', rotation=90),
    'turned by 180': layout('mp4', rotation=180),
    'turned by -90': layout('mp4', rotation=-90),
    'odd size': layout('mp4', size=(63, 47), pix_fmt='yuv444p'),
    'odd size, VP9': layout('mkv', size=(63, 47), codec='libvpx-vp9'),
    '10 bit': layout('mp4', pix_fmt='yuv420p10le'),
    'HEVC, 10 bit': layout(
        'mp4',
        codec='libx265',
        pix_fmt='yuv420p10le',
        options={'x265-params': 'log-level=none:keyint=12'},
    ),
    'VP9': layout('webm', codec='libvpx-vp9', options={'lag-in-frames': '16'}),
    'VP8 with hidden frames': layout(
        'webm', codec='libvpx', gop=50, options={'lag-in-frames': '16', 'auto-alt-ref': '1'}
    ),
    'MPEG-4': layout('mp4', codec='mpeg4', options={'bf': '2'}),
    'MPEG-4, avi': layout('avi', codec='mpeg4'),
    'MPEG-4 with B-frames, avi': layout('avi', codec='mpeg4', options={'bf': '2'}),
    'H.264, avi': layout('avi', gop=30, options={'bf': '2'}),
    'MPEG-2': layout(
        'mpg',
        notes='the header says',
        codec='mpeg2video',
        options={'bf': '2', 'qmin': '1', 'qmax': '2'},
    ),
    'flv': layout('flv'),
    'fragmented': layout(
        'mp4', container_options={'movflags': 'frag_keyframe+empty_moov+default_base_moof'}
    ),
    'audio is longer': layout('mkv', seconds_of_audio=8.0),
    **{
        f'slides, {ending}': Kind(
            ending, lambda path: video(path, times=SLIDES), SLIDES, notes='no new frame for 10.4 s'
        )
        for ending in ('mkv', 'ts', 'mp4')
    },
    'time starts again': Kind(
        'ts',
        joined(1, 1),
        np.arange(100) / 25,
        [*range(50), *range(50)],
        notes='start again at 2.00 s',
    ),
    'time goes back': Kind(
        'ts',
        joined(100, 7, 50),
        [*(np.arange(100) / 25), *(EVEN + 45)],
        [*range(50)] * 3,
        notes='start again at 2.00 s',
    ),
    'time jumps ahead': Kind(
        'ts', joined(1, 101), [*EVEN, *(EVEN + 100)], [*range(50)] * 2, notes='no new frame for 98'
    ),
    'bare H.264': Kind('h264', video),
    'bare HEVC': Kind(
        'hevc',
        lambda path: video(
            path, codec='libx265', options={'x265-params': 'log-level=none:keyint=12'}
        ),
    ),
    'interlaced': Kind(
        'mp4',
        lambda path: video(path, options={'flags': '+ildct+ilme'}),
        notes='interlaced',
    ),
    'cut, edit list': Kind(
        'mp4', copied(from_frame(18, 12), options=NO_B), EVEN[:32], np.arange(18, 50)
    ),
    'cut, negative start': Kind(
        'mkv',
        copied(from_frame(18, 12), to_options={'avoid_negative_ts': 'disabled'}, options=NO_B),
        EVEN[:38],
        np.arange(12, 50),
    ),
    'two tracks': Kind('mp4', two_tracks),
    'wide pixels': Kind('mp4', with_aspect(16, 11), size=(93, 48)),
    'narrow pixels, ts': Kind('ts', with_aspect(8, 9), size=(57, 48)),
    'times twice': Kind(
        'mkv',
        copied(repeated, options=NO_B),
        [time - (0.04 if index % 5 == 0 and index else 0) for index, time in enumerate(EVEN)],
    ),
    'long header': Kind('mp4', wrong_duration, np.arange(100) / 25),
    'short header, mp4': Kind('mp4', short_header, notes='the header says'),
    'short header, mkv': Kind('mkv', short_header, notes='the header says'),
    **{
        f'one frame, {ending}': Kind(
            ending, lambda path: video(path, num_frames=1), [0.0], notes='a single frame'
        )
        for ending in ('mp4', 'mkv', 'ts')
    },
    'gap': Kind(
        'mkv',
        copied(lambda number, packet: not 24 <= number < 36, options=NO_B),
        np.delete(EVEN, slice(24, 36)),
        np.delete(np.arange(50), slice(24, 36)),
    ),
    **{
        f'no key frame at the start, {ending}': Kind(
            ending,
            copied(lambda number, packet: number >= 5, options=NO_B),
            EVEN[:38],
            np.arange(12, 50),
            notes='before the first key frame',
        )
        for ending in ('mp4', 'mkv', 'ts')
    },
    **{
        f'broken beginning, {ending}': Kind(
            ending,
            broken_beginning,
            EVEN[:40],
            np.arange(10, 50),
            notes='before the first key frame',
        )
        for ending in ('mp4', 'mkv')
    },
    **{
        name: Kind(
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


def write_kinds(folder: Path) -> dict[str, Path]:
    """Write a file of each kind."""
    files = {}
    for index, (name, kind) in enumerate(KINDS.items()):
        files[name] = folder / f'{index}.{kind.ending}'
        kind.make(files[name])
    return files


if __name__ == '__main__':  # in a process of its own: folder, backend
    for number, (title, each) in enumerate(KINDS.items()):
        try:
            each.check(Path(sys.argv[1]) / f'{number}.{each.ending}', sys.argv[2])
        except AssertionError as error:
            print(f'{title}: {error}')
