"""Backgrounds: smooth and pale, from a small pool that many pictures share."""

from functools import lru_cache

import cv2
import numpy as np

from .colours import hsv_to_rgb
from .seeding import item_rng

MARGIN = 1.6
"""A background is this many times larger than the picture, for the camera to pan over."""


@lru_cache(maxsize=8)
def background_pool(seed: int, stream: str, count: int, size: tuple[int, int]) -> np.ndarray:
    """Draw a pool of backgrounds.

    Args:
        seed: Seed of the world.
        stream: ``'video_backgrounds'``, ``'still_backgrounds'`` or ``'probe_backgrounds'``.
        count: Number of backgrounds.
        size: Width and height of the pictures, in pixels.

    Returns:
        numpy.ndarray: (count, H, W, 3) float32 RGB in [0, 1], each ``MARGIN`` times as high and
        wide as a picture. Read-only, as it is shared.
    """
    wide, high = (round(MARGIN * length) for length in size)
    pool = np.empty((count, high, wide, 3), np.float32)
    for index in range(count):
        rng = item_rng(seed, stream, index)
        cells = int(rng.integers(3, 7))
        weights = rng.uniform(0, 1, (cells, cells)).astype(np.float32)
        weights = cv2.resize(weights, (wide, high), interpolation=cv2.INTER_CUBIC)
        first, second = (
            hsv_to_rgb(rng.uniform(0, 360), rng.uniform(0.05, 0.3), rng.uniform(0.72, 1.0))
            for _ in range(2)
        )
        pool[index] = first + weights[..., None] * (second - first)
    pool = np.clip(pool, 0.0, 1.0)
    pool.flags.writeable = False
    return pool


def view_background(background: np.ndarray, offset: np.ndarray, size: tuple[int, int]):
    """Take the part of a background that the camera sees.

    Args:
        background: (H, W, 3) float32, one of a pool.
        offset: Where the camera looks, x and y in [0, 1] over the range that is free.
        size: Width and height of the picture, in pixels.

    Returns:
        numpy.ndarray: (height, width, 3) float32, moved by parts of a pixel.
    """
    width, height = size
    free = np.array([background.shape[1] - width, background.shape[0] - height])
    x, y = np.clip(offset, 0.0, 1.0) * free
    matrix = np.array([[1.0, 0.0, x], [0.0, 1.0, y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        background, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
