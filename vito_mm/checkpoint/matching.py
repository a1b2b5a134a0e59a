"""The ResNet in a checkpoint, and the checked way of it into a model.

OpenMMLab loads weights with ``strict=False`` and complains only when nothing matches at all, so a
wrong prefix or another stem costs the pre-trained weights in silence (mmdet #4304, mmseg #1473).
Here less than all of the backbone's keys is an error that lists them.
"""

import logging
import os
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from .checkpoint import Checkpoint
from .layouts import (
    NAMINGS,
    RESNET_BLOCKS,
    depth_of,
    is_part_of_resnet,
    is_plain,
    resnet_keys,
    stage_of,
)
from .reading import CheckpointError, is_target

NETWORKS = ('online', 'target')
"""The two networks of a self-distilling method that ``which`` can name."""

_OPTIONAL = '.num_batches_tracked'  # not in files older than PyTorch 0.4.1 nor in frozen batch norm


@dataclass
class BackboneMatch:
    """How a state dict covers the backbone of a model.

    Attributes:
        prefix (str): What stands before the backbone's keys in the file, such as ``'backbone.'``.
        which (str): ``'online'`` or ``'target'``, the network that the prefix belongs to.
        naming (str): Whose names the file uses, one of :data:`.resnet_names.NAMINGS`; the keys
            below are torchvision's.
        weights (dict[str, Tensor]): Matching tensors by the model's key.
        missing (list[str]): Keys of the model that the file lacks under the prefix.
        unexpected (list[str]): ResNet keys under the prefix that the model lacks.
        misshaped (list[str]): Keys of both with different shapes, with the shapes.
        new (list[str]): Keys that the model adds to a plain ResNet, such as offsets of deformable
            convolutions and plugins, and that the file does not have.
        left_out (list[str]): Keys of stages that the model does not have (``num_stages=3``).
        rivals (list[str]): Other prefixes with just as many matching keys.
        depths (tuple[int | None, int | None]): Depth of the ResNet in the file and in the model,
            None where it is none of the usual ones.
        meta (dict): What the file says of itself, see :func:`.checkpoint_file.meta_of`.
    """

    prefix: str
    which: str
    naming: str = 'torchvision'
    weights: dict[str, Tensor] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshaped: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    rivals: list[str] = field(default_factory=list)
    depths: tuple[int | None, int | None] = (None, None)
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every key is there in its shape, and nothing more of these stages."""
        return not (self.missing or self.unexpected or self.misshaped)

    @property
    def total(self) -> int:
        """Number of keys that the model needs."""
        return len(self.weights) + len(self.missing) + len(self.misshaped)

    def describe(self) -> str:
        """The first keys of every kind that does not match, one kind a line."""
        kinds = ('missing', 'unexpected', 'misshaped')
        lines = (_listing(kind, getattr(self, kind)) for kind in kinds if getattr(self, kind))
        return '\n'.join(lines)

    def origin(self) -> str:
        """Where in the file the backbone stands and how old it is, for messages."""
        text = f'prefix "{self.prefix}", {self.which} network'
        if self.naming != 'torchvision':
            text += f', {self.naming} names'
        return text + (f', step {self.meta["step"]}' if 'step' in self.meta else '')

    def coverage(self, checkpoint: str | os.PathLike | Checkpoint) -> str:
        """How many keys come from where."""
        return f'{len(self.weights)}/{self.total} backbone keys from {checkpoint} ({self.origin()})'

    def remarks(self) -> list[str]:
        """What else should be known of a match, one sentence each."""
        found = []
        if self.new:
            found.append(
                f'{_listing("new", self.new, shown=3)}: the config adds them to a plain ResNet, '
                'they start as the config initialises them'
            )
        if self.left_out:
            stages = sorted({stage_of(key) for key in self.left_out})
            found.append(
                f'stage {", ".join(map(str, stages))} of the checkpoint is not used, because the '
                'backbone does not have it (num_stages); a shared head that takes its place does '
                'not start from the checkpoint'
            )
        if self.naming == 'detectron2' and 'source' not in self.meta:
            found.append(
                'detectron2 trains by default with the stride in the 1x1 convolution '
                "(style='caffe' here), BGR input and a std of 1: unless these weights were trained "
                'otherwise, set the config so'
            )
        if self.rivals:
            found.append(
                f'{", ".join(map(repr, self.rivals))} holds such a backbone too; '
                f'{self.prefix!r} was taken'
            )
        return found


def find_backbone(
    state_dict: Mapping[str, Tensor],
    expected: Mapping[str, Tensor] | None = None,
    which: str = 'online',
) -> BackboneMatch:
    """Find the ResNet in a state dict, under whatever prefix it stands.

    Args:
        state_dict (Mapping[str, Tensor]): The weights of a whole model or of a backbone alone.
        expected (Mapping[str, Tensor], optional): State dict of the backbone to fill. Without it,
            any ResNet of :data:`.resnet_names.RESNET_BLOCKS` will do, and shapes are not compared.
            Defaults to None.
        which (str): ``'online'`` or ``'target'``. Defaults to 'online'.

    Returns:
        BackboneMatch: The best match, which need not be complete.

    Raises:
        CheckpointError: If nothing of a ResNet is there, or not of the wanted network.
    """
    if which not in NETWORKS:
        raise ValueError(f'which must be one of {NETWORKS}, got {which!r}')
    if expected is None:
        matches = [
            find_backbone(state_dict, dict.fromkeys(resnet_keys(depth)), which)
            for depth in RESNET_BLOCKS
        ]
        return min(matches, key=lambda match: len(match.missing) + len(match.unexpected))

    best, error = None, None
    for naming, rename in NAMINGS.items():
        renamed = {rename(key): value for key, value in state_dict.items()}
        try:
            match = _best_prefix(renamed, expected, which)
        except CheckpointError as reason:
            error = error or reason
            continue
        match.naming = naming
        if match.complete:
            return match
        if best is None or len(match.weights) > len(best.weights):
            best = match
    if best is None:
        raise error
    return best


def load_backbone(
    model: nn.Module,
    checkpoint: str | os.PathLike | Checkpoint,
    which: str = 'online',
    allow_partial: bool = False,
) -> BackboneMatch:
    """Load the ResNet of a checkpoint into a ResNet, all of it or with an error.

    It reads training checkpoints of VITO and the other methods of mmpretrain (online and target
    network), exported files, MoCo's and other programs' files under any prefix, torchvision's and
    timm's, detectron2's, and safetensors. A classifier (``fc.*``) is left out. One line in the log
    says what was loaded.

    Args:
        model (nn.Module): ResNet with torchvision's names: torchvision's, mmpretrain's, mmdet's or
            mmseg's. What it adds to a plain ResNet keeps its values.
        checkpoint (str | os.PathLike): Local file.
        which (str): ``'online'`` or ``'target'`` network. Defaults to 'online'.
        allow_partial (bool): Whether to load what matches and only warn about the rest.
            Defaults to False.

    Returns:
        BackboneMatch: What was loaded and, with ``allow_partial``, what was not.

    Raises:
        CheckpointError: If the file cannot be read, or does not hold exactly this backbone.
    """
    expected = {k: v for k, v in model.state_dict().items() if not k.startswith('fc.')}
    if any(value.is_meta for value in expected.values()):
        raise CheckpointError(
            f'{type(model).__name__} is on the meta device, where nothing can be loaded: call '
            'to_empty(device=...) first'
        )
    checkpoint = Checkpoint.read(checkpoint)
    match = checkpoint.match(expected, which)
    if not allow_partial:
        require_complete(match, checkpoint)
    name = type(model).__name__
    model.load_state_dict(match.weights, strict=False)
    if match.complete:
        print_log(f'{name}: loaded {match.coverage(checkpoint)}', 'current')
    else:
        print_log(f'{name}: loaded only {_report(match, checkpoint)}', 'current', logging.WARNING)
    for remark in match.remarks():
        print_log(f'{name}: {remark}', 'current', logging.WARNING)
    return match


def load_pretraining(model: nn.Module, checkpoint: str | os.PathLike | Checkpoint) -> None:
    """Load a checkpoint into a model of pre-training, all of it or with an error.

    A file that holds anything of the model but its backbone (neck, projector, target network) is
    one of such a model and must hold the complete model. Of any other file that
    :func:`load_backbone` can read, the backbone is loaded, and the rest of the model stays as it
    is.

    Args:
        model (nn.Module): Algorithm with a ``backbone``, such as VITO or mmpretrain's BYOL.
        checkpoint (str | os.PathLike): Local file.

    Raises:
        CheckpointError: If the file cannot be read, or holds only a part of what it should.
    """
    checkpoint = Checkpoint.read(checkpoint)
    weights = {key.removeprefix('module.'): value for key, value in checkpoint.state_dict.items()}
    expected = model.state_dict()
    if not any(key in weights for key in expected if not key.startswith('backbone.')):
        load_backbone(model.backbone, checkpoint)
        return
    match = _match(weights, expected, '', 'online')
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
    _check_values({k: v for k, v in match.weights.items() if v.is_floating_point()}, checkpoint)
    model.load_state_dict(match.weights, strict=False)
    print_log(f'{name}: loaded all {match.total} keys from {checkpoint}', 'current')


def is_pretraining(model: nn.Module) -> bool:
    """Tell whether a model is one of mmpretrain's self-supervised algorithms, as VITO is.

    Args:
        model (nn.Module): Any model.

    Returns:
        bool: Whether it is.
    """
    # By name: mmpretrain is not imported for tasks of other libraries.
    return any(base.__name__ == 'BaseSelfSupervisor' for base in type(model).__mro__)


def require_complete(match: BackboneMatch, checkpoint: str | os.PathLike | Checkpoint) -> None:
    """Refuse a checkpoint that does not hold exactly the backbone.

    Args:
        match (BackboneMatch): How it covers the backbone.
        checkpoint (str | os.PathLike): Its name, for the message.

    Raises:
        CheckpointError: If the match is not complete.
    """
    if not match.complete:
        raise CheckpointError(
            f'Only {_report(match, checkpoint)}\nNothing was loaded. allow_partial=True loads what '
            'matches.'
        )


def match_file(
    checkpoint: str | os.PathLike | Checkpoint,
    expected: Mapping[str, Tensor] | None = None,
    which: str = 'online',
) -> BackboneMatch:
    """Find the ResNet in a file, see :func:`find_backbone`.

    Args:
        checkpoint (str | os.PathLike): Local file.
        expected (Mapping[str, Tensor], optional): State dict to fill. Defaults to None.
        which (str): ``'online'`` or ``'target'``. Of an exported file, which holds one network
            under bare names, ``'online'`` stands for that one. Defaults to 'online'.

    Returns:
        BackboneMatch: The best match, with the file's metadata.

    Raises:
        CheckpointError: If the file cannot be read or holds nothing of this network.
    """
    checkpoint = Checkpoint.read(checkpoint)
    exported = checkpoint.meta.get('which')
    try:
        if exported is not None and which == 'target' and exported != 'target':
            raise CheckpointError(
                f'It was exported from the {exported} network; use which="online".'
            )
        match = find_backbone(checkpoint.state_dict, expected, 'online' if exported else which)
    except CheckpointError as error:
        raise CheckpointError(f'There is no such backbone in {checkpoint}. {error}') from None
    match.which = exported or match.which
    match.meta = checkpoint.meta
    _check_values(match.weights, checkpoint)
    return match


def match_at(
    checkpoint: str | os.PathLike | Checkpoint, expected: Mapping[str, Tensor], prefix: str
) -> BackboneMatch:
    """How what stands under one prefix in a file covers a backbone.

    Args:
        checkpoint (str | os.PathLike): Local file.
        expected (Mapping[str, Tensor]): State dict to fill.
        prefix (str): What stands before the keys, with its dot; may be empty.

    Returns:
        BackboneMatch: The match, with the file's metadata.

    Raises:
        CheckpointError: If the file cannot be read or its values are no weights.
    """
    checkpoint = Checkpoint.read(checkpoint)
    which = 'target' if is_target(prefix) else 'online'
    match = _match(checkpoint.model_state_dict, expected, prefix, which)
    match.meta = checkpoint.meta
    _check_values(match.weights, checkpoint)
    return match


def _check_values(
    weights: Mapping[str, Tensor], checkpoint: str | os.PathLike | Checkpoint
) -> None:
    """Refuse numbers that cannot be weights."""
    parameters = {k: v for k, v in weights.items() if not k.endswith(_OPTIONAL)}
    kinds = [f'{k} ({v.dtype})' for k, v in parameters.items() if not v.is_floating_point()]
    if kinds:
        raise CheckpointError(
            f'{checkpoint} holds no floating-point weights: {_listing("such", kinds, shown=3)}'
        )
    broken = [k for k, v in parameters.items() if not v.float().isfinite().all()]
    if broken:
        raise CheckpointError(
            f'{checkpoint} holds values that are not finite: {_listing("keys", broken, shown=3)}. '
            'The run that wrote it had diverged; take an earlier checkpoint.'
        )


def _best_prefix(
    state_dict: Mapping[str, Tensor], expected: Mapping[str, Tensor | None], which: str
) -> BackboneMatch:
    # Every way of cutting a key into prefix and name votes for its prefix.
    votes: Counter[str] = Counter()
    for key in state_dict:
        parts = key.split('.')
        for cut in range(len(parts)):
            if '.'.join(parts[cut:]) in expected:
                votes['.'.join(parts[:cut]) + '.' if cut else ''] += 1
    if not votes:
        raise CheckpointError(
            'It holds no key of a ResNet. Its keys look like these: '
            f"{', '.join(sorted(state_dict)[:5])}. The names must be torchvision's (conv1.weight, "
            'layer1.0.conv1.weight, ...), after any one prefix.'
        )
    wanted = [p for p in votes if is_target(p) == (which == 'target')]
    if not wanted:
        nearest = max(votes, key=votes.get)
        other = 'online' if which == 'target' else 'target'
        raise CheckpointError(
            f'It holds no {which} network: the backbone stands under {nearest!r}. '
            f'Use which="{other}".'
        )
    ranked = sorted(wanted, key=lambda p: (-votes[p], p.count('.'), p))
    # A smaller ResNet's names are all among a bigger one's, so names alone do not decide.
    matches = [_match(state_dict, expected, prefix, which) for prefix in ranked[:8]]
    whole = [match for match in matches if match.complete]
    if not whole:
        return max(matches, key=lambda match: len(match.weights))
    whole[0].rivals = [match.prefix for match in whole[1:]]
    return whole[0]


def _match(
    state_dict: Mapping[str, Tensor],
    expected: Mapping[str, Tensor | None],
    prefix: str,
    which: str,
) -> BackboneMatch:
    match = BackboneMatch(prefix, which)
    is_resnet = any(map(is_plain, expected))
    stages = max((stage_of(key) for key in expected), default=0)
    for key, target in expected.items():
        found = state_dict.get(prefix + key)
        if found is None:
            if is_resnet and not is_plain(key) and not key.startswith('stem.'):
                match.new.append(key)
            elif not key.endswith(_OPTIONAL):
                match.missing.append(key)
        elif target is not None and found.shape != target.shape:
            match.misshaped.append(f'{key} {tuple(found.shape)} -> {tuple(target.shape)}')
        else:
            match.weights[key] = found
    here = [key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)]
    match.depths = depth_of(here), depth_of(expected)
    for key in here:
        if key not in expected and is_part_of_resnet(key) and not key.endswith(_OPTIONAL):
            (match.left_out if stage_of(key) > stages > 0 else match.unexpected).append(key)
    return match


def _report(match: BackboneMatch, checkpoint: str | os.PathLike | Checkpoint) -> str:
    return f'{match.coverage(checkpoint)}\n{match.describe()}\n{_remedy(match)}'


def _remedy(match: BackboneMatch) -> str:
    stem_missing = any(key.startswith('stem.') for key in match.missing)
    if stem_missing and not any(key.startswith('stem.') for key in match.unexpected):
        return (
            'The model has the deep stem of three 3x3 convolutions (deep_stem=True, ResNetV1c or '
            'ResNetV1d) and the checkpoint the plain 7x7 stem: set deep_stem=False or use '
            'type="VITOResNet" without it.'
        )
    statistics = ('.running_mean', '.running_var')
    with_statistics = [key for key in match.weights if key.endswith(statistics)]
    if match.missing and not with_statistics and all(k.endswith(statistics) for k in match.missing):
        return (
            'The running statistics of batch norm are missing: the file holds parameters without '
            'buffers, as averages over model.parameters() do. Save the state_dict() of the model '
            'that has these parameters.'
        )
    if any('.gn' in key or key.startswith('gn') for key in match.new):
        return (
            'The model has group norm and the checkpoint batch norm, whose scales and statistics '
            "have no place in it: set the backbone's norm_cfg=dict(type='BN') (or 'SyncBN') and "
            'leave conv_cfg out.'
        )
    found, wanted = match.depths
    if None not in match.depths and found != wanted:
        return (
            f'The checkpoint holds a ResNet-{found} and the model is a ResNet-{wanted}: set '
            f'depth={found} and the in_channels that go with it, or take the checkpoint of a '
            f'ResNet-{wanted}.'
        )
    if len(match.weights) < 0.1 * match.total:
        return (
            f'The nearest prefix in the file, {match.prefix!r}, holds next to nothing of the '
            'backbone. Is it the checkpoint of another architecture?'
        )
    if any(key.startswith('conv1.weight') for key in match.misshaped):
        return (
            "The model's stem has another width than the checkpoint's: leave stem_channels and "
            'base_channels out of the config.'
        )
    return (
        'The checkpoint is of another ResNet than the model: compare base_channels, '
        'num_stages, plugins and norm_cfg with those of the pre-training.'
    )


def _listing(kind: str, keys: list[str], shown: int = 10) -> str:
    more = f', ... ({len(keys) - shown} more)' if len(keys) > shown else ''
    return f'{len(keys)} {kind}: {", ".join(keys[:shown])}{more}'
