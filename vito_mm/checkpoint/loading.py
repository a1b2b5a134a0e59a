"""Strict loading: all of a checkpoint's backbone or model, or an error."""

import logging
import math
import os
import shlex
from collections.abc import Mapping

from mmengine.logging import print_log
from torch import Tensor, nn

from .checkpoint import Checkpoint
from .config_parts import strictly
from .conventions import require_same_features
from .errors import CheckpointError
from .matching import BackboneMatch, Fit, match_prefix, require_weights, reshaped
from .preprocessing import preprocessor_around


def load_backbone(
    model: nn.Module,
    checkpoint: str | os.PathLike | Checkpoint,
    which: str = 'online',
    allow_partial: bool = False,
    preprocessor: nn.Module | None = None,
) -> BackboneMatch:
    """Load the backbone of a checkpoint into a backbone, all of it or with an error.

    Takes training checkpoints of VITO and other methods of mmpretrain (online and target network),
    exported files, MoCo's and other programs' files under any prefix, safetensors, and the names of
    torchvision, timm and detectron2: those of ResNets, and for Swin, ConvNeXt, ViT and RegNet the
    tables of :mod:`.families`. A classifier is skipped. Logs one line, and one per warning.

    Args:
        model (nn.Module): Backbone of mmpretrain, mmdet, mmseg or another package. One of a kind
            that the tables do not know takes files with its own names.
        checkpoint (str | os.PathLike | Checkpoint): Local file.
        which (str): ``'online'`` or ``'target'`` network. Defaults to 'online'.
        allow_partial (bool): Load what matches and only warn about the rest. Defaults to False.
        preprocessor (nn.Module, optional): Data preprocessor that feeds the model. Defaults to
            None, not known.

    Returns:
        BackboneMatch: What was loaded and, with ``allow_partial``, what was not.

    Raises:
        CheckpointError: If the file cannot be read, does not hold exactly this backbone, or is
            known to be of one that computes something else (:mod:`.conventions`).
    """
    checkpoint = Checkpoint.read(checkpoint)
    match = match_backbone(model, checkpoint, which)
    if not allow_partial:
        match.require_complete()
    match.notes += require_same_features(
        checkpoint, model, match.weights, preprocessor, allow_partial
    )
    name = type(model).__name__
    model.load_state_dict(match.weights, strict=False)
    if match.complete:
        assumed = checkpoint.conventions.assumption(model, match.weights)
        assumed = f'; assumed, as the file does not tell: {assumed}' if assumed else ''
        print_log(f'{name}: loaded {match.coverage()}{assumed}', 'current')
    else:
        print_log(f'{name}: loaded only {match.report()}', 'current', logging.WARNING)
    if notice := checkpoint.conventions.notice:
        print_log(f'{name}: {notice}', 'current')
    for warning in match.warnings():
        print_log(f'{name}: {warning}', 'current', logging.WARNING)
    return match


def match_backbone(
    model: nn.Module,
    checkpoint: str | os.PathLike | Checkpoint,
    which: str = 'online',
    prefix: str | None = None,
) -> BackboneMatch:
    """Compare a checkpoint with a backbone, and load nothing.

    Args:
        model (nn.Module): The backbone.
        checkpoint (str | os.PathLike | Checkpoint): Local file.
        which (str): ``'online'`` or ``'target'`` network. Defaults to 'online'.
        prefix (str, optional): Look only under this prefix and for the model's own names. Defaults
            to None, anywhere.
    """
    expected = expected_of(model)
    if any(value.is_meta for value in expected.values()):
        raise CheckpointError(
            f'{type(model).__name__} is on the meta device, where nothing can be loaded: call '
            'to_empty(device=...) first'
        )
    checkpoint, fit = Checkpoint.read(checkpoint), _fitting(model, expected)
    if prefix is None:
        return checkpoint.match(expected, which, fit)
    return checkpoint.match_prefix(expected, prefix, fit)


