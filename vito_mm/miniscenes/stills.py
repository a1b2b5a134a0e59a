"""Stills: a few objects of the same world, with the exact mask of the visible part of each."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .backgrounds import MARGIN, background_pool, view_background
from .objects import SceneObject, draw_object, thing_pool
from .presets import Preset
from .render import Camera, Layer, Light, Pose, Scene, coverage, paint, render_scene, to_uint8
from .seeding import item_rng

Rng = np.random.Generator

_LEAST_VISIBLE = 0.5  # of an object's own area: less would show too little of its class
_TRIES = 20
_SUPERSAMPLING = 8  # finer than in videos, for the masks


@dataclass(frozen=True)
class Still:
    """A picture with its annotations.

    Attributes:
        image: (height, width, 3) uint8 RGB.
        labels: (N,) int64 indices into ``CLASSES``, from back to front.
        masks: (N, height, width) bool, the visible part of each object, without overlap.
        objects: The N objects with their poses, from back to front.
        occluders: Things in front of all objects, from back to front.
    """

    image: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    objects: tuple[Layer, ...]
    occluders: tuple[Layer, ...] = ()

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) int64 boxes x1, y1, x2, y2 around the masks; x2 and y2 lie just outside."""
        return np.array([mask_box(mask) for mask in self.masks], dtype=np.int64).reshape(-1, 4)

    def semantic(self, ids: tuple[int, ...], background: int) -> np.ndarray:
        """Draw the label image, (height, width) uint8, with these ids of ``CLASSES``."""
        image = np.full(self.image.shape[:2], background, np.uint8)
        for label, mask in zip(self.labels, self.masks, strict=True):
            image[mask] = ids[label]
        return image


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Compute the box x1, y1, x2, y2 around a mask that is not empty; x2, y2 just outside."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class _Placed:
    """Items placed so far, from back to front, with the visible part of each."""

    def __init__(self, size: tuple[int, int], supersampling: int = 4) -> None:
        self.size, self.supersampling = size, supersampling
        self.layers: list[Layer] = []
        self.alphas: list[np.ndarray] = []
        self.masks: list[np.ndarray] = []
        self._areas: list[int] = []

    def put(self, item: SceneObject, draw_pose: Callable[[], Pose]) -> None:
        """Put an item in front where the others stay visible enough; or omit it."""
        for _ in range(_TRIES):
            pose = draw_pose()
            alpha = coverage(item, pose, self.size, self.supersampling)
            mask = alpha > 0.5
            seen = [other & ~mask for other in self.masks]
            if mask.any() and all(
                part.sum() >= _LEAST_VISIBLE * area
                for part, area in zip(seen, self._areas, strict=True)
            ):
                self.masks = [*seen, mask]
                self._areas.append(int(mask.sum()))
                self.layers.append((item, pose))
                self.alphas.append(alpha)
                return


@dataclass(frozen=True)
class _Surroundings:
    """Surroundings of the objects of a harder still; ``things`` are to lie in front of them."""

    background: np.ndarray
    camera: Camera
    light: Light
    clutter: tuple[Layer, ...]
    things: tuple[SceneObject, ...]

    def render(self, placed: _Placed) -> np.ndarray:
        layers = (*self.clutter, *placed.layers)
        scene = Scene(self.background, self.camera, layers, self.light)
        return render_scene(scene, placed.size, [None] * len(self.clutter) + placed.alphas)


@dataclass(frozen=True)
class _Backdrop:
    """Background of a simple still."""

    picture: np.ndarray
    things: tuple[SceneObject, ...] = ()

    def render(self, placed: _Placed) -> np.ndarray:
        picture = self.picture
        for (scene_object, pose), alpha in zip(placed.layers, placed.alphas, strict=True):
            picture = paint(picture, scene_object, pose, alpha)
        return to_uint8(picture)


def _draw_surroundings(
    rng: Rng, preset: Preset, seed: int, kind: str, split: str, size: tuple[int, int]
) -> _Backdrop | _Surroundings:
    """Draw surroundings from the pools of ``kind``, ``'still'`` or ``'probe'``."""
    if preset.difficulty is None:
        pool = background_pool(seed, f'{kind}_backgrounds', preset.still_backgrounds, size)
        return _Backdrop(view_background(pool[rng.integers(len(pool))], rng.random(2), size))
    # Each split has its own pools.
    difficulty = preset.difficulty
    kinds = difficulty.other_backgrounds
    count = preset.still_backgrounds
    pool = background_pool(seed, f'{kind}_backgrounds', count, size, kinds, split)
    free = 0.5 * (MARGIN - 1) * np.array(size)
    camera = Camera(
        position=rng.uniform(-free, free),
        zoom=difficulty.camera_zoom ** rng.uniform(-1, 1),
        roll=rng.uniform(-difficulty.camera_roll, difficulty.camera_roll),
    )
    light = Light(
        gains=1 + rng.uniform(-difficulty.tint, difficulty.tint, 3),
        shadow=rng.uniform(0, difficulty.shadow),
        edge=(rng.uniform(0, 2 * np.pi), rng.uniform(-0.6, 0.6)),
    )
    things = thing_pool(seed, f'{kind}_things', split, difficulty.things)
    behind, before = (
        [things[rng.integers(len(things))] for _ in range(rng.integers(low, high + 1))]
        for low, high in (difficulty.clutter, (0, difficulty.occluders[1]))
    )
    clutter = [
        (thing, _draw_thing_pose(rng, preset, size, difficulty.clutter_radius)) for thing in behind
    ]
    return _Surroundings(
        pool[rng.integers(len(pool))], camera, light, tuple(clutter), tuple(before)
    )


