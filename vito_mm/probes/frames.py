"""Images and frames of videos for probes, read in shares of the ranks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_dist_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vito_mm.probes.image_folders import ProbeError
from vito_mm.utils.data_workers import start_workers
from vito_mm.utils.hashing import priority_of
from vito_mm.utils.text import first_few
from vito_mm.videos import VideoReadError, frames
from vito_mm.videos.images import read_rgb


@dataclass(frozen=True)
class Skipped:
    """A file that a probe skips, the reason, and if that is a video that ends too early."""

    path: str
    reason: str
    too_short: bool = False


class TooShortError(VideoReadError):
    """A video that ends before a frame that is wanted."""


class _Frames(Dataset):
    """Items are an index and its frames (RGB, uint8, shape (F, S, S, 3)), or a ``Skipped``.

    An exception that a data worker raises would end the run with the worker's traceback.
    """

    def __init__(self, size: int) -> None:
        self.view = frames.evaluation_view(size)

    def __getitem__(self, index: int) -> tuple[int, Tensor | Skipped]:
        try:
            read = self.read(index)
        except VideoReadError as error:
            return index, Skipped(error.path, error.reason, isinstance(error, TooShortError))
        return index, torch.from_numpy(read.copy())

    def read(self, index: int) -> np.ndarray:
        """Frames of an item, RGB, uint8, shape (F, S, S, 3)."""
        raise NotImplementedError

    def items(self) -> Sequence[Any]:
        """What the frames are read from: a file or a row per item."""
        raise NotImplementedError


class ImageFiles(_Frames):
    """Image files, each of one frame; ``size`` is the side of the evaluation view in pixels."""

    def __init__(self, files: Sequence[Path], size: int) -> None:
        super().__init__(size)
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def items(self) -> Sequence[Path]:
        return self.files

    def read(self, index: int) -> np.ndarray:
        return self.view(read_rgb(self.files[index]))[None]


class VideoFrames(_Frames):
    """Frames at fixed times of videos.

    The first frame of a video is somewhere in the room that ``offsets`` leave between its start and
    its end, the others so many seconds later.

    Args:
        rows (Sequence[Mapping]): The videos, see :mod:`vito_mm.videos.frames`.
        offsets (Sequence[float]): Seconds after the first frame, ascending from 0.
        places (Sequence[float]): Where the first frame of each video is taken, within [0, 1].
        size (int): See :class:`ImageFiles`.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        offsets: Sequence[float],
        places: Sequence[float],
        size: int,
    ) -> None:
        super().__init__(size)
        self.rows, self.offsets, self.places = rows, np.asarray(offsets, np.float64), places

    def __len__(self) -> int:
        return len(self.rows)

    def items(self) -> Sequence[Mapping[str, Any]]:
        return self.rows

    def read(self, index: int) -> np.ndarray:
        row, longest = self.rows[index], self.offsets[-1]

        def times(start: float, end: float) -> np.ndarray:
            if (room := end - start - longest) < 0:
                reason = f'{end - start:.2f} s, {longest:g} s are wanted'
                raise TooShortError(row['video_path'], reason)
            return start + self.places[index] * room + self.offsets

        return frames.read(row, times, self.view).frames


def place_of(path: str, seed: int) -> float:
    """Pseudo-random number within [0, 1) that follows from the path of a video and a seed."""
    return priority_of(path, seed) / 2**64


@dataclass(frozen=True)
class Gathered:
    """Results of all ranks, the same on each.

    Attributes:
        indices (Tensor): Items that were read, ascending, shape (n, ), int64.
        features (Tensor): What was made of each, shape (n, ...), on the CPU.
        skipped (list[Skipped]): The other items.
    """

    indices: Tensor
    features: Tensor
    skipped: list[Skipped]


def collect(
    dataset: Dataset,
    make: Callable[[list[int], Tensor], Tensor],
    batch_size: int,
    num_workers: int,
) -> Gathered:
    """Read a data set in shares of the ranks, and gather what is made of it.

    Batches are the same for any number of ranks, so that a network's answers are, too.

    Args:
        dataset (Dataset): :class:`ImageFiles` or :class:`VideoFrames`.
        make (Callable): Gets the indices of some items and their frames, RGB, uint8, shape
            (n, F, S, S, 3); returns a tensor (n, ...).
        batch_size (int): Items at a time.
        num_workers (int): Processes of each rank that read; 0 reads in this one.

    Returns:
        Gathered: What was made, in the order of the data set.

    Raises:
        ProbeError: On all ranks, if a process that reads was killed on any.
    """
    indices, features, skipped, failure = [], [], [], ''
    batches = _read_share(dataset, batch_size, num_workers)
    while True:
        try:
            found, images, missing = next(batches)
        except StopIteration:
            break
        except (RuntimeError, OSError, EOFError) as error:  # how PyTorch tells that a worker died
            failure = f'a process that reads images was killed: lack of memory or a crash ({error})'
            break
        skipped += missing
        if found:
            indices += found
            features.append(make(found, images))
    return gather(indices, features, skipped, failure)


def _read_share(
    dataset: Dataset, batch_size: int, num_workers: int
) -> Iterator[tuple[list[int], Tensor, list[tuple[int, Skipped]]]]:
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
    return start_workers(loader)


def _collate(
    items: list[tuple[int, Tensor | Skipped]],
) -> tuple[list[int], Tensor, list[tuple[int, Skipped]]]:
    # In the worker: one shared tensor a batch instead of an open file an item.
    found = [(index, images) for index, images in items if isinstance(images, Tensor)]
    skipped = [(index, reason) for index, reason in items if isinstance(reason, Skipped)]
    images = torch.stack([images for _, images in found]) if found else torch.empty(0)
    return [index for index, _ in found], images, skipped


def gather(
    indices: Sequence[int],
    features: Sequence[Tensor],
    skipped: Sequence[tuple[int, Skipped]] = (),
    failure: str = '',
) -> Gathered:
    """Put together the results of the ranks, in the order of the items.

    Args:
        indices (Sequence[int]): Items of this rank.
        features (Sequence[Tensor]): Their results in batches, shapes (n, ...).
        skipped (Sequence[tuple[int, Skipped]]): Unreadable items of this rank.
        failure (str): Error of this rank, if any.

    Raises:
        ProbeError: On all ranks, if one of them failed.
    """
    local = torch.cat(list(features)).cpu() if features else None
    parts = all_gather_object((list(indices), local, list(skipped), failure))
    if failures := [part[3] for part in parts if part[3]]:
        raise ProbeError(failures[0])
    order = torch.tensor([index for part in parts for index in part[0]], dtype=torch.int64)
    found = [part[1] for part in parts if part[1] is not None]
    order, by_index = order.sort()
    missing = sorted((item for part in parts for item in part[2]), key=lambda item: item[0])
    features = torch.cat(found)[by_index] if found else torch.empty(0, 0)
    return Gathered(order, features, [reason for _, reason in missing])


def summarised(skipped: Sequence[Skipped]) -> str:
    """Counts of files that a probe skips, and the first reasons, faults before short videos."""
    short = sum(item.too_short for item in skipped)
    counts = [(short, 'too short'), (len(skipped) - short, 'unreadable')]
    counted = ' and '.join(f'{count} {what}' for count, what in counts if count)
    first = sorted(skipped, key=lambda item: item.too_short)
    names = first_few([f'{item.path}: {item.reason}' for item in first], 3, '; ')
    return f'{counted} ({names})'.encode('utf-8', 'backslashreplace').decode()
