"""One picture of the world: frames of videos, and stills with their masks and boxes."""

import os

import cv2
import numpy as np

from .layouts import voc_palette
from .presets import Preset, get_preset
from .stills import render_probe_image, render_still
from .videos import around_first_cut, render_video

_FRAMES = 6
_GAP = 4


def write_contact_sheet(
    file: str | os.PathLike, preset: str | Preset = 'demo', seed: int = 0
) -> None:
    """Draw a video of every class, some probe images, and some stills with their annotations.

    A row has equally spaced frames, the frames before and after the first cut, if any, and probe
    images, of which the last has held-out materials, if any.

    Args:
        file: PNG to write.
        preset: Key of ``PRESETS``, or a preset. Defaults to ``'demo'``.
        seed: Seed of the world. Defaults to 0.

    Raises:
        OSError: If the file cannot be written.
    """
    preset = get_preset(preset) if isinstance(preset, str) else preset
    times = np.linspace(0.0, preset.seconds, _FRAMES, endpoint=False)
    rows = [
        [
            *render_video(preset, seed, index, times),
            *_around_first_cut(preset, seed, index),
            *_probe_images(preset, seed, index),
        ]
        for index in range(len(preset.classes))
    ]
    stills = [_annotated_still(preset, seed, index) for index in range(12)]
    rows += [stills[start : start + 4] for start in range(0, len(stills), 4)]
    strips = [np.concatenate([_padded(picture, 0) for picture in row], axis=1) for row in rows]
    width = max(strip.shape[1] for strip in strips)
    sheet = np.concatenate([_padded(strip, width - strip.shape[1]) for strip in strips])
    if not cv2.imwrite(os.fspath(file), sheet[..., ::-1]):
        raise OSError(f'cannot write {os.fspath(file)!r}; give a PNG in a folder that exists')


def _around_first_cut(preset: Preset, seed: int, index: int) -> list[np.ndarray]:
    if preset.difficulty is None:
        return []
    times = around_first_cut(preset, seed, index)
    if times is None:
        return [np.zeros((preset.video_side, preset.video_side, 3), np.uint8)] * 2
    return list(render_video(preset, seed, index, times))


def _probe_images(preset: Preset, seed: int, index: int) -> list[np.ndarray]:
    splits = ('val', 'val', 'val' if preset.difficulty is None else 'held_out')
    return [
        render_probe_image(preset, seed, split, index + turn * len(preset.classes))
        for turn, split in enumerate(splits)
    ]


def _annotated_still(preset: Preset, seed: int, index: int) -> np.ndarray:
    still = render_still(preset, seed, 'coco', 'train', index)
    colours = voc_palette()[1:].astype(np.float32)
    overlay = still.image.astype(np.float32) * 0.5
    for label, mask, (x1, y1, x2, y2) in zip(still.labels, still.masks, still.boxes, strict=True):
        overlay[mask] += 0.5 * colours[label]
        cv2.rectangle(overlay, (int(x1), int(y1)), (int(x2) - 1, int(y2) - 1), (255, 255, 255))
    return np.concatenate([still.image, overlay.astype(np.uint8)], axis=1)


def _padded(picture: np.ndarray, right: int) -> np.ndarray:
    return np.pad(picture, ((0, _GAP), (0, _GAP + right), (0, 0)))
