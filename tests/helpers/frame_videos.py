"""Videos kept as images, whose content at each time is known to the pixel; and any as a file."""

import json
from collections.abc import Iterable
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
    **options: str,
) -> Path:
    """Write RGB frames of one size as a video file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, fps, options=options)
        stream.pix_fmt = pix_fmt
        for image in frames:
            if not stream.codec_context.is_open:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
