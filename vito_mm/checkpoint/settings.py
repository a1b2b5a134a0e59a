"""Settings with which a wholly loaded checkpoint is wasted or computes something else."""

from collections.abc import Iterator, Mapping
from itertools import cycle, islice
from statistics import fmean
from typing import Any

from torch import nn

from .reading import PREPROCESSING


def settings_remarks(
    backbone: nn.Module, preprocessor: nn.Module | None, meta: Mapping[str, Any]
) -> list[str]:
    """What a config's settings do to the weights of a checkpoint, although every key fits.

    Args:
        backbone (nn.Module): A ResNet of mmdet, mmseg or mmpretrain.
        preprocessor (nn.Module, optional): Data preprocessor of the model around it; None if it
            is not known.
        meta (Mapping): What the checkpoint says of itself, see :func:`.checkpoint_file.meta_of`.
            Without ``preprocessing`` in it, ImageNet's in RGB is taken for the checkpoint's.

    Returns:
        list[str]: One text for each setting: which it is, what it costs, what to write instead.
    """
    remarks = [*_frozen(backbone), *_other_function(backbone)]
    if preprocessor is not None:
        remarks += _other_input(preprocessor, meta.get('preprocessing') or PREPROCESSING)
    return remarks


def preprocessing_of(preprocessor: nn.Module) -> dict[str, Any] | None:
    """What a data preprocessor of OpenMMLab makes of pixels.

    Args:
        preprocessor (nn.Module): Data preprocessor of mmengine, mmdet, mmseg or mmpretrain.

    Returns:
        dict | None: ``mean`` and ``std`` of pixels in [0, 255], one float a
        channel in the order that the network gets, and that order, ``channel_order``, ``'rgb'`` or
        ``'bgr'``; None if it does not normalise.
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
    frozen, remedy = [], []
    if getattr(backbone, 'frozen_stages', -1) >= getattr(backbone, 'num_stages', 4):
        return  # all of it: a probe of frozen features, as is meant
    if getattr(backbone, 'frozen_stages', -1) >= 0:
        frozen.append(f'frozen_stages={backbone.frozen_stages}')
        remedy.append('frozen_stages=-1')
    if getattr(backbone, 'norm_eval', False):
        frozen.append('norm_eval=True')
        remedy.append('norm_eval=False')
    if not _norm_cfg(backbone).get('requires_grad', True):
        frozen.append('norm_cfg.requires_grad=False')
        remedy.append("norm_cfg=dict(type='SyncBN', requires_grad=True)")
    if frozen:
        yield (
            f'the config keeps {", ".join(frozen)}, which suits supervised weights and costs '
            'self-supervised ones about 2 AP on COCO (DenseCL #7: 35.5 instead of 37.5). Set '
            f'backbone=dict({", ".join(remedy)})'
        )


def _other_function(backbone: nn.Module) -> Iterator[str]:
    is_bottleneck = getattr(backbone, 'depth', 0) >= 50
    if getattr(backbone, 'style', 'pytorch') == 'caffe' and is_bottleneck:
        yield (
            "style='caffe' moves the stride of a stage from its 3x3 to its 1x1 convolution: three "
            'quarters of the positions that the checkpoint was trained to look at are skipped, and '
            "the features are others. Set backbone=dict(style='pytorch')"
        )
    norm_cfg = _norm_cfg(backbone)
    eps = norm_cfg.get('eps', 1e-5)
    if eps != 1e-5:
        yield (
            f'norm_cfg.eps={eps} instead of 1e-05: channels of small variance get another scale. '
            'Leave eps out of the norm_cfg of the backbone'
        )
    conv_cfg = getattr(backbone, 'conv_cfg', None) or {}
    if (kind := _name_of(conv_cfg.get('type', 'Conv2d'))) not in ('Conv', 'Conv2d'):
        yield (
            f"conv_cfg=dict(type='{kind}') computes something else with the same weights (ConvWS "
            'and ConvAWS standardise them). Set backbone=dict(conv_cfg=None)'
        )


def _other_input(preprocessor: nn.Module, trained: Mapping[str, Any]) -> Iterator[str]:
    found = preprocessing_of(preprocessor)
    if found is None:
        return
    differences = []
    mean, std = found['mean'], found['std']
    if found['channel_order'] != trained['channel_order']:
        differences.append(
            f'channels arrive as {found["channel_order"].upper()} and the weights were trained on '
            f'{trained["channel_order"].upper()}'
        )
        mean, std = mean[::-1], std[::-1]
    if not _close(std, trained['std']):
        ratio = fmean(trained['std']) / fmean(std)
        size = f'{ratio:.0f} times too large' if ratio > 1 else f'{1 / ratio:.0f} times too small'
        differences.append(
            f'std={_short(std)} instead of {_short(trained["std"])}'
            + (f', which makes inputs {size}' if not 0.67 < ratio < 1.5 else '')
        )
    if not _close(mean, trained['mean']):
        differences.append(f'mean={_short(mean)} instead of {_short(trained["mean"])}')
    if differences:
        yield (
            'the data preprocessor does not give what the checkpoint was trained on: '
            f'{"; ".join(differences)}. Every layer sees other values than it learnt from. Set '
            f'data_preprocessor=dict(mean={_short(trained["mean"])}, '
            f'std={_short(trained["std"])}, bgr_to_rgb={trained["channel_order"] == "rgb"})'
        )


def _norm_cfg(backbone: nn.Module) -> Mapping[str, Any]:
    return getattr(backbone, 'norm_cfg', None) or {}


def _name_of(kind: str | type) -> str:
    return kind if isinstance(kind, str) else kind.__name__


def _close(values: list[float], wanted: list[float]) -> bool:
    # One value stands for all channels, six for the three of two images.
    length = max(len(values), len(wanted))
    pairs = zip(islice(cycle(values), length), islice(cycle(wanted), length), strict=True)
    return all(abs(a - b) <= 0.02 * max(abs(b), 1.0) for a, b in pairs)


def _short(values: list[float]) -> str:
    return f'[{", ".join(f"{value:.6g}" for value in values)}]'
