"""Images and frames of videos as a network is shown them, read in shares of the ranks."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_dist_info
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vito_mm.probes.frozen_features import ProbeError
from vito_mm.utils.hashing import priority_of
from vito_mm.videos import VideoReadError, decode_frames
from vito_mm.videos.images import read_rgb

_TIME_LIMIT = 60.0  # seconds after which a video is given up, as in training


@dataclass(frozen=True)
class LeftOut:
    """A file that a probe does without.

    Attributes:
        path (str): The file.
        reason (str): Why.
        too_short (bool): Whether it is a video that ends before a frame that is wanted.
    """

    path: str
    reason: str
    too_short: bool = False


class TooShortError(VideoReadError):
    """A video that ends before a frame that is wanted."""


class _Frames(Dataset):
    """Items are an index and its frames, or why there are none.

    An exception that a data worker raises would end the run, and reach the user as a traceback of
    the worker's.
    """

    def __init__(self, image_size: int) -> None:
        from torchvision import transforms

        # The view of vito_mm.transfer.probes, in 8 bits: the model's preprocessor normalises.
        self.view = transforms.Compose(
            [
                transforms.Resize(image_size, transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(image_size),
                transforms.PILToTensor(),
            ]
        )

    def __getitem__(self, index: int) -> tuple[int, Tensor | LeftOut]:
        try:
            frames = self.read(index)
        except VideoReadError as error:
            short = isinstance(error, TooShortError)
            return index, LeftOut(error.path, error.reason, short)
        return index, torch.stack([self.view(frame) for frame in frames])[:, [2, 1, 0]]

    def read(self, index: int) -> list[Image.Image]:
        """RGB images of an item."""
        raise NotImplementedError


class Stills(_Frames):
    """Image files, each of one frame.

    Args:
        files (Sequence[Path]): Files that PIL can read.
        image_size (int): Side of the images in pixels; the shorter side is resized to it and the
            centre is taken.
    """

    def __init__(self, files: Sequence[Path], image_size: int) -> None:
        super().__init__(image_size)
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> list[Image.Image]:
        """The image."""
        return [read_rgb(self.files[index])]


class Moments(_Frames):
    """Frames at fixed times of videos.

    The first frame of a video is at a place of the room that ``offsets`` leave between its start
    and its end, the others so many seconds later.

    Args:
        rows (Sequence[Mapping]): What :class:`vito_mm.datasets.VideoDataset` knows of the videos:
            ``video_path``, and ``start``, ``end`` and ``fps`` if given.
        offsets (Sequence[float]): Seconds after the first frame, ascending from 0.
        places (Sequence[float]): Where the first frame of each video is taken, within [0, 1].
        image_size (int): See :class:`Stills`.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        offsets: Sequence[float],
        places: Sequence[float],
        image_size: int,
    ) -> None:
        super().__init__(image_size)
        self.rows, self.offsets, self.places = rows, np.asarray(offsets, np.float64), places

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> list[Image.Image]:
        """The frames, as many as offsets."""
        row = self.rows[index]

        def choose_times(duration: float) -> np.ndarray:
            start, end = row.get('start') or 0.0, row.get('end')
            end = duration if end is None else min(end, duration)
            room = end - start - self.offsets[-1]
            if room < 0:
                raise TooShortError(
                    row['video_path'],
                    f'{max(0.0, end - start):.2f} s, {self.offsets[-1]:g} s are wanted',
                )
            return start + self.places[index] * room + self.offsets

        frames, _ = decode_frames(
            row['video_path'], choose_times, time_limit=_TIME_LIMIT, fps=row.get('fps')
        )
        return [Image.fromarray(frame) for frame in frames]


def place_of(path: str, seed: int) -> float:
    """Pseudo-random number of a video that follows from its file name.

    Args:
        path (str): The video.
        seed (int): Another one gives other numbers.

    Returns:
        float: Uniform within [0, 1).
    """
    return priority_of(path, seed) / 2**64


@dataclass(frozen=True)
class Gathered:
    """What all ranks found, the same on each.

    Attributes:
        indices (Tensor): Items that were read, ascending, shape (n, ), int64.
        features (Tensor): What was made of each, shape (n, ...), on the CPU.
        left_out (list[LeftOut]): The other items.
    """

    indices: Tensor
    features: Tensor
    left_out: list[LeftOut]


