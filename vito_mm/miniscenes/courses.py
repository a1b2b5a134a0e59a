"""How an object moves, turns, tilts and changes colour with time."""

import numpy as np

from .presets import Preset
from .render import Pose


def wave(rng: np.random.Generator, times: np.ndarray, periods: tuple[float, float]) -> np.ndarray:
    """Draw a smooth swing.

    Args:
        rng: Source of period and phase.
        times: (N,) times, in seconds.
        periods: Range of the period, in seconds.

    Returns:
        numpy.ndarray: (N,) float64 in [-1, 1].
    """
    return np.sin(2 * np.pi * (times / rng.uniform(*periods) + rng.random()))


def draw_poses(
    rng: np.random.Generator, preset: Preset, times: np.ndarray, side: int
) -> list[Pose]:
    """Draw the course of an object through a video.

    Args:
        rng: Source of the course.
        preset: Ranges.
        times: (N,) times of the frames, in seconds.
        side: Height and width of the picture, in pixels.

    Returns:
        list[Pose]: N poses.
    """
    signs = rng.choice([-1.0, 1.0], 2)
    angle = rng.uniform(0, 2 * np.pi) + signs[0] * rng.uniform(*preset.spin) * times
    hue = rng.uniform(0, 360) + signs[1] * rng.uniform(*preset.hue_drift) * times
    radius = rng.uniform(*preset.radius) * preset.zoom ** wave(rng, times, (2.0, 4.0))
    radius = side * np.clip(radius, *preset.radius)
    tilt = preset.tilt * wave(rng, times, (2.0, 4.0))
    axis = rng.uniform(0, np.pi) + rng.uniform(-0.5, 0.5) * times
    low, high = preset.light
    light = (low + high) / 2 + (high - low) / 2 * wave(rng, times, (1.5, 3.0))
    slope = np.stack([0.2 * wave(rng, times, (1.5, 3.0)) for _ in range(2)], axis=1)
    path = np.stack([0.12 * wave(rng, times, (2.0, 4.0)) for _ in range(2)], axis=1)
    centre = side * (0.5 + rng.uniform(-0.05, 0.05, 2) + path)
    return [
        Pose(centre[i], radius[i], angle[i], tilt[i], axis[i], hue[i], light[i], tuple(slope[i]))
        for i in range(len(times))
    ]
