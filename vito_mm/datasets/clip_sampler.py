"""Order of the clips, and the random numbers that belong to each.

The stream of clips is a pure function of (seed, number of the draw): neither the number of workers
or ranks nor a restart changes what the n-th clip is.
"""

import random
from collections.abc import Iterator, Sized
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from vito_mm.registry import DATA_SAMPLERS


class Draw(int):
    """Index of a sample that remembers which draw of which stream it is.

    It is the index itself for any data set. What MMEngine's ``ConcatDataset`` and
    ``RepeatDataset`` compute from it to address the data set within keeps the draw.

    Args:
        index (int): Index of the sample.
        seed (int): Seed of the stream.
        number (int): How many draws came before this one, over all ranks and since the start.
    """

    seed: int
    number: int

    def __new__(cls, index: int, seed: int, number: int) -> 'Draw':
        self = super().__new__(cls, index)
        self.seed, self.number = seed, number
        return self

    def __getnewargs__(self) -> tuple[int, int, int]:
        return int(self), self.seed, self.number

    def __sub__(self, other: int) -> 'Draw':
        return Draw(int(self) - other, self.seed, self.number)

    def __mod__(self, other: int) -> 'Draw':
        return Draw(int(self) % other, self.seed, self.number)


@contextmanager
def random_state_of(index: int) -> Iterator[None]:
    """Seed Python's, NumPy's and PyTorch's CPU generators for one sample, and restore them after.

    Args:
        index (int): A :class:`Draw`. A plain index changes nothing.
    """
    if not isinstance(index, Draw):
        yield
        return
    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    words = np.random.SeedSequence((index.seed, index.number)).generate_state(6)
    random.seed(int(words[0]) << 32 | int(words[1]))
    np.random.seed(words[2:4])
    # Not torch.manual_seed, which would seed the GPUs of this process as well.
    torch.default_generator.manual_seed(int(words[4]) << 32 | int(words[5]))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.default_generator.set_state(before[2])


@DATA_SAMPLERS.register_module()
class ClipSampler(Sampler[Draw]):
    """Endless draws without replacement per pass over the data set.

    Draw n takes sample ``permutation(seed, n // size)[n % size]``, so that a data set smaller than
    an epoch is seen evenly. Rank r of W takes the draws r, r + W, r + 2 W, ...: a global batch
    holds the same clips however many ranks share it.

    Args:
        dataset (Sized): Data set to draw from.
        seed (int, optional): Seed of the stream. Defaults to None, which means one that all ranks
            agree on.
        shuffle (bool): Draw in random order. Defaults to True.
        start (int): Number of the first draw. :class:`vito_mm.engine.ClipTrainLoop` sets it when a
            run is resumed. Defaults to 0.

    Raises:
        ValueError: If the data set is empty.

    Example:
        >>> from itertools import islice
        >>> sampler = ClipSampler(range(3), seed=0)
        >>> sorted(islice(sampler, 3))
        [0, 1, 2]
    """

    def __init__(
        self, dataset: Sized, seed: int | None = None, shuffle: bool = True, start: int = 0
    ) -> None:
        if len(dataset) == 0:
            raise ValueError('ClipSampler cannot draw from an empty data set')
        self.dataset = dataset
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.shuffle = shuffle
        self.start = start

    def __iter__(self) -> Iterator[Draw]:
        size, current, order = len(self.dataset), None, np.arange(len(self.dataset))
        number = self.start + self.rank
        while True:
            passed, position = divmod(number, size)
            if self.shuffle and passed != current:
                order, current = (
                    np.random.default_rng((self.seed, passed)).permutation(size),
                    passed,
                )
            yield Draw(int(order[position]), self.seed, number)
            number += self.world_size

    def __len__(self) -> int:
        """Draws of this rank in one pass, rounded up."""
        return -(-len(self.dataset) // self.world_size)
