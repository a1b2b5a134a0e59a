"""Videos: an object that moves, turns, tilts and changes colour in front of a background.

With a ``difficulty`` a video has shots of the object in changing places, with clutter, occluders, a
second object, a moving camera and coloured light.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from .backgrounds import MARGIN, background_pool, view_background
from .classes import CLASSES
from .objects import SceneObject, draw_object, thing_pool
from .presets import Preset
from .render import Camera, Light, Pose, Scene, paint, render_scene, to_uint8
from .seeding import item_rng

Rng = np.random.Generator


@dataclass(frozen=True)
class Script:
    """Objects and shots of a video.

    Attributes:
        objects: The companion, if there is one, and the object: from back to front.
        starts: (S,) number of the first frame of each shot; the first is 0.
        seeds: (S,) seed of each shot.
    """

    objects: tuple[SceneObject, ...]
    starts: np.ndarray
    seeds: np.ndarray


def render_video(
    preset: Preset, seed: int, index: int, times: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Render the frames of a video.

    Args:
        preset: Sizes and ranges.
        seed: Seed of the world.
        index: Index of the video.
        times: (N,) times to render, in seconds, ascending. Defaults to those of all frames.

    Yields:
        numpy.ndarray: (side, side, 3) uint8 RGB.
    """
    side = preset.video_side
    if preset.difficulty is not None:
        for scene in draw_scenes(preset, seed, index, times):
            yield render_scene(scene, (side, side))
        return
    rng = item_rng(seed, 'videos', index)
    if times is None:
        times = np.arange(preset.num_frames) / preset.fps
    pool = background_pool(seed, 'video_backgrounds', preset.backgrounds, (side, side))
    background = pool[rng.integers(len(pool))]
    mean_radius = side * sum(preset.radius) / 2
    scene_object = draw_object(rng, preset.label_of(index), mean_radius)
    poses = draw_poses(rng, preset, times, side)
    pan = np.stack([0.5 + preset.pan * wave(rng, times, (2.0, 4.0)) for _ in range(2)], axis=1)
    for pose, offset in zip(poses, pan, strict=True):
        yield to_uint8(paint(view_background(background, offset, (side, side)), scene_object, pose))


