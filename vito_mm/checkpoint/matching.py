"""The backbone in a state dict: its prefix, its names, and what is missing or too much.

OpenMMLab loads weights with ``strict=False`` and complains only when nothing matches at all, so a
wrong prefix or another stem costs the pre-trained weights in silence (mmdet #4304, mmseg #1473).
Here less than all of the backbone's keys is an error that lists them.
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vito_mm.utils.text import first_few

from .errors import CheckpointError
from .layouts import (
    NAMINGS,
    RESNET_BLOCKS,
    depth_of,
    is_part_of_resnet,
    is_plain,
    resnet_keys,
    stage_of,
)
from .networks import is_target

NETWORKS = ('online', 'target')
"""The two networks of a self-distilling method that ``which`` can name."""

_OPTIONAL = '.num_batches_tracked'  # not in files older than PyTorch 0.4.1 nor in frozen batch norm


@dataclass
class BackboneMatch:
    """Coverage of a model's backbone by a state dict.

    Attributes:
        prefix: Prefix of the backbone's keys in the file, such as ``'backbone.'``.
        which: ``'online'`` or ``'target'``, the network that the prefix belongs to.
        naming: One of :data:`.layouts.NAMINGS`, as in the file; the keys below are torchvision's.
        weights: Matching tensors by the model's key.
        missing: Keys of the model that the file lacks under the prefix.
        unexpected: ResNet keys under the prefix that the model lacks.
        shape_mismatch: Keys of both with different shapes, with the shapes.
        new: Keys that the model adds to a plain ResNet (offsets of deformable convolutions,
            plugins) and the file lacks.
        skipped: Keys of stages that the model does not have (``num_stages=3``).
        alternative_prefixes: Other prefixes with just as many matching keys.
        depths: Depth of the ResNet in the file and in the model, None for an unusual one.
        file: The checkpoint.
        meta: Its metadata, see :attr:`.Checkpoint.meta`.
    """

    prefix: str
    which: str
    naming: str = 'torchvision'
    weights: dict[str, Tensor] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shape_mismatch: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    alternative_prefixes: list[str] = field(default_factory=list)
    depths: tuple[int | None, int | None] = (None, None)
    file: str = 'checkpoint'
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """True if every key is there in its shape, and nothing else of these stages."""
        return not (self.missing or self.unexpected or self.shape_mismatch)

    @property
    def total(self) -> int:
        """Number of keys that the model needs."""
        return len(self.weights) + len(self.missing) + len(self.shape_mismatch)

    def require_complete(self) -> None:
        """Raise a CheckpointError, with a remedy, if the match is not complete."""
        if not self.complete:
            raise CheckpointError(
                f'Only {self.report()}\nNothing was loaded. allow_partial=True loads what matches.'
            )

    def describe(self) -> str:
        """The first keys of every kind that does not match, one line per kind."""
        kinds = ('missing', 'unexpected', 'shape_mismatch')
        lines = ((kind.replace('_', ' '), getattr(self, kind)) for kind in kinds)
        return '\n'.join(listing(kind, keys) for kind, keys in lines if keys)

    def origin(self) -> str:
        """Place in the file and age of the backbone, for messages."""
        text = f'prefix "{self.prefix}", {self.which} network'
        if self.naming != 'torchvision':
            text += f', {self.naming} names'
        return text + (f', step {self.meta["step"]}' if 'step' in self.meta else '')

    def coverage(self) -> str:
        """Number of keys and their origin."""
        return f'{len(self.weights)}/{self.total} backbone keys from {self.file} ({self.origin()})'

    def report(self) -> str:
        """Coverage, keys and remedy of an incomplete match."""
        return f'{self.coverage()}\n{self.describe()}\n{_remedy(self)}'

    def warnings(self) -> list[str]:
        """Facts about the match that a user should know although it is complete."""
        found = []
        if self.new:
            found.append(
                f'{listing("new", self.new, shown=3)}: the config adds them to a plain ResNet, '
                'they start as the config initialises them'
            )
        if self.skipped:
            stages = sorted({stage_of(key) for key in self.skipped})
            found.append(
                f'stage {", ".join(map(str, stages))} of the checkpoint is skipped, because the '
                'backbone does not have it (num_stages); a shared head that takes its place does '
                'not start from the checkpoint'
            )
        if self.naming == 'detectron2' and 'source' not in self.meta:
            found.append(
                'detectron2 trains by default with the stride in the 1x1 convolution '
                "(style='caffe' here), BGR input and a std of 1: unless these weights were trained "
                'otherwise, set the config so'
            )
        if self.alternative_prefixes:
            found.append(
                f'{", ".join(map(repr, self.alternative_prefixes))} holds such a backbone too; '
                f'{self.prefix!r} was taken'
            )
        return found


def find_backbone(
    state_dict: Mapping[str, Tensor],
    expected: Mapping[str, Tensor | None] | None = None,
    which: str = 'online',
) -> BackboneMatch:
    """Find the ResNet in a state dict, under whatever prefix it stands.

    The best match need not be complete. Without ``expected``, any ResNet of
    :data:`.layouts.RESNET_BLOCKS` will do, and shapes are not compared.

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


