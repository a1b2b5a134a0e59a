"""Fixtures that several tests share."""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch: one core per worker

import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.answering_models import detector, segmenter  # noqa: F401
from tests.helpers.checkpoints import checkpoints, online, target  # noqa: F401
from tests.helpers.frame_videos import encode
from tests.helpers.quick_mmengine import quicken

# Networks of tests have at least 16 channels: with 8 or fewer, torch 2.11's backward pass of a 1x1
# convolution of stride 2 in channels-last format corrupts memory on CPUs.
REPO = Path(__file__).resolve().parents[1]
ONEDL = any(distributions(name='onedl-mmengine'))
with_original_mim = pytest.mark.skipif(ONEDL, reason="OneDL's mim finds two copies, or no mmseg")
sys.path.append(str(REPO / 'tools'))  # as for a tool that is run as a script
quicken()


def digits(index: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """A frame that tells its index, RGB: tens in the left half, ones in the right."""
    image = np.empty((size[1], size[0], 3), np.uint8)
    tens, ones = divmod(index, 10)
    image[:, : size[0] // 2], image[:, size[0] // 2 :] = 16 * tens + 20, 16 * ones + 20
    return image


def write_video(
    path: Path,
    num_frames: int = 100,
    fps: int = 25,
    size: tuple[int, int] = (64, 48),
    gop: int = 12,
    texture: int | None = None,
    times: Sequence[float] | None = None,
    codec: str = 'libx264',
    options: dict[str, str] | None = None,
    **settings: Any,
) -> Path:
    """Write a clip of :func:`digits`.

    Args:
        path: File to write.
        num_frames: Number of frames, at most 140.
        fps: Frames per second.
        size: Width and height in pixels.
        gop: Frames between key frames.
        texture: Seed of a pattern of blocks that the clip shows all the time instead.
        times: When the frames are shown, in seconds, in place of ``fps``.
        codec: Encoder.
        options: Further options of the encoder.
        **settings: Of :func:`tests.helpers.frame_videos.encode`.

    Returns:
        Path: The file.
    """
    count = num_frames if times is None else len(times)
    images = (digits(index, size) for index in range(count))
    if texture is not None:
        blocks = np.random.default_rng(texture).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        images = [np.kron(blocks, np.ones((size[1] // 6, size[0] // 8, 1), np.uint8))] * count
    quality = {'libx264': {'crf': '10'}, 'mpeg4': {'qmin': '1', 'qmax': '2'}}.get(codec, {})
    options = {'g': str(gop), 'b': '4000000'} | quality | (options or {})
    return encode(path, images, fps, codec, size=size, times=times, **settings, **options)


def frame_index(frame: np.ndarray) -> int:
    """Index of a frame of :func:`digits`, read from its pixels."""
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


@pytest.fixture(scope='session')
def miniscenes(tmp_path_factory) -> dict[str, Path]:
    """Tiny data sets of all four fine-tuning tasks, by task; not to be changed."""
    from vito_mm.miniscenes import make_miniscenes

    root = tmp_path_factory.mktemp('miniscenes')
    names = dict(pascal='voc', ade20k='ade20k', coco='coco', lvis='lvis')
    made = make_miniscenes(root, 'tiny', workers=0, tasks=tuple(names.values()), progress=False)
    return {task: Path(made[name]) for task, name in names.items()}


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes a clip of known frames into the test's folder."""

    def make(name: str = 'clip.mp4', **kwargs) -> Path:
        return write_video(tmp_path / name, **kwargs)

    return make


@pytest.fixture(scope='session')
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips to copy: of known frames, and of constant content that can be told apart."""
    folder = tmp_path_factory.mktemp('clips')
    for index in range(8):
        write_video(folder / 'videos' / f'{index}.mp4', num_frames=80)
        write_video(folder / 'textured' / f'{index}.mp4', num_frames=80, texture=index)
    return folder


@pytest.fixture(scope='session')
def videos(clips: Path) -> Path:
    """The clips of constant content, only to be read."""
    return clips / 'textured'


@pytest.fixture
def textured_folder(clips: Path, tmp_path: Path) -> Path:
    """A folder with eight clips that can be told apart, of constant content."""
    return shutil.copytree(clips / 'textured', tmp_path / 'textured')


@pytest.fixture
def video_folder(clips: Path, tmp_path: Path) -> Path:
    """A folder with six readable clips of known frames."""
    ignore = shutil.ignore_patterns('[67].mp4')
    return shutil.copytree(clips / 'videos', tmp_path / 'videos', ignore=ignore)
