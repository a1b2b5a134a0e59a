"""Things of no class, which clutter a scene and pass before its objects.

Their outlines and patterns are none of the classes'. They come from small pools that many pictures
share, as backgrounds do: a thing of its own would tell a video.
"""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

from .materials import EXTENT
from .render import SceneObject
from .seeding import item_rng

Rng = np.random.Generator

NO_CLASS = -1
"""Label of a thing."""

_TILE = 64  # pixels; things are seen small


def _blob(rng: Rng) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radii = np.ones(48)
    for wave in (2, 3, 4):
        radii += rng.uniform(0.1, 0.25) * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1) / radii.max()


def _bar(rng: Rng) -> np.ndarray:
    half = rng.uniform(0.12, 0.3)
    corners = np.array([[1.0, half], [-1.0, half], [-1.0, -half], [1.0, -half]])
    return corners / np.hypot(1.0, half)


def _hook(rng: Rng) -> np.ndarray:
    thick = rng.uniform(0.25, 0.4)
    corners = np.array([[0, 0], [2, 0], [2, thick], [thick, thick], [thick, 1.6], [0, 1.6]])
    return (corners - [1.0, 0.8]) / np.hypot(1.0, 0.8)


def _shard(rng: Rng) -> np.ndarray:
    angles = np.cumsum(rng.uniform(0.6, 1.4, 5))
    angles *= 2 * np.pi / (angles[-1] + 0.6)
    return np.stack([np.cos(angles), rng.uniform(0.5, 0.8) * np.sin(angles)], axis=1)


def _speckles(x: np.ndarray, y: np.ndarray, rng: Rng) -> np.ndarray:
    noise = rng.uniform(0, 1, (20, 20)).astype(np.float32)
    return cv2.resize(noise, x.shape[::-1], interpolation=cv2.INTER_NEAREST)


def _halves(x: np.ndarray, y: np.ndarray, rng: Rng) -> np.ndarray:
    return np.clip(0.5 + 8 * (x - rng.uniform(-0.4, 0.4)), 0.0, 1.0)


def _zigzag(x: np.ndarray, y: np.ndarray, rng: Rng) -> np.ndarray:
    wave = np.abs((rng.uniform(1.5, 2.0) * x + rng.random()) % 1.0 - 0.5)
    return np.clip(0.5 + 3 * np.sin(2 * np.pi * (rng.uniform(1.2, 1.6) * y + wave)), 0.0, 1.0)


def _swirl(x: np.ndarray, y: np.ndarray, rng: Rng) -> np.ndarray:
    turns = np.arctan2(y, x) + rng.choice([-1.0, 1.0]) * 5 * np.hypot(x, y)
    return np.clip(0.5 + 2 * np.sin(turns + rng.uniform(0, 2 * np.pi)), 0.0, 1.0)


THING_OUTLINES: dict[str, Callable[[Rng], np.ndarray]] = {
    'blob': _blob,
    'bar': _bar,
    'hook': _hook,
    'shard': _shard,
}
THING_PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray, Rng], np.ndarray]] = {
    'speckles': _speckles,
    'halves': _halves,
    'zigzag': _zigzag,
    'swirl': _swirl,
}


@lru_cache(maxsize=8)
def thing_pool(seed: int, stream: str, split: str, count: int) -> tuple[SceneObject, ...]:
    """Draw a pool of things.

    Args:
        seed: Seed of the world.
        stream: ``'video_things'``, ``'still_things'`` or ``'probe_things'``.
        split: Key of ``seeding.SPLITS``; each has a pool of its own.
        count: Number of things.

    Returns:
        tuple[SceneObject, ...]: The things, labelled ``NO_CLASS``.
    """
    return tuple(_draw_thing(item_rng(seed, stream, index, split)) for index in range(count))


def _draw_thing(rng: Rng) -> SceneObject:
    outline = THING_OUTLINES[str(rng.choice(list(THING_OUTLINES)))](rng)
    axis = (EXTENT * ((2 * np.arange(_TILE) + 1) / _TILE - 1)).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    tile = THING_PATTERNS[str(rng.choice(list(THING_PATTERNS)))](x, y, rng)
    # Less contrast than the objects have, which are what a picture is of.
    first = [rng.uniform(-40, 40), rng.uniform(0.3, 0.8), rng.uniform(0.35, 0.6)]
    second = [rng.uniform(-40, 40), rng.uniform(0.3, 0.8), rng.uniform(0.6, 0.9)]
    tile = np.ascontiguousarray(tile, dtype=np.float32)
    return SceneObject(NO_CLASS, outline, tile, np.array([first, second]))
