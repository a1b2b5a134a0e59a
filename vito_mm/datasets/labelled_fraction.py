"""A part of the labelled images of any data set of MMEngine."""

from typing import Any

import numpy as np
from mmengine import registry as root

from vito_mm.registry import DATASETS


def subset_indices(count: int, fraction: float, seed: int) -> np.ndarray:
    """Draw a random part of ``count`` samples, one at least.

    The parts of a seed are nested: 1 % lies within 10 %.

    Returns:
        np.ndarray: Indices, integer, shape (part,).
    """
    part = max(1, round(count * fraction))
    return np.random.default_rng(seed).permutation(count)[:part]


@DATASETS.register_module(name='LabelledFraction')
def _build_labelled_fraction(stock: Any, fraction: float, subset_seed: int = 0, **kwargs: Any):
    """Build a data set that repeats a random part of its samples.

    It stays as long as it was, each sample of the part coming equally often (to within one), so
    that an epoch, and with it every schedule, keeps its number of steps.

    Args:
        stock (str | type): Type of the data set, one of MMEngine's or derived from them.
        fraction (float): Part of the samples that its own filter leaves, in (0, 1].
        subset_seed (int): Seed of the draw. Defaults to 0.
        **kwargs: Arguments of the data set.
    """
    dataset = root.DATASETS.build(dict(kwargs, type=stock))
    dataset.full_init()
    chosen = subset_indices(len(dataset), fraction, subset_seed)
    dataset.get_subset_(np.resize(chosen, len(dataset)).tolist())
    return dataset