def match_prefix(
    state_dict: Mapping[str, Tensor],
    expected: Mapping[str, Tensor | None],
    prefix: str,
    which: str = 'online',
) -> BackboneMatch:
    """Compare what has a prefix in a state dict with what is expected there (None: any shape)."""
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
            match.shape_mismatch.append(f'{key} {tuple(found.shape)} -> {tuple(target.shape)}')
        else:
            match.weights[key] = found
    here = [key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)]
    match.depths = depth_of(here), depth_of(expected)
    for key in here:
        if key not in expected and is_part_of_resnet(key) and not key.endswith(_OPTIONAL):
            (match.skipped if stage_of(key) > stages > 0 else match.unexpected).append(key)
    return match


def require_weights(weights: Mapping[str, Tensor], file: str | os.PathLike) -> None:
    """Refuse, by a CheckpointError, what is no floating-point number or not finite."""
    parameters = {k: v for k, v in weights.items() if not k.endswith(_OPTIONAL)}
    if kinds := [f'{k} ({v.dtype})' for k, v in parameters.items() if not v.is_floating_point()]:
        raise CheckpointError(
            f'{file} holds no floating-point weights: {listing("such", kinds, shown=3)}'
        )
    if broken := [k for k, v in parameters.items() if not v.float().isfinite().all()]:
        raise CheckpointError(
            f'{file} holds values that are not finite: {listing("keys", broken, shown=3)}. '
            'The run that wrote it had diverged; take an earlier checkpoint.'
        )


def listing(kind: str, keys: list[str], shown: int = 10) -> str:
    """Number of keys of a kind and the first of them."""
    return f'{len(keys)} {kind}: {first_few(keys, shown)}'


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
    matches = [match_prefix(state_dict, expected, prefix, which) for prefix in ranked[:8]]
    complete = [match for match in matches if match.complete]
    if not complete:
        return max(matches, key=lambda match: len(match.weights))
    complete[0].alternative_prefixes = [match.prefix for match in complete[1:]]
    return complete[0]


def _remedy(match: BackboneMatch) -> str:
    stem_missing = any(key.startswith('stem.') for key in match.missing)
    if stem_missing and not any(key.startswith('stem.') for key in match.unexpected):
        return (
            'The model has the deep stem of three 3x3 convolutions (deep_stem=True, ResNetV1c or '
            'ResNetV1d) and the checkpoint the plain 7x7 stem: set deep_stem=False or use '
            'type="VITOResNet" without it.'
        )
    statistics = ('.running_mean', '.running_var')
    has_statistics = any(key.endswith(statistics) for key in match.weights)
    if match.missing and not has_statistics and all(k.endswith(statistics) for k in match.missing):
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
    if any(key.startswith('conv1.weight') for key in match.shape_mismatch):
        return (
            "The model's stem has another width than the checkpoint's: leave stem_channels and "
            'base_channels out of the config.'
        )
    return (
        'The checkpoint is of another ResNet than the model: compare base_channels, '
        'num_stages, plugins and norm_cfg with those of the pre-training.'
    )
