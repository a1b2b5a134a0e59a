"""Objects of the eight classes, and things of no class, as polygons with a pattern.

Things clutter a scene and pass in front of its objects. Their outlines and patterns differ from
those of all classes. Many pictures share them from small pools, as they share backgrounds, so that
no thing identifies a video.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from .classes import CLASSES
from .seeding import item_rng

Rng = np.random.Generator
Outline = Callable[[Rng], np.ndarray]
Pattern = Callable[[np.ndarray, np.ndarray, Rng], np.ndarray]

EXTENT = 1.1
"""A tile covers [-EXTENT, EXTENT] of the object's coordinates, whose unit is its radius."""

NO_CLASS = -1
"""Label of a thing."""

_THING_TILE = 64  # pixels; things are seen small


@dataclass(frozen=True)
class SceneObject:
    """An object or thing, constant through a video.

    Attributes:
        label: Index into ``CLASSES``, or ``NO_CLASS``.
        outline: (N, 2) float64 polygon in units of the radius.
        tile: (T, T) float32 in [0, 1]: mix of the two colours. Row and column i stand for
            ``EXTENT * ((2 * i + 1) / T - 1)``.
        colours: Two rows of hue (degrees, relative to the hue of the moment), saturation, value.
    """

    label: int
    outline: np.ndarray
    tile: np.ndarray
    colours: np.ndarray


def hsv_to_rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """Convert a colour: hue in degrees, any number, others in [0, 1]; (3,) float32 in [0, 1]."""
    k = (np.array([5.0, 3.0, 1.0]) + hue / 60.0) % 6.0
    fall = np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0)
    return (value * (1.0 - saturation * fall)).astype(np.float32)


def draw_object(rng: Rng, label: int, radius: float, held_out: bool = False) -> SceneObject:
    """Draw an instance of a class.

    Args:
        rng: Random generator.
        label: Index into ``CLASSES``.
        radius: Usual radius in pixels, for the resolution of the tile.
        held_out: Use a pattern outside of the usual range: wavy, and coarser (0.72 to 0.82 of the
            frequency) or finer (1.25 to 1.4), except for ``'blotches'``, whose grid is fixed; and
            a light ground with a dark figure whose hues are at least 90 degrees apart. Defaults to
            False.

    Returns:
        SceneObject: The instance.
    """
    family = CLASSES[label]
    outline = draw_outline(family.outline, rng)
    tile = draw_tile(family.material, rng, max(16, round(2 * EXTENT * radius)), held_out)
    # Dark ground and light figure in all, so that their order does not tell the class.
    dark = [rng.uniform(-30, 30), rng.uniform(0.6, 0.9), rng.uniform(0.25, 0.4)]
    light = [rng.uniform(0, 60), rng.uniform(0.3, 0.6), rng.uniform(0.85, 1.0)]
    colours = np.array([dark, light])
    if held_out:
        light[0] = dark[0] + rng.uniform(90, 270)
        colours = np.array([light, dark])
    return SceneObject(label, outline, tile, colours)


@lru_cache(maxsize=8)
def thing_pool(seed: int, stream: str, split: str, count: int) -> tuple[SceneObject, ...]:
    """Draw a pool of things.

    Args:
        seed: Seed of the world.
        stream: ``'video_things'``, ``'still_things'`` or ``'probe_things'``.
        split: Key of ``seeding.SPLITS``; each has its own pool.
        count: Number of things.

    Returns:
        tuple[SceneObject, ...]: The things.
    """
    return tuple(_draw_thing(item_rng(seed, stream, index, split)) for index in range(count))


def _draw_thing(rng: Rng) -> SceneObject:
    outline = THING_OUTLINES[str(rng.choice(list(THING_OUTLINES)))](rng)
    pattern = THING_PATTERNS[str(rng.choice(list(THING_PATTERNS)))]
    tile = pattern(*_tile_grid(_THING_TILE), rng)
    # Less contrast than the objects have.
    first = [rng.uniform(-40, 40), rng.uniform(0.3, 0.8), rng.uniform(0.35, 0.6)]
    second = [rng.uniform(-40, 40), rng.uniform(0.3, 0.8), rng.uniform(0.6, 0.9)]
    tile = np.ascontiguousarray(tile, dtype=np.float32)
    return SceneObject(NO_CLASS, outline, tile, np.array([first, second]))


