"""Geometry of MiniScenes computed by other means: a pinhole camera, and the even-odd rule."""

import numpy as np

from vito_mm.miniscenes.objects import SceneObject
from vito_mm.miniscenes.render import Pose, pose_matrix


def random_pose(rng: np.random.Generator, **changes) -> Pose:
    """Draw a pose that is tilted, near and bent."""
    return Pose(
        centre=rng.uniform(20, 50, 2),
        radius=rng.uniform(10, 30),
        angle=rng.uniform(0, 7),
        tilt=rng.uniform(-0.9, 0.9),
        tilt_axis=rng.uniform(0, 3),
        perspective=rng.uniform(0, 0.3),
        bend=(*rng.uniform(0, 0.15, 1), 1.0, *rng.uniform(0, 0.15, 1), 4.0),
        **changes,
    )


def pinhole(point: np.ndarray, pose: Pose) -> np.ndarray:
    """Bend a point, turn it in three dimensions about an axis, and project it."""
    u, v = point
    a, a_phase, b, b_phase = pose.bend
    v = v + a * np.sin(2.2 * u + a_phase)
    u = u + b * np.sin(2.8 * v + b_phase)
    c, s = np.cos(pose.angle), np.sin(pose.angle)
    flat = np.array([u * c - v * s, u * s + v * c, 0.0])
    # Rodrigues: a turn by the tilt about an axis in the plane of the picture.
    axis = np.array([np.cos(pose.tilt_axis), np.sin(pose.tilt_axis), 0.0])
    turned = (
        flat * np.cos(pose.tilt)
        + np.cross(axis, flat) * np.sin(pose.tilt)
        + axis * (axis @ flat) * (1 - np.cos(pose.tilt))
    )
    return pose.centre + pose.radius * turned[:2] / (1 + pose.perspective * turned[2])


def shares_of_pixels(item: SceneObject, pose: Pose, width: int, height: int) -> np.ndarray:
    """Share of each pixel that an item covers, from 8 x 8 points, shape (height, width)."""
    corners = item.outline
    if pose.bend:
        ends = np.roll(corners, -1, axis=0)
        corners = np.concatenate(
            [
                start + np.arange(0, 1, 0.05 / np.hypot(*(end - start)))[:, None] * (end - start)
                for start, end in zip(corners, ends, strict=True)
            ]
        )
        polygon = np.array([pinhole(corner, pose) for corner in corners])
    else:
        polygon = pose.centre + corners @ pose_matrix(pose).T
    steps = (np.arange(8) + 0.5) / 8
    x = (np.arange(width)[:, None] + steps).ravel()
    y = (np.arange(height)[:, None] + steps).ravel()[:, None]
    inside = np.zeros((height * 8, width * 8), bool)
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y1 != y2:
            rows = np.flatnonzero((y1 > y[:, 0]) != (y2 > y[:, 0]))
            inside[rows] ^= x < x1 + (y[rows] - y1) * (x2 - x1) / (y2 - y1)
    return inside.reshape(height, 8, width, 8).mean(axis=(1, 3))
