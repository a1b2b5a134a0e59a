"""Stills: one to four objects of the same world, with the exact mask of what is seen of each."""

from dataclasses import dataclass, replace

import numpy as np

from .backgrounds import background_pool, view_background
from .classes import CLASSES
from .presets import Preset
from .render import Pose, SceneObject, coverage, draw_object, paint, to_uint8
from .seeding import item_rng

_LEAST_VISIBLE = 0.5  # of an object's own area: less than this says too little of its class
_TRIES = 20
_SUPERSAMPLING = 8  # finer than in videos, for the masks


@dataclass(frozen=True)
class Still:
    """A picture and what is in it.

    Attributes:
        image: (height, width, 3) uint8 RGB.
        labels: (N,) int64 indices into ``CLASSES``, from back to front.
        masks: (N, height, width) bool, what is seen of each object. They do not overlap.
        objects: The N objects with their poses, from back to front.
    """

    image: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    objects: tuple[tuple[SceneObject, Pose], ...]

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) int64 boxes x1, y1, x2, y2 around the masks; x2 and y2 lie just outside."""
        return np.array([mask_box(mask) for mask in self.masks], dtype=np.int64).reshape(-1, 4)

    def semantic(self, ids: tuple[int, ...], background: int) -> np.ndarray:
        """Draw the label image.

        Args:
            ids: Id of each of ``CLASSES``.
            background: Id of the background.

        Returns:
            numpy.ndarray: (height, width) uint8.
        """
        image = np.full(self.image.shape[:2], background, np.uint8)
        for label, mask in zip(self.labels, self.masks, strict=True):
            image[mask] = ids[label]
        return image


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Give the box around a mask.

    Args:
        mask: (height, width) bool with at least one pixel set.

    Returns:
        tuple[int, int, int, int]: x1, y1, x2, y2 with x2 and y2 just outside.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _draw_pose(
    rng: np.random.Generator, preset: Preset, size: tuple[int, int], radii: tuple[float, float]
) -> Pose:
    width, height = size
    return Pose(
        centre=np.array([rng.uniform(0.15, 0.85) * width, rng.uniform(0.15, 0.85) * height]),
        radius=rng.uniform(*radii) * min(size),
        angle=rng.uniform(0, 2 * np.pi),
        tilt=preset.tilt * np.sin(2 * np.pi * rng.random()),
        tilt_axis=rng.uniform(0, np.pi),
        hue=rng.uniform(0, 360),
        light=rng.uniform(*preset.light),
        light_slope=tuple(rng.uniform(-0.2, 0.2, 2)),
    )


def render_still(preset: Preset, seed: int, stream: str, split: str, index: int) -> Still:
    """Render a still.

    Args:
        preset: Sizes and ranges.
        seed: Seed of the world.
        stream: ``'ade20k'``, ``'voc'``, ``'coco'`` or ``'lvis'``: each has its own pictures.
        split: Key of ``seeding.SPLITS``.
        index: Index of the still in its split.

    Returns:
        Still: The picture with exact masks.
    """
    rng = item_rng(seed, stream, index, split)
    size = preset.still_size
    pool = background_pool(seed, 'still_backgrounds', preset.still_backgrounds, size)
    picture = view_background(pool[rng.integers(len(pool))], rng.random(2), size)
    wanted = int(rng.integers(preset.objects_per_still[0], preset.objects_per_still[1] + 1))
    placed: list[tuple[SceneObject, Pose, np.ndarray]] = []
    masks: list[np.ndarray] = []
    areas: list[int] = []
    for _ in range(wanted):
        label = int(rng.integers(len(CLASSES)))
        radius = preset.still_radius[1] * min(size)
        scene_object = draw_object(rng, label, radius)
        for _ in range(_TRIES):
            pose = _draw_pose(rng, preset, size, preset.still_radius)
            alpha = coverage(scene_object, pose, size, _SUPERSAMPLING)
            mask = alpha > 0.5
            seen = [other & ~mask for other in masks]
            if mask.any() and all(
                part.sum() >= _LEAST_VISIBLE * area for part, area in zip(seen, areas, strict=True)
            ):
                masks = [*seen, mask]
                areas.append(int(mask.sum()))
                placed.append((scene_object, pose, alpha))
                break
    for scene_object, pose, alpha in placed:
        picture = paint(picture, scene_object, pose, alpha)
    return Still(
        image=to_uint8(picture),
        labels=np.array([scene_object.label for scene_object, _, _ in placed], dtype=np.int64),
        masks=np.stack(masks),
        objects=tuple((scene_object, pose) for scene_object, pose, _ in placed),
    )


def render_probe_image(preset: Preset, seed: int, split: str, index: int) -> np.ndarray:
    """Render a picture of one large object, framed as in the videos.

    Args:
        preset: Sizes and ranges.
        seed: Seed of the world.
        split: ``'train'`` or ``'val'``.
        index: Index of the picture in its split; its class is ``index % len(CLASSES)``.

    Returns:
        numpy.ndarray: (side, side, 3) uint8 RGB.
    """
    rng = item_rng(seed, 'probe', index, split)
    side = preset.video_side
    size = (side, side)
    pool = background_pool(seed, 'probe_backgrounds', preset.still_backgrounds, size)
    picture = view_background(pool[rng.integers(len(pool))], rng.random(2), size)
    scene_object = draw_object(rng, index % len(CLASSES), side * sum(preset.radius) / 2)
    pose = _draw_pose(rng, preset, size, preset.radius)
    # Large objects stay near the middle, as in the videos.
    pose = replace(pose, centre=side * rng.uniform(0.35, 0.65, 2))
    return to_uint8(paint(picture, scene_object, pose))
