"""Strict loading: all of a checkpoint's backbone or model, or an error."""

import logging
import os
import shlex

from mmengine.logging import print_log
from torch import nn

from .checkpoint import Checkpoint
from .conventions import preprocessor_around, require_same_features
from .errors import CheckpointError
from .matching import BackboneMatch, match_prefix, require_weights


def load_backbone(
    model: nn.Module,
    checkpoint: str | os.PathLike | Checkpoint,
    which: str = 'online',
    allow_partial: bool = False,
    preprocessor: nn.Module | None = None,
) -> BackboneMatch:
    """Load the ResNet of a checkpoint into a ResNet, all of it or with an error.

    Takes training checkpoints of VITO and other methods of mmpretrain (online and target network),
    exported files, MoCo's and other programs' files under any prefix, torchvision's and timm's,
    detectron2's, and safetensors. A classifier (``fc.*``) is skipped. Logs one line.

    Args:
        model (nn.Module): ResNet with torchvision's names: torchvision's, mmpretrain's, mmdet's or
            mmseg's. What it adds to a plain ResNet keeps its values.
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
    expected = expected_of(model)
    if any(value.is_meta for value in expected.values()):
        raise CheckpointError(
            f'{type(model).__name__} is on the meta device, where nothing can be loaded: call '
            'to_empty(device=...) first'
        )
    checkpoint = Checkpoint.read(checkpoint)
    match = checkpoint.match(expected, which)
    if not allow_partial:
        match.require_complete()
    others = require_same_features(checkpoint, model, match.weights, preprocessor, allow_partial)
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
    for warning in match.warnings() + others:
        print_log(f'{name}: {warning}', 'current', logging.WARNING)
    return match


def expected_of(model: nn.Module) -> dict:
    """State dict of a ResNet without its classifier."""
    return {k: v for k, v in model.state_dict().items() if not k.startswith('fc.')}


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
        option = shlex.quote(f'model.backbone.checkpoint={checkpoint}')
        raise CheckpointError(
            f'{checkpoint} holds another model than this {name}: only {len(match.weights)} of '
            f'{match.total} keys fit.\n{match.describe()}\nNothing was loaded. To start from its '
            f'backbone alone: --cfg-options load_from=None model.backbone.type=VITOResNet {option}'
        )
    require_weights({k: v for k, v in match.weights.items() if v.is_floating_point()}, checkpoint)
    backbone = {key.removeprefix('backbone.'): value for key, value in match.weights.items()}
    preprocessor = preprocessor_around(model.backbone, model)
    require_same_features(checkpoint, model.backbone, backbone, preprocessor)
    model.load_state_dict(match.weights, strict=False)
    print_log(f'{name}: loaded all {match.total} keys from {checkpoint}', 'current')


def is_pretraining(model: nn.Module) -> bool:
    """Tell whether a model is one of mmpretrain's self-supervised algorithms, as VITO is."""
    # By name: mmpretrain is not imported for tasks of other libraries.
    return any(base.__name__ == 'BaseSelfSupervisor' for base in type(model).__mro__)
