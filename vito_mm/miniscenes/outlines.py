"""Outlines: eight families of polygons in the unit disc, each instance a little different."""

from collections.abc import Callable

import numpy as np

Rng = np.random.Generator


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


OUTLINES: dict[str, Callable[[Rng], np.ndarray]] = {
    'disc': _disc,
    'triangle': _triangle,
    'square': _square,
    'star': _star,
    'cross': _cross,
    'crescent': _crescent,
    'leaf': _leaf,
    'gear': _gear,
}


def draw_outline(family: str, rng: Rng) -> np.ndarray:
    """Draw an outline of a family.

    Args:
        family: Key of ``OUTLINES``.
        rng: Source of the instance's own proportions.

    Returns:
        numpy.ndarray: Corners of a simple polygon within the unit disc, (N, 2) float64, x and y.
    """
    return OUTLINES[family](rng)
