"""Encoders of checkpoints, of mmpretrain's configs, and of torchvision's and timm's networks."""

import copy
import logging
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from vito_mm.checkpoint import (
    PREPROCESSING,
    BackboneMatch,
    Checkpoint,
    CheckpointError,
    check_config,
    load_backbone,
)
from vito_mm.checkpoint.architectures import config_of_weights
from vito_mm.checkpoint.config_parts import type_name
from vito_mm.checkpoint.layouts import depth_of, has_plain_width, stage_of
from vito_mm.checkpoint.matching import require_weights
from vito_mm.checkpoint.origins import PUBLIC_ATTENTION
from vito_mm.checkpoint.preprocessing import other_input
from vito_mm.checkpoint.stored_config import stored_model
from vito_mm.models import MultiScaleAttentionPooling
from vito_mm.utils.configs import read_config
from vito_mm.utils.quiet import quiet_logger
from vito_mm.videos.frames import View

from .encoder import DEFAULT_VIEW, Encoder, choose_device
from .inputs import Preprocessing
from .layers import stages_of
from .sources import ConfigSource, Loaded, Source, find_source


def load_encoder(
    checkpoint: str | os.PathLike | Checkpoint | None,
    which: str = 'online',
    network: str | Mapping[str, Any] | None = None,
    *,
    keep: bool = True,
    classifier: bool = False,
    needs_attention: bool = False,
    view: View | None = None,
    output_stride: int | None = None,
    device: str | None = None,
    exact: bool = False,
    seed: int = 0,
) -> Encoder:
    """Open a network with the weights of a file.

    Args:
        checkpoint: File of :func:`vito_mm.checkpoint.load_backbone`, or of the weights of
            ``network``; None for random weights. Or a config of any OpenMMLab package (``FILE.py``
            or ``PACKAGE::FILE.py``), which is executed: its first backbone, as it is there, with
            the weights that it starts from, see :func:`vito_mm.checkpoint.check_config`.
        which (str): ``'online'`` or ``'target'`` network of a checkpoint of pre-training. Defaults
            to 'online'. A config says it itself.
        network (str | Mapping, optional): ``torchvision:NAME`` or ``timm:NAME`` (with the tag of
            weights, whose preprocessing holds), the path of a config of mmpretrain, which is
            executed, or the config of a backbone. Defaults to None: the config that MMEngine stores
            in the checkpoint, of which nothing is executed and only registered parts are built; or
            the ResNet, Swin, ConvNeXt or ViT of any depth and width that the weights tell.
        keep (bool): False replaces the weights of the file by random ones. Defaults to True.
        classifier (bool): Keep the classifier of ``network``, or of a ResNet in the file: features
            are logits. Defaults to False.
        needs_attention (bool): Refuse a file without attention pooling. Defaults to False.
        view (View, optional): Defaults to None, that of ``network`` or that the file is known by,
            or 224 of 256 pixels.
        output_stride (int, optional): Pixels per cell of a ResNet's last stages, 8 or 16: later
            strides become 1, without dilation. A network without four stages of convolutions keeps
            its strides, with a warning. Defaults to None, 32.
        device (str, optional): Defaults to None, a GPU where there is one.
        exact (bool): See :class:`.encoder.Encoder`. Defaults to False.
        seed (int): Of random weights; the global generator is left alone. Defaults to 0.

    Returns:
        Encoder: In evaluation mode, without gradients.

    Raises:
        CheckpointError: If the file cannot be read, its network cannot be built or does not fit,
            or it has no attention or no classifier where that is needed.
        ValueError: If there is no such network.
        FileNotFoundError: If there is no such config.
        ImportError: If its library is not installed.
    """
    is_config = checkpoint is not None and re.search(r'\.py$|::', os.fspath(checkpoint))
    if is_config and (which != 'online' or network is not None):
        raise ValueError(f'{checkpoint} says itself which network it starts from, and with what')
    if not is_config and checkpoint is not None:
        checkpoint = Checkpoint.read(checkpoint)
    with (
        torch.random.fork_rng(devices=[]),
        quiet_logger('WARNING'),
        DefaultScope.overwrite_default_scope('mmpretrain'),
    ):
        torch.manual_seed(seed)
        if is_config:
            checkpoint, source, (backbone, match) = _of_config(os.fspath(checkpoint))
        elif network is None:
            source, (backbone, match) = _of_file(checkpoint, which)
        else:
            is_name = isinstance(network, str)
            source = find_source(network) if is_name else ConfigSource('', dict(backbone=network))
            backbone, match = source.load(checkpoint, which, classifier)
        neck = None if match is None else _neck(checkpoint, match, backbone, source)
        if not keep:
            torch.manual_seed(seed)
            # Initialising the loaded one would keep batch statistics, and most of a transformer.
            fresh, _ = source.load(None, which, classifier and network is not None)
            backbone.load_state_dict(fresh.state_dict())
        if classifier and network is None:
            backbone, neck = _with_classifier(checkpoint, match, backbone, neck), None
    if needs_attention and neck is None:
        raise CheckpointError(_no_attention(checkpoint, match, source))
    if output_stride is not None:
        _set_output_stride(backbone, output_stride)
    device = choose_device(device)
    for part in (backbone, neck):
        if part is not None:
            part.eval()  # not chained: train() of OpenMMLab's backbones returns None
            part.requires_grad_(False).to(device, memory_format=torch.channels_last)
    is_named = isinstance(network, str) and not network.endswith('.py')
    if view is None and (is_named or (classifier and network is not None)):
        view = source.view()
    elif view is None:
        whole = checkpoint is not None and checkpoint.conventions.whole_image
        view = View(DEFAULT_VIEW.crop, DEFAULT_VIEW.crop, squash=True) if whole else DEFAULT_VIEW
    return Encoder(backbone, _preprocessing(checkpoint, source), view, neck, exact=exact)