def draw_outline(family: str, rng: Rng) -> np.ndarray:
    """Draw a simple polygon of a family of ``OUTLINES``: (N, 2) float64 within the unit disc."""
    return OUTLINES[family](rng)


def draw_tile(family: str, rng: Rng, resolution: int, held_out: bool = False) -> np.ndarray:
    """Draw the pattern of an instance, see ``SceneObject.tile`` and :func:`draw_object`."""
    x, y = _tile_grid(resolution)
    if held_out:
        fine = rng.random() >= 0.5
        scale = np.float32(rng.uniform(1.25, 1.4) if fine else rng.uniform(0.72, 0.82))
        phases = rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
        x, y = x + 0.1 * np.sin(5 * y + phases[0]), y + 0.1 * np.sin(5 * x + phases[1])
        x, y = scale * x, scale * y
    return np.ascontiguousarray(MATERIALS[family](x, y, rng), dtype=np.float32)


def _tile_grid(resolution: int) -> list[np.ndarray]:
    axis = (EXTENT * ((2 * np.arange(resolution) + 1) / resolution - 1)).astype(np.float32)
    return np.meshgrid(axis, axis)


def _polar(radii: np.ndarray, angles: np.ndarray) -> np.ndarray:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _disc(rng: Rng) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return _polar(np.ones(64), angles) * [1.0, rng.uniform(0.85, 1.0)]


def _triangle(rng: Rng) -> np.ndarray:
    apex = rng.uniform(0.95, 1.3)
    angles = np.array([0.0, np.pi - apex * 0.9, np.pi + apex * 0.9])
    return _polar(np.ones(3), angles)


def _square(rng: Rng) -> np.ndarray:
    half = np.pi / 4 + rng.uniform(-0.12, 0.12)
    return _polar(np.ones(4), np.array([half, np.pi - half, np.pi + half, -half]))


def _star(rng: Rng) -> np.ndarray:
    points = int(rng.integers(5, 7))
    radii = np.tile([1.0, rng.uniform(0.40, 0.52)], points)
    return _polar(radii, np.arange(2 * points) * np.pi / points)


def _cross(rng: Rng) -> np.ndarray:
    arm = rng.uniform(0.26, 0.36)
    quarter = np.array([[1.0, -arm], [1.0, arm], [arm, arm]])
    turns = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return np.concatenate([quarter @ turn.T for turn in turns]) / np.hypot(1.0, arm)


def _crescent(rng: Rng) -> np.ndarray:
    # Outer arc of the unit circle, closed by an arc of a circle moved to the right.
    shift, radius = rng.uniform(0.38, 0.5), rng.uniform(0.72, 0.8)
    x = (1 + shift**2 - radius**2) / (2 * shift)
    outer = np.arccos(x)
    inner = np.arctan2(np.sqrt(1 - x**2), x - shift)
    there = _polar(np.ones(40), np.linspace(outer, 2 * np.pi - outer, 40))
    back = _polar(np.full(32, radius), np.linspace(2 * np.pi - inner, inner, 32))[1:-1]
    back += np.array([shift, 0.0])
    return (np.concatenate([there, back]) + np.array([0.15, 0.0])) / 1.1


def _leaf(rng: Rng) -> np.ndarray:
    along = np.linspace(-1, 1, 32)
    width = rng.uniform(0.40, 0.52) * (1 - along**2)
    upper, lower = np.stack([along, width], axis=1), np.stack([along, -width], axis=1)
    return np.concatenate([upper, lower[-2:0:-1]])


def _gear(rng: Rng) -> np.ndarray:
    teeth = int(rng.integers(8, 12))
    inner = rng.uniform(0.74, 0.82)
    steps = np.arange(4 * teeth)
    radii = np.where(steps % 4 < 2, 1.0, inner)
    return _polar(radii, steps * 2 * np.pi / (4 * teeth))


