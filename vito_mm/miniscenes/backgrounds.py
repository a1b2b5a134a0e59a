"""Backgrounds, from a small pool that many pictures share, so that none identifies a video."""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

from .objects import hsv_to_rgb
from .seeding import item_rng

MARGIN = 1.6
"""A background is this many times larger than the picture, for the camera to pan over."""

Rng = np.random.Generator


def _smooth(rng: Rng, wide: int, high: int) -> np.ndarray:
    cells = int(rng.integers(3, 7))
    weights = rng.uniform(0, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(weights, (wide, high), interpolation=cv2.INTER_CUBIC)


def _clouds(rng: Rng, wide: int, high: int) -> np.ndarray:
    """Noise of five octaves."""
    total = np.zeros((high, wide), np.float32)
    for octave in range(5):
        cells = 3 * 2**octave
        noise = rng.standard_normal((cells, cells)).astype(np.float32)
        total += cv2.resize(noise, (wide, high), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    return 0.5 + 0.25 * total


def _grid(wide: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the pixels in [0, 1] along the longer side, as a row and a column."""
    x, y = (np.arange(length, dtype=np.float32) + np.float32(0.5) for length in (wide, high))
    return x[None, :] / max(wide, high), y[:, None] / max(wide, high)


def _patches(rng: Rng, wide: int, high: int) -> np.ndarray:
    """Flat cells, each around the point of a random set that is nearest."""
    x, y = _grid(wide, high)
    nearest = np.full((high, wide), np.inf, np.float32)
    weights = np.zeros((high, wide), np.float32)
    for px, py, weight in rng.uniform(0, 1, (int(rng.integers(14, 30)), 3)):
        distance = np.square(x - np.float32(px)) + np.square(y - np.float32(py))
        weights[distance < nearest] = weight
        np.minimum(nearest, distance, out=nearest)
    return cv2.blur(weights, (3, 3))


def _spots(rng: Rng, wide: int, high: int) -> np.ndarray:
    """Overlapping soft discs of many sizes."""
    x, y = _grid(wide, high)
    weights = np.full((high, wide), 0.5, np.float32)
    for px, py, share, weight in rng.uniform(0, 1, (int(rng.integers(20, 40)), 4)):
        distance = np.hypot(x - np.float32(px), y - np.float32(py))
        radius = np.float32(0.04 + 0.12 * share**2)
        inside = np.clip((radius - distance) / (0.25 * radius), 0.0, 1.0)
        weights += 0.8 * inside * (np.float32(weight) - weights)
    return weights


def _facets(rng: Rng, wide: int, high: int) -> np.ndarray:
    """Polygons between random lines, each with a slope of its own."""
    x, y = _grid(wide, high)
    weights = np.zeros((high, wide), np.float32)
    for _ in range(int(rng.integers(6, 11))):
        angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.4, 0.4)
        along = np.float32(np.cos(angle)) * (x - 0.5) + np.float32(np.sin(angle)) * (y - 0.5)
        weights += np.clip(0.5 + (along - np.float32(offset)) * 60, 0, 1) * rng.uniform(-1, 1)
    return (0.5 + 0.3 * weights).astype(np.float32)


def _dunes(rng: Rng, wide: int, high: int) -> np.ndarray:
    """Ridges along warped lines, of many widths at once."""
    warp = rng.standard_normal((4, 4)).astype(np.float32)
    warp = cv2.resize(warp, (wide, high), interpolation=cv2.INTER_CUBIC)
    x, y = _grid(wide, high)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y + 0.2 * warp
    weights = np.full((high, wide), 0.5, np.float32)
    for ridges, height in ((1.0, 0.25), (2.7, 0.2), (6.0, 0.1)):
        weights += height * np.sin(2 * np.pi * (ridges * along + np.float32(rng.random())))
    return weights


KINDS: dict[str, Callable[[Rng, int, int], np.ndarray]] = {
    'smooth': _smooth,
    'clouds': _clouds,
    'patches': _patches,
    'spots': _spots,
    'facets': _facets,
    'dunes': _dunes,
}
"""Each draws (height, width) float32 weights around [0, 1], with which colours are mixed."""

_PALE = ((0.05, 0.3), (0.72, 1.0))
_RICH = ((0.05, 0.6), (0.35, 1.0))
"""Ranges of the saturation and the value of a background's colours."""


@lru_cache(maxsize=8)
def background_pool(
    seed: int,
    stream: str,
    count: int,
    size: tuple[int, int],
    kinds: tuple[str, ...] = (),
    split: str = 'train',
) -> np.ndarray:
    """Draw a pool of backgrounds: smooth and pale, or with structure in more and stronger colours.

    Args:
        seed: Seed of the world.
        stream: ``'video_backgrounds'``, ``'still_backgrounds'`` or ``'probe_backgrounds'``.
        count: Number of backgrounds.
        size: Width and height of the pictures, in pixels.
        kinds: Keys of ``KINDS``, which take turns. Defaults to none: smooth and pale.
        split: Key of ``seeding.SPLITS``; each has its own pool. Defaults to ``'train'``.

    Returns:
        numpy.ndarray: (count, H, W, 3) float32 RGB in [0, 1], each ``MARGIN`` times as high and
        wide as a picture. Read-only, as it is shared.
    """
    wide, high = (round(MARGIN * length) for length in size)
    pool = np.empty((count, high, wide, 3), np.float32)
    for index in range(count):
        rng = item_rng(seed, stream, index, split)
        if kinds:
            draw = KINDS[kinds[index % len(kinds)]]
            first, second, third = _draw_colours(rng, 3, _RICH)
            pool[index] = first + draw(rng, wide, high)[..., None] * (second - first)
            pool[index] += 0.7 * _smooth(rng, wide, high)[..., None] * (third - pool[index])
        else:
            weights = _smooth(rng, wide, high)
            first, second = _draw_colours(rng, 2, _PALE)
            pool[index] = first + weights[..., None] * (second - first)
    pool = np.clip(pool, 0.0, 1.0)
    pool.flags.writeable = False
    return pool


def _draw_colours(
    rng: Rng, count: int, ranges: tuple[tuple[float, float], tuple[float, float]]
) -> list[np.ndarray]:
    return [
        hsv_to_rgb(rng.uniform(0, 360), rng.uniform(*ranges[0]), rng.uniform(*ranges[1]))
        for _ in range(count)
    ]


def view_background(
    background: np.ndarray, offset: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Crop the part of a background that the camera sees, with subpixel precision.

    Args:
        background: (H, W, 3) float32, one of a pool.
        offset: x and y of the view in [0, 1] over the free range.
        size: Width and height of the picture, in pixels.

    Returns:
        numpy.ndarray: (height, width, 3) float32.
    """
    width, height = size
    free = np.array([background.shape[1] - width, background.shape[0] - height])
    x, y = np.clip(offset, 0.0, 1.0) * free
    matrix = np.array([[1.0, 0.0, x], [0.0, 1.0, y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        background, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