def write_video(file: str | os.PathLike, preset: Preset, seed: int, index: int) -> dict[str, Any]:
    """Render a video and write it as H.264 in MP4.

    Args:
        file: File to write.
        preset: Sizes and ranges.
        seed: Seed of the world.
        index: Index of the video.

    Returns:
        dict: The row of the manifest, without ``path``. With a ``difficulty``, ``cuts`` has the
        times of the cuts in seconds, and ``companion`` the label of the second object, or None.

    Raises:
        ModuleNotFoundError: If PyAV is missing.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'MiniScenes writes videos with PyAV, which is not installed: pip install av'
        ) from error
    side = preset.video_side
    # One thread and no time stamps, so that the same frames give the same bytes.
    with av.open(os.fspath(file), 'w', format='mp4', options={'fflags': '+bitexact'}) as container:
        stream = container.add_stream('libx264', rate=preset.fps)
        stream.width = stream.height = side
        stream.pix_fmt = 'yuv420p'
        stream.thread_count = 1
        stream.options = {
            'preset': 'veryfast',
            'crf': str(preset.crf),
            'g': str(preset.gop),
            'bf': '0',
            'threads': '1',
        }
        if preset.difficulty is not None:
            # Without this, x264 approximates as suits the CPU, and about once in a hundred times
            # encodes the same frames otherwise. The older worlds stay as they were.
            stream.options['x264-params'] = 'cpu-independent=1'
        for picture in render_video(preset, seed, index):
            planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format='yuv420p')))
        container.mux(stream.encode(None))
    label = preset.label_of(index)
    family = CLASSES[label]
    row = {
        'label': label,
        'class_name': family.name,
        'title': f'A {family.title} turning in changing light, take {index}',
        'fps': preset.fps,
        'num_frames': preset.num_frames,
        'seconds': preset.num_frames / preset.fps,
    }
    if preset.difficulty is not None:
        script = draw_script(preset, seed, index)
        row['cuts'] = (script.starts[1:] / preset.fps).tolist()
        row['companion'] = script.objects[0].label if len(script.objects) > 1 else None
    return row


def draw_script(preset: Preset, seed: int, index: int) -> Script:
    """Draw objects and shots of a video of a preset with a ``difficulty``."""
    difficulty = preset.difficulty
    rng = item_rng(seed, 'videos', index)
    starts = draw_starts(rng, preset)
    radius = preset.video_side * sum(preset.radius) / 2
    objects = [draw_object(rng, preset.label_of(index), radius)]
    if rng.random() < difficulty.companion:
        label = preset.classes[rng.integers(len(preset.classes))]
        smaller = radius * sum(difficulty.companion_size) / 2
        objects.insert(0, draw_object(rng, label, smaller))
    return Script(tuple(objects), starts, rng.integers(2**63, size=len(starts)))


def around_first_cut(preset: Preset, seed: int, index: int) -> np.ndarray | None:
    """Compute the times, in seconds, of the frames before and after the first cut of a video.

    None where a video, or a preset, has no cuts.
    """
    starts = () if preset.difficulty is None else draw_script(preset, seed, index).starts
    return np.array([starts[1] - 1, starts[1]]) / preset.fps if len(starts) > 1 else None


def draw_starts(rng: Rng, preset: Preset) -> np.ndarray:
    """Draw the first frame of each shot: (S,) int64.

    No shot is shorter than the range of the preset. The last one is longer where the rest would be
    too short.
    """
    low, high = preset.difficulty.shot
    shortest = round(low * preset.fps)
    starts = [0]
    while True:
        start = starts[-1] + round(rng.uniform(low, high) * preset.fps)
        if start + shortest > preset.num_frames:
            return np.array(starts)
        starts.append(start)


def draw_scenes(
    preset: Preset, seed: int, index: int, times: np.ndarray | None = None
) -> Iterator[Scene]:
    """Draw the scenes of a video of a preset with a ``difficulty``, see :func:`render_video`.

    Yields:
        Scene: One for each time. Its layers are clutter, the companion, the object, occluders.
    """
    script = draw_script(preset, seed, index)
    if times is None:
        times = np.arange(preset.num_frames) / preset.fps
    starts = script.starts / preset.fps
    lengths = np.diff(starts, append=preset.num_frames / preset.fps)
    shots = np.searchsorted(starts, times, side='right') - 1
    for shot in np.unique(shots):
        rng = np.random.default_rng(int(script.seeds[shot]))
        within = times[shots == shot] - starts[shot]
        yield from _draw_shot(rng, preset, seed, script.objects, within, lengths[shot])


def _draw_shot(
    rng: Rng,
    preset: Preset,
    seed: int,
    objects: tuple[SceneObject, ...],
    times: np.ndarray,
    length: float,
) -> Iterator[Scene]:
    """Draw a shot of ``length`` seconds; ``times`` count from its start."""
    difficulty, side = preset.difficulty, preset.video_side
    size = (side, side)
    pool = background_pool(
        seed, 'video_backgrounds', preset.backgrounds, size, difficulty.backgrounds
    )
    background = pool[rng.integers(len(pool))]
    shake = side * difficulty.shake * two_waves(rng, times, (0.2, 0.6))
    pan = side * (MARGIN - 1) * preset.pan * two_waves(rng, times, (2.0, 4.0))
    zooms = difficulty.camera_zoom ** wave(rng, times, (2.0, 5.0))
    rolls = difficulty.camera_roll * wave(rng, times, (2.0, 5.0))
    cameras = [Camera(*parts) for parts in zip(pan + shake, zooms, rolls, strict=True)]
    lights = _draw_lights(rng, preset, times)

    things = thing_pool(seed, 'video_things', 'train', difficulty.things)
    clutter = [
        (things[rng.integers(len(things))], _drift(rng, preset, times, side))
        for _ in range(rng.integers(difficulty.clutter[0], difficulty.clutter[1] + 1))
    ]
    occluders = [
        (things[rng.integers(len(things))], _cross(rng, preset, times, length, side))
        for _ in range(rng.integers(difficulty.occluders[0], difficulty.occluders[1] + 1))
    ]
    courses = [
        _follow(rng, preset, times, side, companion=item is not objects[-1]) for item in objects
    ]
    for frame, camera in enumerate(cameras):
        behind = [(thing, camera.see(course[frame], size)) for thing, course in clutter]
        # The camera follows the objects, but a hand shakes the whole picture.
        shown = [
            (item, _through(course[frame], camera, shake[frame], preset, item is objects[-1]))
            for item, course in zip(objects, courses, strict=True)
        ]
        before = [(thing, course[frame]) for thing, course in occluders]
        yield Scene(background, camera, (*behind, *shown, *before), lights[frame])


def _draw_lights(rng: Rng, preset: Preset, times: np.ndarray) -> list[Light]:
    difficulty = preset.difficulty
    gains = 1 + difficulty.tint * np.stack([wave(rng, times, (1.5, 3.0)) for _ in range(3)], 1)
    shadow = rng.uniform(0, difficulty.shadow)
    angle = rng.uniform(0, 2 * np.pi) + rng.uniform(-0.3, 0.3) * times
    distance = 0.6 * wave(rng, times, (1.5, 3.0))
    return [Light(gains[i], shadow, (angle[i], distance[i])) for i in range(len(times))]


def _drift(rng: Rng, preset: Preset, times: np.ndarray, side: int) -> list[Pose]:
    """Draw the poses of clutter in the scene."""
    start, speed = side * rng.uniform(-0.75, 0.75, 2), side * rng.uniform(-0.1, 0.1, 2)
    radius = side * rng.uniform(*preset.difficulty.clutter_radius)
    angle = rng.uniform(0, 2 * np.pi) + rng.uniform(-0.8, 0.8) * times
    return [
        Pose(start + speed * time, radius, turn, hue=hue, light=light)
        for time, turn, (hue, light) in zip(times, angle, _surface(rng, preset, times), strict=True)
    ]


def _cross(rng: Rng, preset: Preset, times: np.ndarray, length: float, side: int) -> list[Pose]:
    """Draw the poses of an occluder that crosses the picture."""
    radius = side * rng.uniform(*preset.difficulty.occluder_radius)
    takes = rng.uniform(*preset.difficulty.crossing)
    # Where the crossing is longer than the shot, its middle is in the shot.
    middle = rng.uniform(min(0.5 * takes, 0.5 * length), max(length - 0.5 * takes, 0.5 * length))
    heading = rng.uniform(0, 2 * np.pi)
    along = np.array([np.cos(heading), np.sin(heading)])
    across = side * rng.uniform(-0.25, 0.25) * np.array([-along[1], along[0]])
    reach = 0.6 * side + radius
    angle = rng.uniform(0, 2 * np.pi) + rng.uniform(-1.0, 1.0) * times
    return [
        Pose(
            side / 2 + across + along * reach * 2 * (time - middle) / takes,
            radius,
            turn,
            hue=hue,
            light=light,
        )
        for time, turn, (hue, light) in zip(times, angle, _surface(rng, preset, times), strict=True)
    ]


def _surface(rng: Rng, preset: Preset, times: np.ndarray) -> list[tuple[float, float]]:
    """Draw hue and light of a thing, which change as those of an object do."""
    hue = rng.uniform(0, 360) + rng.choice([-1.0, 1.0]) * rng.uniform(*preset.hue_drift) * times
    low, high = preset.light
    light = (low + high) / 2 + (high - low) / 2 * wave(rng, times, (1.5, 3.0))
    return list(zip(hue, light, strict=True))


def _follow(rng: Rng, preset: Preset, times: np.ndarray, side: int, companion: bool) -> list[Pose]:
    """Draw the poses of an object in the picture."""
    difficulty = preset.difficulty
    poses = draw_poses(rng, preset, times, side)
    phases = rng.uniform(0, 2 * np.pi, 2) + rng.uniform(1.5, 4.0, 2) * times[:, None]
    bends = rng.uniform(0.3, 1.0, 2) * difficulty.bend
    perspective = rng.uniform(0, difficulty.perspective)
    offset, size = side * rng.uniform(-difficulty.off_centre, difficulty.off_centre, 2), 1.0
    if companion:
        around = rng.uniform(0, 2 * np.pi)
        offset = side * 0.32 * np.array([np.cos(around), np.sin(around)])
        size = rng.uniform(*difficulty.companion_size)
    return [
        replace(
            pose,
            centre=pose.centre + offset,
            radius=size * pose.radius,
            perspective=perspective,
            bend=(bends[0], phase[0], bends[1], phase[1]),
        )
        for pose, phase in zip(poses, phases, strict=True)
    ]


def _through(pose: Pose, camera: Camera, shake: np.ndarray, preset: Preset, is_first: bool) -> Pose:
    radius = camera.zoom * pose.radius
    if is_first:
        low, high = (preset.video_side * bound for bound in preset.radius)
        radius = float(np.clip(radius, low, high))
    return replace(pose, centre=pose.centre - shake, radius=radius, angle=camera.roll + pose.angle)


def wave(rng: Rng, times: np.ndarray, periods: tuple[float, float]) -> np.ndarray:
    """Draw a sine over times, with a period from a range, all in seconds; within [-1, 1]."""
    return np.sin(2 * np.pi * (times / rng.uniform(*periods) + rng.random()))


def two_waves(rng: Rng, times: np.ndarray, periods: tuple[float, float]) -> np.ndarray:
    """Draw a sine for each of two axes, see :func:`wave`: (times, 2)."""
    return np.stack([wave(rng, times, periods) for _ in range(2)], axis=1)


def draw_poses(rng: Rng, preset: Preset, times: np.ndarray, side: int) -> list[Pose]:
    """Draw the poses of an object at times in seconds, for pictures of ``side`` pixels."""
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