def resnet(depth: int = 50, base_channels: int = 64) -> dict[str, Any]:
    """Config of mmpretrain's ResNet of a depth and width of stem and first stage."""
    return dict(
        type='ResNet', depth=depth, stem_channels=base_channels, base_channels=base_channels
    )


def resnet_of(match: BackboneMatch) -> dict[str, Any] | None:
    """Config of the ResNet that some weights are of, None if they are not of a plain one."""
    if not (match.complete and has_plain_width(match.weights)):
        return None
    stem, first = (match.weights[f'{n}.weight'].shape[0] for n in ('conv1', 'layer1.0.conv1'))
    return resnet(depth_of(match.weights), first) | dict(stem_channels=stem)


def resnet_of_file(
    checkpoint: str | os.PathLike | Checkpoint | None, which: str = 'online'
) -> dict[str, Any] | None:
    """Config of the ResNet in a file, None without a file or a plain ResNet in it."""
    if checkpoint is None:
        return None
    try:
        return resnet_of(Checkpoint.read(checkpoint).match(which=which))
    except CheckpointError:
        return None


def resnet_settings(
    checkpoint: str | os.PathLike | Checkpoint | None, which: str = 'online'
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Tell how a config's ResNet and its data preprocessor compute what a file was trained for.

    Returns:
        tuple: Keywords of the ResNet: depth and width, if there is a plain ResNet in the file, and
        what differs from OpenMMLab's defaults. Then ``mean``, ``std`` and ``channel_order`` of its
        input. Both are empty without a file.
    """
    if checkpoint is None:
        return {}, {}
    checkpoint = Checkpoint.read(checkpoint)
    shape = resnet_of_file(checkpoint, which) or {}
    shape = {name: value for name, value in shape.items() if name != 'type'}
    return shape | checkpoint.conventions.settings(), checkpoint.preprocessing


def _of_file(checkpoint: Checkpoint, which: str) -> tuple[Source, Loaded]:
    """The network of the config that a file stores, or of the shapes of its weights."""
    problem = 'no config with a backbone is stored in the file'
    if checkpoint.config is not None:
        try:
            source = ConfigSource(
                'the stored config', stored_model(checkpoint.config), trusted=False
            )
            backbone = source.build(source.model['backbone'])
        except (TypeError, ValueError, AssertionError, KeyError) as error:
            problem = f'the backbone of the config that is stored in it cannot be built ({error})'
        else:
            return source, (backbone, load_backbone(backbone, checkpoint, which))
    remedy = f'{problem}; name the config of the run (--backbone FILE.py)'
    match, backbone, reason = None, None, ''
    try:
        match = checkpoint.match(which=which)
        backbone = resnet_of(match)
    except CheckpointError as error:
        reason = f'{error}\n{remedy}'
    if backbone is None:
        network = 'online' if 'which' in checkpoint.meta else which
        if told := config_of_weights(checkpoint.state_dict, network):
            source = ConfigSource(told['type'], dict(backbone=told))
            return source, source.load(checkpoint, which, False)
        raise CheckpointError(
            reason
            or f'{checkpoint} holds no plain ResNet under {match.prefix!r}, and {remedy}.\n'
            f'{match.describe()}'.rstrip()
        )
    backbone |= checkpoint.conventions.settings() | dict(out_indices=(2, 3))
    source = ConfigSource('ResNet', dict(backbone=backbone))
    return source, source.load(checkpoint, which, False)


def _of_config(name: str) -> tuple[Checkpoint, Source, Loaded]:
    """The checkpoint that a config starts from, and its backbone with these weights."""
    cfg = read_config(name)
    check = check_config(cfg)
    part = cfg.model
    for key in check.place.split('.')[1:]:
        part = part[int(key) if key.isdigit() else key]
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        backbone = MODELS.build(copy.deepcopy(part))
    backbone.load_state_dict(check.match.weights, strict=False)
    model = dict(cfg.model, backbone=part)
    source = ConfigSource(name, model, cfg.get('data_preprocessor'))
    return Checkpoint.read(check.checkpoint), source, (backbone, check.match)


def _neck(
    checkpoint: Checkpoint, match: BackboneMatch, backbone: nn.Module, source: Source
) -> nn.Module | None:
    """The attention pooling next to a backbone in a file, None if there is none."""
    prefix = _prefix_of_neck(match)
    own = _below(checkpoint, prefix)
    if not own and (public := _below(checkpoint, match.prefix + PUBLIC_ATTENTION)):
        prefix = match.prefix + PUBLIC_ATTENTION
        own = {f'scales.0.logits.{key}': value for key, value in public.items()}
    channels = {
        int(found[1]): value.shape[1]
        for key, value in own.items()
        if (found := re.fullmatch(r'scales\.(\d+)\.logits\.0\.weight', key))
    }
    if not channels:
        return None
    part = source.model.get('neck')
    if type_name(part) == MultiScaleAttentionPooling.__name__:
        neck = source.build(part)
    else:
        backbone.out_indices = tuple(_stage_with(match, width) for width in channels.values())
        neck = MultiScaleAttentionPooling(tuple(channels.values()))
        numbers = {old: new for new, old in enumerate(channels)}
        own = {
            re.sub(r'^scales\.(\d+)', lambda m: f'scales.{numbers[int(m[1])]}', key): value
            for key, value in own.items()
        }
    try:
        neck.load_state_dict(own)
    except RuntimeError as error:
        raise CheckpointError(f'the attention under {prefix!r} does not fit: {error}') from None
    if any(not value.isfinite().all() for value in own.values()):
        raise CheckpointError(
            f'the attention under {prefix!r} holds values that are not finite: training had '
            'diverged; take an earlier checkpoint'
        )
    return neck


class _Classifier(nn.Module):
    """A ResNet with its pooling and linear classifier: gives logits of images."""

    def __init__(self, backbone: nn.Module, neck: nn.Module | None, fc: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.neck, self.fc = backbone, neck, fc

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone(images)
        pooled = maps[-1].mean(dim=(2, 3)) if self.neck is None else self.neck(maps)[0]
        return self.fc(pooled)


def _with_classifier(
    checkpoint: Checkpoint, match: BackboneMatch, backbone: nn.Module, neck: nn.Module | None
) -> nn.Module:
    """The ResNet of a file with the linear classifier that the file has next to it."""
    prefixes = [f'{match.prefix}fc.', f'{match.prefix.removesuffix("backbone.")}head.fc.']
    found = next((own for prefix in prefixes if (own := _below(checkpoint, prefix))), {})
    if found.keys() != {'weight', 'bias'} or found['weight'].ndim != 2:
        raise CheckpointError(
            f'{checkpoint} has no linear classifier next to its backbone ({match.origin()}): there '
            f'is no {" nor ".join(f"{prefix}weight" for prefix in prefixes)}. Name the network of '
            'its weights, timm:NAME or torchvision:NAME, or train a classifier on its features'
        )
    require_weights(found, checkpoint)
    fc = nn.Linear(*reversed(found['weight'].shape))
    fc.load_state_dict(found)
    return _Classifier(backbone, neck, fc)


def _below(checkpoint: Checkpoint, prefix: str) -> dict[str, Tensor]:
    """Weights of a file under a prefix, without it."""
    weights = checkpoint.state_dict.items()
    return {key.removeprefix(prefix): value for key, value in weights if key.startswith(prefix)}


def _prefix_of_neck(match: BackboneMatch) -> str:
    for backbone, neck in (('backbone.', 'neck.'), ('module.0.', 'module.1.')):
        if match.prefix.endswith(backbone):
            return match.prefix.removesuffix(backbone) + neck
    return 'neck.'


def _stage_with(match: BackboneMatch, width: int) -> int:
    """Number, from 0, of the ResNet's stage with so many output channels."""
    last = 'conv3' if 'layer1.0.conv3.weight' in match.weights else 'conv2'
    for key, value in match.weights.items():
        if key.endswith(f'.{last}.weight') and value.shape[0] == width:
            return stage_of(key) - 1
    raise CheckpointError(
        f'the attention in the file is for {width} channels, and no stage of its ResNet has so '
        'many: name the config of the run (--backbone FILE.py)'
    )


def _no_attention(checkpoint: Checkpoint, match: BackboneMatch | None, source: Source) -> str:
    if match is None:
        return f'{source.name} has no attention network: name a checkpoint of pre-training'
    neck = source.model.get('neck')
    kind = type_name(neck)
    pooling = f' (its neck is {kind} with pooling={neck.get("pooling")!r})' if kind else ''
    return (
        f'{checkpoint} has no attention network{pooling}: it holds a backbone ({match.origin()}) '
        f'and nothing like {_prefix_of_neck(match)}scales.0.logits.0.weight. Exported backbones '
        "and other programs' checkpoints have none; name a checkpoint that pre-training with "
        'attention pooling wrote, such as work_dirs/pretrain_r50/iter_93750.pth'
    )


def _preprocessing(checkpoint: Checkpoint | None, source: Source) -> Preprocessing:
    """The normalisation of a config or library, else that of the file, else ImageNet's."""
    if found := source.preprocessing():
        if isinstance(source, ConfigSource) and checkpoint is not None:
            _require_input(checkpoint, found)
        return found
    stored = PREPROCESSING if checkpoint is None else checkpoint.preprocessing
    return Preprocessing(tuple(stored['mean']), tuple(stored['std']), stored['channel_order'])


def _require_input(checkpoint: Checkpoint, found: Preprocessing) -> None:
    conventions = checkpoint.conventions
    trained = conventions.preprocessing
    if 'preprocessing' not in conventions.assumed and (text := other_input(vars(found), trained)):
        raise CheckpointError(f'{checkpoint}: {text}')


def _set_output_stride(backbone: nn.Module, stride: int) -> None:
    """Let the stages of a ResNet, or of its like, beyond a stride keep their size."""
    kept = int(math.log2(stride)) - 1  # stages up to it; the stem has a stride of 4
    stages: list[nn.Module] = []
    with suppress(ValueError):  # none are known
        stages = stages_of(backbone)
    convolutions = [
        module
        for stage in (stages[kept:] if len(stages) == 4 else ())
        for module in stage.modules()
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1
    ]
    if not convolutions:
        print_log(
            f'{type(backbone).__name__}: an output stride of {stride} cannot be set, as it has no '
            'four stages with strided convolutions: its feature maps keep their own strides',
            'current',
            logging.WARNING,
        )
    for module in convolutions:
        module.stride = (1, 1)
