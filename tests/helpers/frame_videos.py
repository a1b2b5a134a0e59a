"""Videos kept as images, whose content at each time is known to the pixel; and any as a file."""

import json
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

FPS = 5
SIZE = 32
"""Height of the frames, which are 8 pixels wider: their centre is a square without resizing."""


def write_frames(folder: Path, frames: int, seed: int, label: int = 0) -> Path:
    """Write a video whose frames differ from each other nearly as much as from other videos."""
    folder.mkdir(parents=True)
    own = np.random.default_rng(seed).integers(0, 256, (4, 5, 3))
    for index in range(frames):
        noise = np.random.default_rng((seed, index)).integers(0, 256, (4, 5, 3))
        blocks = 0.35 * own + 0.55 * noise + 25 * (np.arange(3) == label)
        image = np.kron(blocks, np.ones((8, 8, 1))).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f'{index:03d}.png'), image)
    return folder


def write_videos(folder: Path, count: int = 15, frames: int = 16) -> Path:
    """Write labelled videos of three classes, and a manifest.

    Returns:
        Path: The manifest.
    """
    rows = []
    for number in range(count):
        write_frames(folder / f'video_{number}', frames, number, number % 3)
        rows.append(dict(path=f'video_{number}', label=number % 3, fps=FPS))
    return write_rows(folder / 'list.jsonl', rows)


def write_rows(file: Path, rows: list[dict]) -> Path:
    """Write a manifest."""
    file.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return file


def centre(file: Path) -> np.ndarray:
    """The square in the middle of a frame, BGR, shape (SIZE, SIZE, 3)."""
    return cv2.imread(str(file))[:, 4 : 4 + SIZE]


def encode(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: int = 25,
    codec: str = 'libx264',
    pix_fmt: str = 'yuv420p',
    size: tuple[int, int] | None = None,
    times: Sequence[float] | None = None,
    rotation: int = 0,
    seconds_of_audio: float = 0.0,
    container_options: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """Write RGB frames as a video file.

    ``times`` are in seconds, in place of ``fps``; ``rotation`` is in degrees, counter-clockwise, by
    which players turn the picture; the sound is silent; ``options`` are those of the encoder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    is_even = times is None or len(set(np.diff(times).round(6))) < 2
    base = Fraction(1, fps if is_even else 1000)
    with av.open(str(path), 'w', options=container_options or {}) as container:
        stream = container.add_stream(codec, fps, options=options)
        stream.pix_fmt, stream.codec_context.time_base = pix_fmt, base
        if rotation:
            stream.set_display_rotation(rotation)
        audio = container.add_stream('aac', rate=8000) if seconds_of_audio else None
        for index, image in enumerate(frames):
            if not stream.codec_context.is_open:
                stream.width, stream.height = size or image.shape[1::-1]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format='rgb24')
            time = index / fps if times is None else times[index]
            frame.pts, frame.time_base = round(time / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio:
            silence = np.zeros((1, int(8000 * seconds_of_audio)), np.float32)
            samples = av.AudioFrame.from_ndarray(silence, format='fltp', layout='mono')
            samples.sample_rate, samples.pts = 8000, 0
            container.mux([*audio.encode(samples), *audio.encode()])
    return path


def copy_packets(
    source: Path,
    target: Path,
    change: Callable[[int, av.Packet], bool],
    container_options: dict[str, str] | None = None,
) -> None:
    """Copy a video without sound, packet by packet.

    Args:
        source: The video.
        target: File to write.
        change: Called with each packet and its number, may change it; returns whether it stays.
        container_options: Options of the container.
    """
    options = container_options or {}
    with av.open(str(source)) as reader, av.open(str(target), 'w', options=options) as to:
        stream = to.add_stream_from_template(reader.streams.video[0])
        for number, packet in enumerate(reader.demux(video=0)):
            if packet.dts is not None and change(number, packet):
                packet.stream = stream
                to.mux(packet)
