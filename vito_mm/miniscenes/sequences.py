"""Sequences for video object segmentation, in the layout of DAVIS 2017.

Two or three objects cross each other's ways in front of a moving background, and one thing passes
in front of them all. The masks are exact.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from .backgrounds import MARGIN, background_pool
from .layouts import voc_palette, write_jpeg, write_labels
from .objects import SceneObject, draw_object, thing_pool
from .presets import Preset
from .render import Camera, Light, Pose, Scene, render_scene, visible_masks
from .seeding import item_rng
from .videos import draw_poses, two_waves

NUM_FRAMES = 30
FPS = 12
_LEAST_VISIBLE = 0.3  # of an object, in the first frame
_THINGS = 24

Rng = np.random.Generator


def render_sequence(
    preset: Preset, seed: int, index: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Render the frames of a sequence with the objects that are seen.

    Args:
        preset: Sizes and ranges; frames have the size of its stills.
        seed: Seed of the world.
        index: Index of the sequence.

    Yields:
        tuple[numpy.ndarray, numpy.ndarray]: Frame, (height, width, 3) uint8 RGB, and objects,
        (height, width) uint8, 0 for the background.
    """
    rng = item_rng(seed, 'davis', index, 'val')
    size = preset.still_size
    times = np.arange(NUM_FRAMES) / FPS
    difficulty = preset.difficulty
    kinds = difficulty.other_backgrounds if difficulty else ()
    pool = background_pool(seed, 'still_backgrounds', preset.still_backgrounds, size, kinds, 'val')
    background = pool[rng.integers(len(pool))]
    pan = 0.5 * (MARGIN - 1) * np.array(size) * two_waves(rng, times, (2.0, 4.0))
    labels = rng.permutation(preset.classes)[: rng.integers(2, 4)]
    radius = preset.still_radius[1] * min(size)
    objects = [draw_object(rng, int(label), radius) for label in labels]
    things = thing_pool(seed, 'still_things', 'val', _THINGS)
    thing = things[rng.integers(len(things))]
    while True:  # until all objects are seen at the start
        courses = [
            (item, _wander(rng, preset, times, number / len(objects)))
            for number, item in enumerate(objects)
        ]
        courses.append((thing, _pass_by(rng, preset, times)))
        if _all_are_seen([(item, course[0]) for item, course in courses], size):
            break
    for frame in range(NUM_FRAMES):
        layers = tuple((item, course[frame]) for item, course in courses)
        image = render_scene(Scene(background, Camera(pan[frame]), layers, Light(np.ones(3))), size)
        mask = np.zeros(image.shape[:2], np.uint8)
        for number, part in enumerate(visible_masks(layers, size)[:-1], start=1):
            mask[part] = number
        yield image, mask


def write_davis_sequence(folder: Path, preset: Preset, seed: int, index: int) -> str:
    """Write a sequence in the layout of DAVIS 2017, resolution 480p; returns its name."""
    name = f'scene-{index:03d}'
    images, masks = (folder / kind / '480p' / name for kind in ('JPEGImages', 'Annotations'))
    for place in (images, masks):
        place.mkdir(parents=True, exist_ok=True)
    for number, (image, mask) in enumerate(render_sequence(preset, seed, index)):
        write_jpeg(images / f'{number:05d}.jpg', image)
        write_labels(masks / f'{number:05d}.png', mask, voc_palette())
    return name


def write_davis_list(folder: Path, names: list[str]) -> None:
    """Write the list of the validation sequences."""
    lists = folder / 'ImageSets' / '2017'
    lists.mkdir(parents=True, exist_ok=True)
    (lists / 'val.txt').write_text(''.join(f'{name}\n' for name in names))


def _wander(rng: Rng, preset: Preset, times: np.ndarray, phase: float) -> list[Pose]:
    """Draw the poses of an object that goes around in the picture, as fast as it likes."""
    width, height = preset.still_size
    poses = draw_poses(rng, preset, times, min(width, height))
    scale = preset.still_radius[1] / preset.radius[1]
    turns = phase + rng.uniform(-0.05, 0.05) + rng.choice([-1, 1]) * rng.uniform(0.1, 0.3) * times
    around = np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], axis=1)
    centres = np.array([width, height]) * (0.5 + rng.uniform(0.2, 0.3, 2) * around)
    return [
        replace(pose, centre=centre, radius=scale * pose.radius)
        for pose, centre in zip(poses, centres, strict=True)
    ]


def _pass_by(rng: Rng, preset: Preset, times: np.ndarray) -> list[Pose]:
    """Draw the poses of a thing that crosses the picture in front of all."""
    width, height = preset.still_size
    radius = 0.6 * preset.still_radius[0] * min(width, height)
    hue, light = rng.uniform(0, 360), rng.uniform(*preset.light)
    start, end = rng.choice([-1, 1]) * (0.5 * width + radius) * np.array([-1, 1])
    share = times / times[-1]
    x = width / 2 + start + share * (end - start)
    y = height * rng.uniform(0.35, 0.65)
    angle = rng.uniform(0, 2 * np.pi) + times
    return [
        Pose(np.array([x[i], y]), radius, angle[i], hue=hue, light=light) for i in range(len(times))
    ]


def _all_are_seen(layers: list[tuple[SceneObject, Pose]], size: tuple[int, int]) -> bool:
    seen = visible_masks(layers, size)[:-1].sum(axis=(1, 2))
    alone = [visible_masks([layer], size).sum() for layer in layers[:-1]]
    return all(a >= max(1, _LEAST_VISIBLE * b) for a, b in zip(seen, alone, strict=True))
