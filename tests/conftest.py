"""Fixtures that several tests share."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

# Networks of tests have at least 16 channels: with 8 or fewer, torch 2.11's backward pass of a 1x1
# convolution of stride 2 in channels-last format corrupts memory on CPUs.
REPO = Path(__file__).resolve().parents[1]


def write_video(
    path: Path,
    num_frames: int = 100,
    fps: int = 25,
    size: tuple[int, int] = (64, 48),
    gop: int = 12,
    texture: int | None = None,
) -> Path:
    """Write an H.264 clip that tells its frame index: tens in the left half, ones in the right.

    Args:
        path: File to write.
        num_frames: Number of frames, at most 140.
        fps: Frames per second.
        size: Width and height in pixels.
        gop: Frames between key frames.
        texture: Seed of a pattern of blocks that the clip shows all the time instead.

    Returns:
        Path: The file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=fps, options={'g': str(gop), 'crf': '10'})
        stream.width, stream.height = size
        stream.pix_fmt = 'yuv420p'
        for index in range(num_frames):
            image = np.empty((size[1], size[0], 3), np.uint8)
            image[:, : size[0] // 2], image[:, size[0] // 2 :] = (
                16 * digit + 20 for digit in divmod(index, 10)
            )
            if texture is not None:
                blocks = np.random.default_rng(texture).integers(0, 256, (6, 8, 3), dtype=np.uint8)
                image = np.kron(blocks, np.ones((size[1] // 6, size[0] // 8, 1), np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        container.mux(stream.encode())
    return path


def frame_index(frame: np.ndarray) -> int:
    """Index of a frame that :func:`write_video` wrote, read from its pixels."""
    width = frame.shape[1]
    quarters = frame[:, width // 8 : width // 4], frame[:, width * 3 // 4 : width * 7 // 8]
    tens, ones = (round((float(part.mean()) - 20) / 16) for part in quarters)
    return 10 * tens + ones


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes a clip of known frames into the test's folder."""

    def make(name: str = 'clip.mp4', **kwargs) -> Path:
        return write_video(tmp_path / name, **kwargs)

    return make


@pytest.fixture
def textured_folder(tmp_path: Path) -> Path:
    """A folder with eight clips that can be told apart, of constant content."""
    for index in range(8):
        write_video(tmp_path / 'textured' / f'{index}.mp4', num_frames=80, texture=index)
    return tmp_path / 'textured'


@pytest.fixture
def video_folder(tmp_path: Path) -> Path:
    """A folder with six readable clips."""
    for index in range(6):
        write_video(tmp_path / 'videos' / f'{index}.mp4', num_frames=80)
    return tmp_path / 'videos'
