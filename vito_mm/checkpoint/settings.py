"""Settings with which a completely loaded checkpoint is wasted or computes something else."""

from collections.abc import Iterator, Mapping
from itertools import cycle, islice
from typing import Any

from torch import nn

from .config_parts import type_name
from .reading import PREPROCESSING


def settings_warnings(
    backbone: nn.Module, preprocessor: nn.Module | None, meta: Mapping[str, Any]
) -> list[str]:
    """List a config's settings that waste or misread a checkpoint although every key fits.

    Args:
        backbone (nn.Module): A ResNet of mmdet, mmseg or mmpretrain.
        preprocessor (nn.Module, optional): Data preprocessor of the model around it, if known.
        meta (Mapping): See :attr:`.Checkpoint.meta`; without ``preprocessing``, ImageNet's in RGB.

    Returns:
        list[str]: One text per setting: its name, its cost, and what to write instead.
    """
    warnings = [*_frozen(backbone), *_other_function(backbone)]
    if preprocessor is not None:
        warnings += _other_input(preprocessor, meta.get('preprocessing') or PREPROCESSING)
    return warnings


def preprocessor_around(backbone: nn.Module, model: nn.Module) -> nn.Module | None:
    """Find the data preprocessor that feeds a backbone: the outermost one that normalises."""
    for around in model.modules():  # outer ones first
        preprocessor = getattr(around, 'data_preprocessor', None)
        known = preprocessor is not None and preprocessing_of(preprocessor) is not None
        if known and any(part is backbone for part in around.modules()):
            return preprocessor
    return None


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


def _frozen(backbone: nn.Module) -> Iterator[str]:
    stages = getattr(backbone, 'frozen_stages', -1)
    if stages >= getattr(backbone, 'num_stages', 4):
        return  # all of it: a probe of frozen features, as is meant
    settings = {
        f'frozen_stages={stages}': stages >= 0 and 'frozen_stages=-1',
        'norm_eval=True': getattr(backbone, 'norm_eval', False) and 'norm_eval=False',
        'norm_cfg.requires_grad=False': not _norm_cfg(backbone).get('requires_grad', True)
        and "norm_cfg=dict(type='SyncBN', requires_grad=True)",
    }
    found = {setting: remedy for setting, remedy in settings.items() if remedy}
    if found:
        yield (
            f'the config keeps {", ".join(found)}, which suits supervised weights and costs '
            'self-supervised ones about 2 AP on COCO (DenseCL #7: 35.5 instead of 37.5). Set '
            f'backbone=dict({", ".join(found.values())})'
        )


def _other_function(backbone: nn.Module) -> Iterator[str]:
    is_bottleneck = getattr(backbone, 'depth', 0) >= 50
    if getattr(backbone, 'style', 'pytorch') == 'caffe' and is_bottleneck:
        yield (
            "style='caffe' moves the stride of a stage from its 3x3 to its 1x1 convolution, which "
            "skips three quarters of the trained positions. Set backbone=dict(style='pytorch')"
        )
    norm_cfg = _norm_cfg(backbone)
    eps = norm_cfg.get('eps', 1e-5)
    if eps != 1e-5:
        yield (
            f'norm_cfg.eps={eps} instead of 1e-05: channels of small variance get another scale. '
            'Leave eps out of the norm_cfg of the backbone'
        )
    conv_cfg = getattr(backbone, 'conv_cfg', None) or {}
    if (kind := type_name(conv_cfg) or 'Conv2d') not in ('Conv', 'Conv2d'):
        yield (
            f"conv_cfg=dict(type='{kind}') computes something else with the same weights (ConvWS "
            'and ConvAWS standardise them). Set backbone=dict(conv_cfg=None)'
        )


def _other_input(preprocessor: nn.Module, trained: Mapping[str, Any]) -> Iterator[str]:
    found = preprocessing_of(preprocessor)
    if found is None:
        return
    is_turned = found['channel_order'] != trained['channel_order']
    differences = [f'channels arrive as {found["channel_order"].upper()}'] if is_turned else []
    for name in ('mean', 'std'):
        values = found[name][::-1] if is_turned else found[name]
        if not _close(values, trained[name]):
            differences.append(f'{name}={_short(values)}')
    if differences:
        mean, std = _short(trained['mean']), _short(trained['std'])
        yield (
            'the data preprocessor does not give what the checkpoint was trained on: '
            f'{", ".join(differences)} instead of {trained["channel_order"].upper()}, mean={mean}, '
            f'std={std}. Set data_preprocessor=dict(mean={mean}, std={std}, '
            f'bgr_to_rgb={trained["channel_order"] == "rgb"})'
        )


def _norm_cfg(backbone: nn.Module) -> Mapping[str, Any]:
    return getattr(backbone, 'norm_cfg', None) or {}


def _close(values: list[float], wanted: list[float]) -> bool:
    # One value stands for all channels, six for the three of two images.
    length = max(len(values), len(wanted))
    pairs = zip(islice(cycle(values), length), islice(cycle(wanted), length), strict=True)
    return all(abs(a - b) <= 0.02 * max(abs(b), 1.0) for a, b in pairs)


def _short(values: list[float]) -> str:
    return f'[{", ".join(f"{value:.6g}" for value in values)}]'
