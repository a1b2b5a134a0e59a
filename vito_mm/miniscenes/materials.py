"""Materials: eight families of patterns, each instance with its own frequency and phase."""

from collections.abc import Callable

import cv2
import numpy as np

Rng = np.random.Generator
EXTENT = 1.1
"""A tile covers [-EXTENT, EXTENT] of the object's coordinates, whose unit is its radius."""


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
    return _edge(
        np.sin(2 * np.pi * rng.uniform(2.8, 3.4) * radius + rng.uniform(0, 2 * np.pi)), 0.3
    )


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


MATERIALS: dict[str, Callable[[np.ndarray, np.ndarray, Rng], np.ndarray]] = {
    'stripes': _stripes,
    'checks': _checks,
    'dots': _dots,
    'blotches': _blotches,
    'rings': _rings,
    'plain': _plain,
    'lines': _lines,
    'rays': _rays,
}


def _unlike_any(x: np.ndarray, y: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    scale = np.float32(rng.uniform(0.72, 0.82) if rng.random() < 0.5 else rng.uniform(1.25, 1.4))
    phases = rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
    x, y = x + 0.1 * np.sin(5 * y + phases[0]), y + 0.1 * np.sin(5 * x + phases[1])
    return scale * x, scale * y


def draw_tile(family: str, rng: Rng, resolution: int, held_out: bool = False) -> np.ndarray:
    """Draw the pattern of an instance as a tile in the object's coordinates.

    Args:
        family: Key of ``MATERIALS``.
        rng: Source of the instance's own frequency, phase and direction.
        resolution: Height and width of the tile, in pixels.
        held_out: Whether the pattern is one that is not in the others' range: wavy, and coarser
            (0.72 to 0.82 of the frequency) or finer (1.25 to 1.4). Of ``'blotches'``, whose grid is
            fixed, it is not another one. Defaults to False.

    Returns:
        numpy.ndarray: (resolution, resolution) float32 in [0, 1]: the mix of the object's two
        colours. Row and column i stand for ``EXTENT * ((2 * i + 1) / resolution - 1)``.
    """
    axis = (EXTENT * ((2 * np.arange(resolution) + 1) / resolution - 1)).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    if held_out:
        x, y = _unlike_any(x, y, rng)
    return np.ascontiguousarray(MATERIALS[family](x, y, rng), dtype=np.float32)
