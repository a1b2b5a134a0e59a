"""One random generator per item, so that no item depends on another or on who makes it."""

import numpy as np

# Never renumber: the numbers are part of every seed.
STREAMS = {
    'videos': 0,
    'ade20k': 1,
    'voc': 2,
    'coco': 3,
    'lvis': 4,
    'probe': 5,
    'video_backgrounds': 6,
    'still_backgrounds': 7,
    'probe_backgrounds': 8,
    'video_things': 9,
    'still_things': 10,
    'probe_things': 11,
}

SPLITS = {'train': 0, 'val': 1, 'aug': 2, 'held_out': 3}


def item_rng(seed: int, stream: str, index: int, split: str = 'train') -> np.random.Generator:
    """Give the generator of one item.

    Args:
        seed: Seed of the whole world, 0 or larger.
        stream: Key of ``STREAMS``.
        index: Index of the item within its stream and split.
        split: Key of ``SPLITS``. Defaults to ``'train'``.

    Returns:
        numpy.random.Generator: The same one for the same arguments.
    """
    return np.random.default_rng([seed, STREAMS[stream], SPLITS[split], index])