def expected_of(model: nn.Module) -> dict[str, Tensor]:
    """State dict of a backbone without a classifier."""
    heads = ('fc.', 'head.fc.')
    return {k: v for k, v in model.state_dict().items() if not k.startswith(heads)}


def _fitting(model: nn.Module, expected: Mapping[str, Tensor]) -> Fit:
    """The function that resizes position embeddings as the model's library does."""

    def fit(key: str, found: Tensor) -> Tensor | None:
        target = expected[key]
        if key == 'pos_embed' and found.ndim == target.ndim == 3:
            return _resized_positions(model, found, target)
        return reshaped(found, target)

    return fit


def _resized_positions(model: nn.Module, found: Tensor, target: Tensor) -> Tensor | None:
    """The position embedding of a vision transformer for its own grid; None if it has no way."""
    resize = getattr(model, 'resize_pos_embed', None)
    tokens = getattr(model, 'num_extra_tokens', 1)
    side = math.isqrt(max(found.shape[1] - tokens, 0))
    if resize is None or found.shape[2] != target.shape[2] or side**2 + tokens != found.shape[1]:
        return None
    if hasattr(model, 'patch_resolution'):  # mmpretrain's
        source, wanted = (side, side), tuple(model.patch_resolution)
        return resize(found, source, wanted, model.interpolate_mode, tokens)
    # mmseg's, which names the new grid first.
    wanted = tuple(size // model.patch_size for size in model.img_size)
    return resize(found, wanted, (side, side), model.interpolate_mode)


def load_pretraining(model: nn.Module, checkpoint: str | os.PathLike | Checkpoint) -> None:
    """Load a checkpoint into a model of pre-training, all of it or with an error.

    A file that holds anything of the model but its backbone (neck, projector, target network) is
    one of such a model and must hold the complete model. Of any other file that
    :func:`load_backbone` can read, the backbone is loaded, and the rest of the model stays as it
    is.

    Args:
        model (nn.Module): Algorithm with a ``backbone``, such as VITO or mmpretrain's BYOL.
        checkpoint (str | os.PathLike | Checkpoint): Local file.

    Raises:
        CheckpointError: If the file cannot be read, or holds only a part of what it should.
    """
    checkpoint = Checkpoint.read(checkpoint)
    weights = {key.removeprefix('module.'): value for key, value in checkpoint.state_dict.items()}
    expected = model.state_dict()
    if not any(key in weights for key in expected if not key.startswith('backbone.')):
        preprocessor = preprocessor_around(model.backbone, model)
        load_backbone(model.backbone, checkpoint, preprocessor=preprocessor)
        return
    match = match_prefix(weights, expected, '')
    parts = {key.partition('.')[0] for key in expected}
    match.unexpected = [k for k in weights if k.partition('.')[0] in parts and k not in expected]
    name = type(model).__name__
    if not match.complete:
        settings = strictly(type(model.backbone).__name__) | dict(checkpoint=checkpoint)
        options = (shlex.quote(f'model.backbone.{k}={v}') for k, v in settings.items())
        raise CheckpointError(
            f'{checkpoint} holds another model than this {name}: only {len(match.weights)} of '
            f'{match.total} keys fit.\n{match.describe()}\nNothing was loaded. To start from its '
            f'backbone alone: --cfg-options load_from=None {" ".join(options)}'
        )
    require_weights(match.weights, checkpoint, expected)
    backbone = {key.removeprefix('backbone.'): value for key, value in match.weights.items()}
    preprocessor = preprocessor_around(model.backbone, model)
    require_same_features(checkpoint, model.backbone, backbone, preprocessor)
    model.load_state_dict(match.weights, strict=False)
    print_log(f'{name}: loaded all {match.total} keys from {checkpoint}', 'current')


def is_pretraining(model: nn.Module) -> bool:
    """Tell whether a model is one of mmpretrain's self-supervised algorithms, as VITO is."""
    # By name: mmpretrain is not imported for tasks of other libraries.
    return any(base.__name__ == 'BaseSelfSupervisor' for base in type(model).__mro__)