def _draw_thing_pose(
    rng: Rng, preset: Preset, size: tuple[int, int], radii: tuple[float, float]
) -> Pose:
    return Pose(
        centre=rng.random(2) * size,
        radius=rng.uniform(*radii) * min(size),
        angle=rng.uniform(0, 2 * np.pi),
        hue=rng.uniform(0, 360),
        light=rng.uniform(*preset.light),
    )


def _draw_pose(rng: Rng, preset: Preset, size: tuple[int, int], radii: tuple[float, float]) -> Pose:
    width, height = size
    pose = Pose(
        centre=np.array([rng.uniform(0.15, 0.85) * width, rng.uniform(0.15, 0.85) * height]),
        radius=rng.uniform(*radii) * min(size),
        angle=rng.uniform(0, 2 * np.pi),
        tilt=preset.tilt * np.sin(2 * np.pi * rng.random()),
        tilt_axis=rng.uniform(0, np.pi),
        hue=rng.uniform(0, 360),
        light=rng.uniform(*preset.light),
        light_slope=tuple(rng.uniform(-0.2, 0.2, 2)),
    )
    difficulty = preset.difficulty
    if difficulty is None:
        return pose
    phases = rng.uniform(0, 2 * np.pi, 2)
    bends = rng.uniform(0.3, 1.0, 2) * difficulty.bend
    perspective = rng.uniform(0, difficulty.perspective)
    return replace(pose, perspective=perspective, bend=(bends[0], phases[0], bends[1], phases[1]))


def render_still(preset: Preset, seed: int, stream: str, split: str, index: int) -> Still:
    """Render a still.

    Args:
        preset: Sizes and ranges.
        seed: Seed of the world.
        stream: ``'ade20k'``, ``'voc'``, ``'coco'`` or ``'lvis'``; each has its own pictures.
        split: Key of ``seeding.SPLITS``.
        index: Index of the still in its split.

    Returns:
        Still: The picture with exact masks.
    """
    rng = item_rng(seed, stream, index, split)
    size = preset.still_size
    surroundings = _draw_surroundings(rng, preset, seed, 'still', split, size)
    wanted = int(rng.integers(preset.objects_per_still[0], preset.objects_per_still[1] + 1))
    placed = _Placed(size, _SUPERSAMPLING)
    for _ in range(wanted):
        label = preset.classes[rng.integers(len(preset.classes))]
        radius = preset.still_radius[1] * min(size)
        scene_object = draw_object(rng, label, radius)
        placed.put(scene_object, lambda: _draw_pose(rng, preset, size, preset.still_radius))
    objects = tuple(placed.layers)
    _put_things(placed, rng, preset, surroundings)
    return _still(surroundings, placed, objects)


def render_probe_still(preset: Preset, seed: int, split: str, index: int) -> Still:
    """Render a picture of one object, framed as in the videos.

    Args:
        preset: Sizes and ranges.
        seed: Seed of the world.
        split: ``'train'``, ``'val'`` or ``'held_out'``, see :func:`.objects.draw_object`.
        index: Index of the picture in its split; its class is ``preset.label_of(index)``.

    Returns:
        Still: The square picture, with the mask of its object.
    """
    rng = item_rng(seed, 'probe', index, split)
    side = preset.video_side
    size = (side, side)
    surroundings = _draw_surroundings(rng, preset, seed, 'probe', split, size)
    radius = side * sum(preset.radius) / 2
    scene_object = draw_object(rng, preset.label_of(index), radius, split == 'held_out')
    pose = _draw_pose(rng, preset, size, preset.radius)
    # Large objects stay near the middle, as in the videos.
    reach = 0.15 if preset.difficulty is None else max(0.15, preset.difficulty.off_centre)
    pose = replace(pose, centre=side * rng.uniform(0.5 - reach, 0.5 + reach, 2))
    placed = _Placed(size)
    placed.put(scene_object, lambda: pose)
    objects = tuple(placed.layers)
    _put_things(placed, rng, preset, surroundings)
    return _still(surroundings, placed, objects)


def render_probe_image(preset: Preset, seed: int, split: str, index: int) -> np.ndarray:
    """Render the picture of :func:`render_probe_still`, (side, side, 3) uint8 RGB."""
    return render_probe_still(preset, seed, split, index).image


def _still(
    surroundings: _Backdrop | _Surroundings, placed: _Placed, objects: tuple[Layer, ...]
) -> Still:
    return Still(
        image=surroundings.render(placed),
        labels=np.array([scene_object.label for scene_object, _ in objects], dtype=np.int64),
        masks=np.stack(placed.masks[: len(objects)]),
        objects=objects,
        occluders=tuple(placed.layers[len(objects) :]),
    )


def _put_things(
    placed: _Placed, rng: Rng, preset: Preset, surroundings: _Backdrop | _Surroundings
) -> None:
    for thing in surroundings.things:
        radii = preset.difficulty.occluder_radius
        placed.put(thing, lambda radii=radii: _draw_thing_pose(rng, preset, placed.size, radii))
