"""One random generator per item, so that no item depends on another or on the worker."""

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
    'davis': 12,
}
SPLITS = {'train': 0, 'val': 1, 'aug': 2, 'held_out': 3}


def item_rng(seed: int, stream: str, index: int, split: str = 'train') -> np.random.Generator:
    """Create the generator of an item of a stream and split, from the seed of the world."""
    return np.random.default_rng([seed, STREAMS[stream], SPLITS[split], index])