def collect(
    dataset: Dataset,
    make: Callable[[list[int], Tensor], Tensor],
    batch_size: int,
    num_workers: int,
) -> Gathered:
    """Read a data set in shares of the ranks, and gather what is made of it.

    Batches are the same for any number of ranks, so that a network's answers are, too.

    Args:
        dataset (Dataset): :class:`Stills` or :class:`Moments`.
        make (Callable): Gets the indices of some items and their frames, BGR, uint8, shape
            (n, F, 3, S, S); returns a tensor (n, ...).
        batch_size (int): Items at a time.
        num_workers (int): Processes of each rank that read; 0 reads in this one.

    Returns:
        Gathered: What was made, in the order of the data set.

    Raises:
        ProbeError: On all ranks, if a process that reads was killed on any.
    """
    indices, features, left_out, failure = [], [], [], ''
    batches = _read_share(dataset, batch_size, num_workers)
    while True:
        try:
            found, frames, missing = next(batches)
        except StopIteration:
            break
        except (RuntimeError, OSError, EOFError) as error:  # how PyTorch tells that a worker died
            failure = f'a process that reads images was killed: lack of memory or a crash ({error})'
            break
        left_out += missing
        if found:
            indices += found
            features.append(make(found, frames))
    return gather(indices, features, left_out, failure)


def _read_share(
    dataset: Dataset, batch_size: int, num_workers: int
) -> Iterator[tuple[list[int], Tensor, list[tuple[int, LeftOut]]]]:
    """Every W-th batch on W ranks: indices and frames of items, and items without."""
    rank, world_size = get_dist_info()
    starts = range(0, len(dataset), batch_size)[rank::world_size]
    loader = DataLoader(
        dataset,
        batch_sampler=[range(i, min(i + batch_size, len(dataset))) for i in starts],
        num_workers=num_workers,
        collate_fn=_collate,
        generator=torch.Generator(),  # of its own: the global one belongs to the training
    )
    before = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    # PyTorch's handler raises wherever the main process is. Without it the death of a worker is
    # noticed when a batch is waited for (see vito_mm.engine.worker_restart).
    if before is None or getattr(before, '__module__', '').startswith('torch.utils.data'):
        before = signal.SIG_DFL
    signal.signal(signal.SIGCHLD, before)
    return iterator


def _collate(
    items: list[tuple[int, Tensor | LeftOut]],
) -> tuple[list[int], Tensor, list[tuple[int, LeftOut]]]:
    # In the worker: one shared tensor a batch instead of an open file an item.
    found = [(index, frames) for index, frames in items if isinstance(frames, Tensor)]
    left_out = [(index, reason) for index, reason in items if isinstance(reason, LeftOut)]
    frames = torch.stack([frames for _, frames in found]) if found else torch.empty(0)
    return [index for index, _ in found], frames, left_out


def gather(
    indices: Sequence[int],
    features: Sequence[Tensor],
    left_out: Sequence[tuple[int, LeftOut]] = (),
    failure: str = '',
) -> Gathered:
    """Put together what the ranks made of their shares.

    Args:
        indices (Sequence[int]): Items of this rank.
        features (Sequence[Tensor]): What was made of them, in batches, shapes (n, ...).
        left_out (Sequence[tuple[int, LeftOut]]): Items of this rank that could not be read.
            Defaults to none.
        failure (str): What kept this rank from its share. Defaults to '', nothing.

    Returns:
        Gathered: In the order of the items, for any number of ranks.

    Raises:
        ProbeError: On all ranks, if one of them failed.
    """
    local = torch.cat(list(features)).cpu() if features else None
    parts = all_gather_object((list(indices), local, list(left_out), failure))
    if failures := [part[3] for part in parts if part[3]]:
        raise ProbeError(failures[0])
    order = torch.tensor([index for part in parts for index in part[0]], dtype=torch.int64)
    found = [part[1] for part in parts if part[1] is not None]
    order, by_index = order.sort()
    left = sorted((item for part in parts for item in part[2]), key=lambda item: item[0])
    features = torch.cat(found)[by_index] if found else torch.empty(0, 0)
    return Gathered(order, features, [reason for _, reason in left])


def told(left_out: Sequence[LeftOut], shown: int = 3) -> str:
    """Sum up what a probe does without.

    Args:
        left_out (Sequence[LeftOut]): At least one file.
        shown (int): Reasons that are written out. Defaults to 3.

    Returns:
        str: Numbers, and the first reasons.
    """
    short = sum(item.too_short for item in left_out)
    counts = [(short, 'too short'), (len(left_out) - short, 'unreadable')]
    counted = ' and '.join(f'{count} {what}' for count, what in counts if count)
    # Unreadable ones first: those are faults.
    first = sorted(left_out, key=lambda item: item.too_short)[:shown]
    names = '; '.join(f'{item.path}: {item.reason}' for item in first)
    more = f'; and {len(left_out) - shown} more' if len(left_out) > shown else ''
    return f'{counted} ({names}{more})'.encode('utf-8', 'backslashreplace').decode()
