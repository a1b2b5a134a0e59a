"""Videos of plain colours and a ResNet made by hand that tells red, green and blue apart."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from mmpretrain import get_model

from tests.helpers.frame_videos import encode

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)
NAMES = ['red', 'green', 'blue']
GAIN = 20.0
"""A class's number before the softmax is its colour in [0, 1] times this."""

CONFIG = """
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet', depth=18, stem_channels=16, base_channels=16, strides=(1, 1, 1, 1)
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes={classes}, in_channels=128),
)
data_preprocessor = dict(mean=[0, 0, 0], std=[255, 255, 255], to_rgb={to_rgb})
test_pipeline = [
    dict(type='LoadImageFromFile'),
    {pipeline}
    dict(type='PackInputs'),
]
"""
CUT = "dict(type='ResizeEdge', scale=48, edge='short'), dict(type='CenterCrop', crop_size=32),"
WHOLE = "dict(type='Resize', scale=32),"


def write_frames(path: Path, frames: Sequence[np.ndarray]) -> Path:
    """Write frames as a video that keeps their colours but for rounding."""
    return encode(path, frames, pix_fmt='yuv444p', crf='4', g='25')


def write_colours(path: Path, *parts: tuple[tuple[int, int, int], int]) -> Path:
    """Write a video of 64 x 48 pixels: each colour for a number of frames."""
    return write_frames(
        path, [np.full((48, 64, 3), colour, np.uint8) for colour, n in parts for _ in range(n)]
    )


def write_noise(path: Path, size: tuple[int, int], num_frames: int, seed: int) -> Path:
    """Write frames of coloured blocks, each other than the last."""
    rng = np.random.default_rng(seed)
    height, width = size
    frames = []
    for _ in range(num_frames):
        blocks = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        rows, columns = np.arange(height) * 5 // height, np.arange(width) * 7 // width
        frames.append(blocks[rows][:, columns])
    return write_frames(path, frames)


def read_frames(path: Path) -> np.ndarray:
    """All frames, by the plainest use of PyAV, shape (N, H, W, 3)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)])


def write_classifier(
    folder: Path, classes: int = 3, pipeline: str = CUT, to_rgb: bool = True
) -> dict[str, Any]:
    """Write config, weights and class names; the network averages each channel of its input.

    Returns:
        dict: Settings of the stage.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config, checkpoint = folder / 'colours.py', folder / 'colours.pth'
    config.write_text(CONFIG.format(classes=classes, pipeline=pipeline, to_rgb=to_rgb))
    weights = get_model(str(config)).state_dict()
    for key, value in weights.items():
        value.fill_(1.0 if key.endswith('running_var') else 0.0)
    for channel in range(3):
        weights['backbone.conv1.weight'][channel, channel, 3, 3] = 1
        for stage in (2, 3, 4):
            weights[f'backbone.layer{stage}.0.downsample.0.weight'][channel, channel] = 1
    for norm in ('bn1', *(f'layer{stage}.0.downsample.1' for stage in (2, 3, 4))):
        weights[f'backbone.{norm}.weight'].fill_(1)
    weights['head.fc.weight'][:3, :3] = GAIN * torch.eye(3)
    weights['head.fc.bias'][3:] = -GAIN
    torch.save(dict(state_dict=weights, meta=dict(epoch=1)), checkpoint)
    taxonomy = folder / 'classes.json'
    taxonomy.write_text(json.dumps(NAMES + [f'other {i}' for i in range(classes - 3)]))
    return dict(classifier=str(config), checkpoint=str(checkpoint), taxonomy=str(taxonomy))


def write_taxonomy(file: Path, classes: int) -> str:
    """Write names for some classes."""
    file.write_text(json.dumps([f'class {i}' for i in range(classes)]))
    return str(file)
