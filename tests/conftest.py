"""Fixtures that several tests share."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[1]


def write_video(
    path: Path,
    num_frames: int = 100,
    fps: int = 25,
    size: tuple[int, int] = (64, 48),
    gop: int = 12,
) -> Path:
    """Write an H.264 clip whose frame i is grey of level 2 i + 10, so that pixels tell the index.

    Args:
        path: File to write.
        num_frames: Number of frames, at most 120.
        fps: Frames per second.
        size: Width and height in pixels.
        gop: Frames between key frames.

    Returns:
        Path: The file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=fps, options={'g': str(gop), 'crf': '10'})
        stream.width, stream.height = size
        stream.pix_fmt = 'yuv420p'
        for index in range(num_frames):
            level = np.full((size[1], size[0], 3), 2 * index + 10, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(level, format='rgb24')))
        container.mux(stream.encode())
    return path


def frame_index(frame: np.ndarray) -> int:
    """Index of a frame that :func:`write_video` wrote, read from its pixels."""
    return round((float(frame.mean()) - 10) / 2)


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes a clip of known frames into the test's folder."""

    def make(name: str = 'clip.mp4', **kwargs) -> Path:
        return write_video(tmp_path / name, **kwargs)

    return make


@pytest.fixture
def video_folder(tmp_path: Path) -> Path:
    """A folder with six readable clips."""
    for index in range(6):
        write_video(tmp_path / 'videos' / f'{index}.mp4', num_frames=80)
    return tmp_path / 'videos'
