"""Files as the web and disks leave them, each with what it may be made to do."""

import os
import random
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.conftest import write_video
from tests.helpers.frame_videos import copy_packets, encode


def truncated_index(path: Path) -> None:
    """An MP4 whose table of frames, at its end, is lost."""
    write_video(path)
    path.write_bytes(path.read_bytes()[:1200])


def truncated_data(path: Path) -> None:
    """An MP4 whose table of frames comes first, and half of whose frames are lost."""
    write_video(path, texture=0, container_options={'movflags': 'faststart'})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b'mdat') + (len(data) - data.index(b'mdat')) // 2])


def truncated_matroska(path: Path) -> None:
    write_video(path)
    path.write_bytes(path.read_bytes()[:300])


def empty(path: Path) -> None:
    path.touch()


def page(path: Path) -> None:
    path.write_text('<!doctype html><html><body>Video unavailable</body></html>' * 40)


def audio_only(path: Path) -> None:
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('aac', rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), 'f4'), 'fltp', 'mono')
        sound.sample_rate, sound.pts = 8000, 0
        container.mux([*stream.encode(sound), *stream.encode()])


def overwritten(path: Path) -> None:
    """Random bytes in the middle of the frames."""
    write_video(path, texture=0, container_options={'movflags': 'faststart'})
    data = bytearray(path.read_bytes())
    start = data.index(b'mdat')
    length = (len(data) - start) // 2
    start += length // 2
    noise = np.random.default_rng(0).integers(0, 256, length, dtype=np.uint8)
    data[start : start + len(noise)] = noise.tobytes()
    path.write_bytes(data)


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    """Opening it to read would wait for ever."""
    os.mkfifo(path)


def huge_frame(path: Path) -> None:
    """A header, of Matroska, that claims frames of 65,000 x 65,000 pixels."""
    write_video(path, codec='libvpx-vp9', num_frames=5, size=(300, 300))
    width, height = b'\xb0\x82\x01\x2c', b'\xba\x82\x01\x2c'
    data = path.read_bytes()
    assert width + height in data
    path.write_bytes(data.replace(width + height, b'\xb0\x82\xfd\xe8\xba\x82\xfd\xe8'))


UNREADABLE = {
    'truncated_index.mp4': truncated_index,
    'truncated.mkv': truncated_matroska,
    'empty.mp4': empty,
    'page.mp4': page,
    'audio_only.mp4': audio_only,
    'folder.mp4': folder,
    'pipe.mp4': pipe,
}
"""Files of which no frame can be read, and how they are made."""


def one_frame(path: Path) -> None:
    write_video(path, num_frames=1)


def change_duration(path: Path, factor: float) -> None:
    """Multiply the length that the header of an MP4 claims."""
    data = bytearray(path.read_bytes())
    for box, offset in ((b'mvhd', 20), (b'tkhd', 24), (b'mdhd', 20)):
        start = data.index(box) + offset
        value = int.from_bytes(data[start : start + 4], 'big')
        data[start : start + 4] = int(factor * value).to_bytes(4, 'big')
    path.write_bytes(data)


def wrong_duration(path: Path) -> None:
    """A header that claims ten times the length."""
    change_duration(write_video(path), 10)


def no_key_frame_at_the_start(path: Path) -> None:
    """A recording that begins between two key frames."""
    whole = path.with_name(f'whole_{path.name}')
    write_video(whole, gop=25, options={'sc_threshold': '0'})
    copy_packets(whole, path, lambda number, packet: number >= 5)
    whole.unlink()


def large_frames(path: Path) -> None:
    """8K."""
    write_video(path, num_frames=2, size=(7680, 4320), options={'preset': 'ultrafast'})


def write_moving(
    path: Path,
    codec: str = 'libx264',
    num_frames: int = 50,
    size: tuple[int, int] = (160, 120),
    **settings: Any,
) -> Path:
    """Write noise that moves, so that all bytes of the file matter; see :func:`encode`."""
    rng = np.random.default_rng(0)
    noise = np.kron(rng.integers(0, 256, (40, 50), dtype=np.uint8), np.ones((8, 8), np.uint8))

    def image(index: int) -> np.ndarray:
        gray = np.roll(noise, (2 * index, 3 * index), (0, 1))[: size[1], : size[0]]
        return np.stack([gray, gray // 2, 255 - gray], -1)

    return encode(path, map(image, range(num_frames)), codec=codec, size=size, **settings)


def cut(path: Path, part: float = 0.6) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    return path


def overwrite(path: Path, seed: int, num_bytes: int = 200) -> Path:
    """Copy of a file with random bytes somewhere in its middle."""
    rng = random.Random(seed)
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data) // 5, len(data) * 4 // 5 - num_bytes)
    data[start : start + num_bytes] = rng.randbytes(num_bytes)
    damaged = path.with_name(f'{seed}_{path.name}')
    damaged.write_bytes(data)
    return damaged
