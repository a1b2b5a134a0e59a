"""Fixtures that several tests share."""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch: one core per worker

import signal
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.helpers.checkpoints import checkpoints, online, target  # noqa: F401

# Networks of tests have at least 16 channels: with 8 or fewer, torch 2.11's backward pass of a 1x1
# convolution of stride 2 in channels-last format corrupts memory on CPUs.
REPO = Path(__file__).resolve().parents[1]
sys.path.append(str(REPO / 'tools'))  # as for a tool that is run as a script


def write_video(
    path: Path,
    num_frames: int = 100,
    fps: int = 25,
    size: tuple[int, int] = (64, 48),
    gop: int = 12,
    texture: int | None = None,
    times: Sequence[float] | None = None,
    codec: str = 'libx264',
    pix_fmt: str = 'yuv420p',
    rotation: int = 0,
    seconds_of_audio: float = 0.0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a clip that tells its frame index: tens in the left half, ones in the right.

    Args:
        path: File to write.
        num_frames: Number of frames, at most 140.
        fps: Frames per second.
        size: Width and height in pixels.
        gop: Frames between key frames.
        texture: Seed of a pattern of blocks that the clip shows all the time instead.
        times: When the frames are shown, in seconds, in place of ``fps``.
        codec: Encoder.
        pix_fmt: Pixel format.
        rotation: Degrees, counter-clockwise, by which players turn the picture.
        seconds_of_audio: Length of a silent audio track.
        options: Further options of the encoder.
        container_options: Options of the container.

    Returns:
        Path: The file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(num_frames) / fps if times is None else times
    base = Fraction(1, 1000) if len(set(np.diff(times).round(6))) > 1 else Fraction(1, fps)
    quality = {'libx264': {'crf': '10'}, 'mpeg4': {'qmin': '1', 'qmax': '2'}}.get(codec, {})
    with av.open(str(path), 'w', options=container_options or {}) as container:
        options = {'g': str(gop)} | quality | (options or {})
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = base
        stream.codec_context.bit_rate = 4_000_000
        if rotation:
            stream.set_display_rotation(rotation)
        audio = container.add_stream('aac', rate=8000) if seconds_of_audio else None
        for index, time in enumerate(times):
            image = np.empty((size[1], size[0], 3), np.uint8)
            image[:, : size[0] // 2], image[:, size[0] // 2 :] = (
                16 * digit + 20 for digit in divmod(index, 10)
            )
            if texture is not None:
                blocks = np.random.default_rng(texture).integers(0, 256, (6, 8, 3), dtype=np.uint8)
                image = np.kron(blocks, np.ones((size[1] // 6, size[0] // 8, 1), np.uint8))
            frame = av.VideoFrame.from_ndarray(image, format='rgb24')
            frame.pts, frame.time_base = round(time / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio:
            silence = np.zeros((1, int(8000 * seconds_of_audio)), np.float32)
            samples = av.AudioFrame.from_ndarray(silence, format='fltp', layout='mono')
            samples.sample_rate, samples.pts = 8000, 0
            container.mux([*audio.encode(samples), *audio.encode()])
    return path


def frame_index(frame: np.ndarray) -> int:
    """Index of a frame that :func:`write_video` wrote, read from its pixels."""
    width = frame.shape[1]
    quarters = frame[:, width // 8 : width // 4], frame[:, width * 3 // 4 : width * 7 // 8]
    tens, ones = (round((float(part.mean()) - 20) / 16) for part in quarters)
    return 10 * tens + ones


def signal_while_forking(number: int) -> None:
    """Let the next fork of this process get a signal: Python drops what its handler raises.

    Args:
        number: The signal.
    """
    numbers = [number]

    def raise_signal() -> None:
        while numbers:
            signal.raise_signal(numbers.pop())

    os.register_at_fork(after_in_parent=raise_signal)


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
