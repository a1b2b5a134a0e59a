"""Videos: an object that moves, turns, tilts and changes colour before a moving background."""

import os
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from .backgrounds import background_pool, view_background
from .classes import CLASSES, video_label
from .courses import draw_poses, wave
from .presets import Preset
from .render import draw_object, paint, to_uint8
from .scene import render_scene
from .seeding import item_rng
from .shots import draw_scenes, draw_script


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
    scene_object = draw_object(rng, video_label(index), mean_radius)
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
        dict: The row of the manifest, without ``path``. Where there are shots, ``cuts`` has the
        times in seconds of their first frames but the first's, and ``companion`` the label of the
        second object, or None.

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
            # Without this, x264 approximates as suits the CPU, and now and then (about once in a
            # hundred times) writes the same frames otherwise. The older worlds stay as they were.
            stream.options['x264-params'] = 'cpu-independent=1'
        for picture in render_video(preset, seed, index):
            planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format='yuv420p')))
        container.mux(stream.encode(None))
    family = CLASSES[video_label(index)]
    row = {
        'label': video_label(index),
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
