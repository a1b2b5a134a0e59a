"""Videos: one object that moves, turns, tilts and changes colour before a moving background."""

import os
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from .backgrounds import background_pool, view_background
from .classes import CLASSES
from .presets import Preset
from .render import Pose, draw_object, paint, to_uint8
from .seeding import item_rng


def _wave(rng: np.random.Generator, times: np.ndarray, periods: tuple[float, float]) -> np.ndarray:
    """Draw a smooth swing in [-1, 1] with a period drawn from ``periods`` seconds."""
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
    radius = rng.uniform(*preset.radius) * preset.zoom ** _wave(rng, times, (2.0, 4.0))
    radius = side * np.clip(radius, *preset.radius)
    tilt = preset.tilt * _wave(rng, times, (2.0, 4.0))
    axis = rng.uniform(0, np.pi) + rng.uniform(-0.5, 0.5) * times
    low, high = preset.light
    light = (low + high) / 2 + (high - low) / 2 * _wave(rng, times, (1.5, 3.0))
    slope = np.stack([0.2 * _wave(rng, times, (1.5, 3.0)) for _ in range(2)], axis=1)
    path = np.stack([0.12 * _wave(rng, times, (2.0, 4.0)) for _ in range(2)], axis=1)
    centre = side * (0.5 + rng.uniform(-0.05, 0.05, 2) + path)
    return [
        Pose(centre[i], radius[i], angle[i], tilt[i], axis[i], hue[i], light[i], tuple(slope[i]))
        for i in range(len(times))
    ]


def video_label(index: int) -> int:
    """Give the class of a video: the classes take turns, so that they are balanced.

    Args:
        index: Index of the video.

    Returns:
        int: Index into ``CLASSES``.
    """
    return index % len(CLASSES)


def render_video(
    preset: Preset, seed: int, index: int, times: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Render the frames of a video.

    Args:
        preset: Sizes and ranges.
        seed: Seed of the world.
        index: Index of the video.
        times: (N,) times to render, in seconds. Defaults to those of all frames.

    Yields:
        numpy.ndarray: (side, side, 3) uint8 RGB.
    """
    rng = item_rng(seed, 'videos', index)
    side = preset.video_side
    if times is None:
        times = np.arange(preset.num_frames) / preset.fps
    pool = background_pool(seed, 'video_backgrounds', preset.backgrounds, (side, side))
    background = pool[rng.integers(len(pool))]
    mean_radius = side * sum(preset.radius) / 2
    scene_object = draw_object(rng, video_label(index), mean_radius)
    poses = draw_poses(rng, preset, times, side)
    pan = np.stack([0.5 + preset.pan * _wave(rng, times, (2.0, 4.0)) for _ in range(2)], axis=1)
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
        dict: The row of the manifest, without ``path``.

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
    # One thread and no time stamps: the same frames give the same bytes on every machine.
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
        for picture in render_video(preset, seed, index):
            planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format='yuv420p')))
        container.mux(stream.encode(None))
    family = CLASSES[video_label(index)]
    return {
        'label': video_label(index),
        'class_name': family.name,
        'title': f'A {family.title} turning in changing light, take {index}',
        'fps': preset.fps,
        'num_frames': preset.num_frames,
        'seconds': preset.num_frames / preset.fps,
    }