def _blob(rng: Rng) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radii = np.ones(48)
    for wave in (2, 3, 4):
        radii += rng.uniform(0.1, 0.25) * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
    return _polar(radii, angles) / radii.max()


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


def _edge(wave: np.ndarray, softness: float = 0.15) -> np.ndarray:
    """Turn a wave into flat areas with soft edges, which survive scaling without flicker."""
    return np.clip(0.5 + 0.5 * wave / softness, 0.0, 1.0)


def _turned(x: np.ndarray, y: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    angle = rng.uniform(0, np.pi)
    c, s = np.cos(angle), np.sin(angle)
    return c * x + s * y, c * y - s * x


def _stripes(x: np.ndarray, y: np.ndarray, rng: Rng) -> np.ndarray:
    along, _ = _turned(x, y, rng)
    return _edge(np.sin(np.pi * rng.uniform(1.9, 2.4) * along + rng.uniform(0, 2 * np.pi)), 0.3)


def _checks(x: np.ndarray, y: np.ndarray, rng: Rng) -> np.ndarray:
    u, v = _turned(x, y, rng)
    frequency = np.pi * rng.uniform(2.4, 3.0)
    a, b = rng.uniform(0, 2 * np.pi, 2)
    return _edge(np.sin(frequency * u + a) * np.sin(frequency * v + b))


def _dots(x: np.ndarray, y: np.ndarray, rng: Rng) -> np.ndarray:
    u, v = _turned(x, y, rng)
    frequency = rng.uniform(1.9, 2.3)
    a, b = rng.uniform(0, 1, 2)
    du = (u * frequency + a) % 1.0 - 0.5
    dv = (v * frequency + b) % 1.0 - 0.5
    return _edge(rng.uniform(0.27, 0.34) - np.hypot(du, dv), 0.05)


def _blotches(x: np.ndarray, y: np.ndarray, rng: Rng) -> np.ndarray:
    # The noise has a fixed grid, so that an instance looks the same at every resolution.
    cells = int(rng.integers(6, 9))
    noise = rng.standard_normal((cells, cells)).astype(np.float32)
    smooth = cv2.resize(noise, x.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return _edge(smooth - np.float32(np.median(noise)), 0.25)


def _rings(x: np.ndarray, y: np.ndarray, rng: Rng) -> np.ndarray:
    centre = rng.uniform(-0.12, 0.12, 2)
    radius = np.hypot(x - centre[0], y - centre[1])
    wave = np.sin(2 * np.pi * rng.uniform(2.8, 3.4) * radius + rng.uniform(0, 2 * np.pi))
    return _edge(wave, 0.3)


def _plain(x: np.ndarray, y: np.ndarray, rng: Rng) -> np.ndarray:
    along, _ = _turned(x, y, rng)
    return 0.5 + rng.uniform(0.1, 0.25) * along


def _lines(x: np.ndarray, y: np.ndarray, rng: Rng) -> np.ndarray:
    along, _ = _turned(x, y, rng)
    wave = np.cos(2 * np.pi * rng.uniform(4.2, 5.2) * along + rng.uniform(0, 2 * np.pi))
    return _edge(wave - 0.3, 0.3)


def _rays(x: np.ndarray, y: np.ndarray, rng: Rng) -> np.ndarray:
    centre = rng.uniform(-0.1, 0.1, 2)
    angle = np.arctan2(y - centre[1], x - centre[0])
    return _edge(np.sin(int(rng.integers(7, 10)) * angle + rng.uniform(0, 2 * np.pi)), 0.4)


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


def _by_name(*functions: Callable) -> dict[str, Callable]:
    return {function.__name__[1:]: function for function in functions}


OUTLINES: dict[str, Outline] = _by_name(
    *(_disc, _triangle, _square, _star, _cross, _crescent, _leaf, _gear)
)
MATERIALS: dict[str, Pattern] = _by_name(
    *(_stripes, _checks, _dots, _blotches, _rings, _plain, _lines, _rays)
)
THING_OUTLINES: dict[str, Outline] = _by_name(_blob, _bar, _hook, _shard)
THING_PATTERNS: dict[str, Pattern] = _by_name(_speckles, _halves, _zigzag, _swirl)
