"""Normalisation of the pixels that a network gets: read off modules and configs, and compared."""

import math
from collections.abc import Mapping
from itertools import cycle, islice
from typing import Any

from torch import nn

PREPROCESSING = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], channel_order='rgb'
)
"""Normalisation of pixels in [0, 255] that nearly every ResNet, VITO's too, is trained with."""


def preprocessing_of(preprocessor: nn.Module) -> dict[str, Any] | None:
    """Read the normalisation off a data preprocessor of mmengine, mmdet, mmseg or mmpretrain.

    Args:
        preprocessor (nn.Module): The data preprocessor.

    Returns:
        dict | None: ``mean`` and ``std`` of pixels in [0, 255], one float per channel in the order
        that the network gets, and that order, ``channel_order``, ``'rgb'`` or ``'bgr'``; None if it
        does not normalise.
    """
    # mmdet's for several branches of data holds the one that works, as does ours for micro-batches.
    for name in ('data_preprocessor', 'preprocessor'):
        preprocessor = getattr(preprocessor, name, None) or preprocessor
    mean, std = getattr(preprocessor, 'mean', None), getattr(preprocessor, 'std', None)
    if mean is None or std is None or not getattr(preprocessor, '_enable_normalize', True):
        return None
    # OpenMMLab's loaders give BGR; the libraries have a name each for turning it.
    turned = any(
        getattr(preprocessor, name, False)
        for name in ('_channel_conversion', 'channel_conversion', 'to_rgb')
    )
    return dict(
        mean=[round(value, 4) for value in mean.flatten().tolist()],
        std=[round(value, 4) for value in std.flatten().tolist()],
        channel_order='rgb' if turned else 'bgr',
    )


def preprocessing_of_config(preprocessor: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Read the normalisation off a config as :func:`preprocessing_of` off a module."""
    while isinstance(preprocessor, Mapping) and 'mean' not in preprocessor:
        inner = (preprocessor.get(name) for name in ('data_preprocessor', 'preprocessor'))
        preprocessor = next((each for each in inner if each), None)
    if not preprocessor or preprocessor.get('mean') is None or preprocessor.get('std') is None:
        return None
    turned = any(preprocessor.get(key) for key in ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr'))
    return dict(
        mean=[float(value) for value in preprocessor['mean']],
        std=[float(value) for value in preprocessor['std']],
        channel_order='rgb' if turned else 'bgr',
    )


def preprocessor_around(backbone: nn.Module, model: nn.Module) -> nn.Module | None:
    """Find the data preprocessor that feeds a backbone: the outermost one that normalises."""
    for around in model.modules():  # outer ones first
        preprocessor = getattr(around, 'data_preprocessor', None)
        known = preprocessor is not None and preprocessing_of(preprocessor) is not None
        if known and any(part is backbone for part in around.modules()):
            return preprocessor
    return None


def declared_values(name: str, text: str) -> list[float]:
    """Read a mean or std that a user declares."""
    try:
        numbers = [float(number) for number in text.split(',')]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
        raise ValueError(f'{name}={text}: give one finite number or three with commas between them')
    # torchvision's and timm's; 0 is the mean of an input that is only scaled.
    if max(numbers) < 1 and (name == 'std' or max(numbers) > 0):
        raise ValueError(
            f'{name}={text} looks like one of pixels in [0, 1]: give mean and std of pixels in '
            '[0, 255], 255 times as large'
        )
    return numbers


def other_input(found: Mapping[str, Any], trained: Mapping[str, Any]) -> str:
    """Tell how a preprocessing differs from the one of a training; '' if it does not."""
    is_turned = found['channel_order'] != trained['channel_order']
    differences = [f'channels arrive as {found["channel_order"].upper()}'] if is_turned else []
    for name in ('mean', 'std'):
        values = found[name][::-1] if is_turned else found[name]
        if not _close(values, trained[name]):
            differences.append(f'{name}={_short(values)}')
    if not differences:
        return ''
    mean, std = _short(trained['mean']), _short(trained['std'])
    return (
        'the data preprocessor does not give what the checkpoint was trained on: '
        f'{", ".join(differences)} instead of {trained["channel_order"].upper()}, mean={mean}, '
        f'std={std}. Set data_preprocessor=dict(mean={mean}, std={std}, '
        f'bgr_to_rgb={trained["channel_order"] == "rgb"})'
    )


def _close(values: list[float], wanted: list[float]) -> bool:
    # One value stands for all channels, six for the three of two images.
    count = max(len(values), len(wanted))
    pairs = zip(islice(cycle(values), count), islice(cycle(wanted), count), strict=True)
    return all(abs(a - b) <= 0.02 * max(abs(b), 1.0) for a, b in pairs)


def _short(values: list[float]) -> str:
    return f'[{", ".join(f"{value:.6g}" for value in values)}]'
