"""The backbone in a state dict: its prefix, its names, and what is missing or too much.

OpenMMLab loads weights with ``strict=False`` and complains only when nothing matches at all, so a
wrong prefix or another stem costs the pre-trained weights in silence (mmdet #4304, mmseg #1473).
Here less than all of the backbone's keys is an error that lists them.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vito_mm.utils.text import first_few

from .errors import CheckpointError
from .families import family_of, namings_of
from .layouts import (
    RESNET_BLOCKS,
    depth_of,
    is_part_of_resnet,
    is_plain,
    resnet_keys,
    stage_of,
)
from .networks import is_target
from .remedies import remedy_of
from .renaming import HEADS, part_of

NETWORKS = ('online', 'target')
"""The two networks of a self-distilling method that ``which`` can name."""

_OPTIONAL = '.num_batches_tracked'  # not in files older than PyTorch 0.4.1 nor in frozen batch norm
_TABLES = ('relative_position_index', 'relative_coords_table', 'attn_mask')
"""Buffers that modules make by themselves."""

Fit = Callable[[str, Tensor], Tensor | None]
"""Gives a tensor of a file, by the model's key, the model's shape; None if that cannot be done."""


@dataclass
class BackboneMatch:
    """Coverage of a model's backbone by a state dict.

    Attributes:
        prefix: Prefix of the backbone's keys in the file, such as ``'backbone.'``.
        which: ``'online'`` or ``'target'``, the network that the prefix belongs to.
        naming: Whose names the file has, see :func:`.families.namings_of`; the keys below are the
            model's.
        family: ``'ResNet'``, another one of :mod:`.families`, or ``''``.
        weights: Matching tensors by the model's key.
        missing: Keys of the model that the file lacks under the prefix.
        unexpected: Keys of a backbone under the prefix that the model lacks.
        shape_mismatch: Keys of both with different shapes, with the shapes.
        new: Keys that the model adds and the file lacks: in a plain ResNet offsets of deformable
            convolutions and plugins, in others norms of the outputs of earlier stages.
        notes: Further facts that a user should know.
        skipped: Keys of stages that the model does not have (``num_stages=3``).
        alternative_prefixes: Other prefixes with just as many matching keys.
        depths: Depth of the ResNet in the file and in the model, None for an unusual one.
        file: The checkpoint.
        meta: Its metadata, see :attr:`.Checkpoint.meta`.
    """

    prefix: str
    which: str
    naming: str = 'torchvision'
    family: str = ''
    weights: dict[str, Tensor] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shape_mismatch: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
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
        is_own = self.naming == ('torchvision' if self.family == 'ResNet' else 'openmmlab')
        if self.family and not is_own:
            text += f', {self.naming} names'
        return text + (f', step {self.meta["step"]}' if 'step' in self.meta else '')

    def coverage(self) -> str:
        """Number of keys and their origin."""
        return f'{len(self.weights)}/{self.total} backbone keys from {self.file} ({self.origin()})'

    def report(self) -> str:
        """Coverage, keys and remedy of an incomplete match."""
        return f'{self.coverage()}\n{self.describe()}\n{remedy_of(self)}'

    def warnings(self) -> list[str]:
        """Facts about the match that a user should know although it is complete."""
        found = []
        if self.new:
            plain = 'a plain ResNet' if self.family == 'ResNet' else 'what the checkpoint holds'
            found.append(
                f'{listing("new", self.new, shown=3)}: the config adds them to {plain}, '
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
        return found + self.notes


def find_backbone(
    state_dict: Mapping[str, Tensor],
    expected: Mapping[str, Tensor | None] | None = None,
    which: str = 'online',
    fit: Fit | None = None,
) -> BackboneMatch:
    """Find a backbone in a state dict, under whatever prefix and by whatever names.

    The best match need not be complete. Without ``expected``, any ResNet of
    :data:`.layouts.RESNET_BLOCKS` will do, and shapes are not compared.

    Raises:
        CheckpointError: If nothing of it is there, or not of the wanted network.
    """
    if which not in NETWORKS:
        raise ValueError(f'which must be one of {NETWORKS}, got {which!r}')
    renamed: dict[str, Mapping[str, Tensor]] = {}  # by naming, for all depths alike
    if expected is not None:
        return _best_naming(state_dict, expected, which, fit, renamed)
    best, fewest = None, 0
    for depth in RESNET_BLOCKS:
        keys = dict.fromkeys(resnet_keys(depth))
        match = _best_naming(state_dict, keys, which, fit, renamed)
        differing = len(match.missing) + len(match.unexpected)
        if best is None or differing < fewest:
            best, fewest = match, differing
        if not fewest:
            break
    return best


def _best_naming(
    state_dict: Mapping[str, Tensor],
    expected: Mapping[str, Tensor | None],
    which: str,
    fit: Fit | None,
    renamed: dict[str, Mapping[str, Tensor]],
) -> BackboneMatch:
    best, error = None, None
    for naming, rename in namings_of(expected).items():
        if naming not in renamed:
            renamed[naming] = rename(state_dict)
        try:
            match = _best_prefix(renamed[naming], expected, which, naming, fit)
        except CheckpointError as reason:
            error = error or reason
            continue
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
    naming: str = '',
    fit: Fit | None = None,
) -> BackboneMatch:
    """Compare what has a prefix in a state dict with what is expected there (None: any shape).

    The state dict has the model's names; ``naming`` says whose it had.
    """
    match = BackboneMatch(prefix, which)
    here = [key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)]
    match.family = _family_name(expected)
    known = None if match.family == 'ResNet' else family_of(expected)
    match.naming = naming or next(iter(namings_of(expected)))
    is_new = _additions(here, expected, match.family)
    for key, target in expected.items():
        found = state_dict.get(prefix + key)
        if key.endswith(_TABLES):
            if found is not None and target is not None and not _same_table(found, target):
                match.shape_mismatch.append(f'{key} (a table of other values)')
            continue
        if found is not None and target is not None and found.shape != target.shape:
            taken = reshaped(found, target) if fit is None else fit(key, found)
            if taken is None or taken.shape != target.shape:
                match.shape_mismatch.append(f'{key} {tuple(found.shape)} -> {tuple(target.shape)}')
                continue
            if taken.numel() != found.numel():
                match.notes.append(
                    f'{key} was resized from {tuple(found.shape)} to {tuple(taken.shape)}, the '
                    'grid of this model'
                )
            found = taken
        if found is not None:
            match.weights[key] = found
        elif is_new(key):
            match.new.append(key)
        elif not key.endswith(_OPTIONAL):
            match.missing.append(key)
    match.depths = depth_of(here), depth_of(expected)
    stages = max((stage_of(key) for key in expected), default=0)
    parts = set(map(part_of, expected))
    if known:
        parts |= known[0].parts
    unused = []
    for key in here:
        if key in expected or key.endswith((_OPTIONAL, *_TABLES)):
            continue
        if known and _OUTPUT_NORM.match(key):
            unused.append(key)
        elif _is_own(key, parts, prefix) or (match.family == 'ResNet' and is_part_of_resnet(key)):
            (match.skipped if stage_of(key) > stages > 0 else match.unexpected).append(key)
    if unused:
        match.notes.append(
            f'{listing("unused", unused, shown=3)}: the model has no such norm of its output'
        )
    return match


_OUTPUT_NORM = re.compile(r'(norm\d*|ln[12])\.')


def _family_name(expected: Mapping[str, Any]) -> str:
    if any(map(is_plain, expected)):
        return 'ResNet'
    known = family_of(expected)
    return known[0].name if known else ''


def _number_needed(expected: Mapping[str, Any]) -> int:
    """Number of keys without which a match is not complete, whatever else is there."""
    may_be_new = _additions([], expected, _family_name(expected))
    return sum(not (key.endswith((_OPTIONAL, *_TABLES)) or may_be_new(key)) for key in expected)


def _additions(here: list[str], expected: Mapping[str, Any], family: str) -> Callable[[str], bool]:
    """Tell which keys that a file lacks under a prefix are additions of the config."""
    if family == 'ResNet':
        kinds = {re.sub(r'\d+', '#', key) for key in here}
        return lambda key: (
            key.startswith(('layer', 'gn'))
            and not is_plain(key)
            and re.sub(r'\d+', '#', key) not in kinds
        )
    stages = [int(found[1]) for key in expected if (found := re.match(r'stages\.(\d+)\.', key))]
    norms = tuple(f'norm{stage}.' for stage in range(max(stages, default=0)) if family)
    return lambda key: key.startswith(norms)


def _same_table(found: Tensor, target: Tensor) -> bool:
    return found.numel() == target.numel() and bool(
        (found.flatten().cpu() == target.flatten().cpu()).all()
    )


def reshaped(found: Tensor, target: Tensor) -> Tensor | None:
    """A linear layer for a 1x1 convolution and the reverse."""
    size = found.shape if found.ndim < target.ndim else target.shape
    longer = found.shape if found.ndim > target.ndim else target.shape
    same = longer[: len(size)] == size and set(longer[len(size) :]) == {1}
    return found.reshape(target.shape) if same else None


def _is_own(key: str, parts: set[str], prefix: str) -> bool:
    """True for a key that a backbone of these parts should have; others are heads and the like."""
    part = part_of(key)
    return part in parts or (prefix.endswith('backbone.') and part not in HEADS)


def require_weights(
    weights: Mapping[str, Tensor],
    file: str | os.PathLike,
    expected: Mapping[str, Tensor] | None = None,
) -> None:
    """Refuse, by a CheckpointError, what is no floating-point number or not finite.

    Tensors that are no floating-point numbers in the model (``expected``) either, such as tables of
    positions and counters, are not judged.
    """
    parameters = {
        k: v
        for k, v in weights.items()
        if (not k.endswith(_OPTIONAL) if expected is None else expected[k].is_floating_point())
    }
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
    state_dict: Mapping[str, Tensor],
    expected: Mapping[str, Tensor | None],
    which: str,
    naming: str,
    fit: Fit | None,
) -> BackboneMatch:
    # Every way of cutting a key into prefix and name votes for its prefix.
    votes: Counter[str] = Counter()
    for key in state_dict:
        parts = key.split('.')
        for cut in range(len(parts)):
            if '.'.join(parts[cut:]) in expected:
                votes['.'.join(parts[:cut]) + '.' if cut else ''] += 1
    if not votes:
        is_resnet = any(map(is_plain, expected))
        shown = ['conv1.weight', 'layer1.0.conv1.weight', '...']
        examples = first_few(shown if is_resnet else list(expected), 3)
        raise CheckpointError(
            f'It holds no key of {"a ResNet" if is_resnet else "this backbone"}. Its keys look '
            f'like these: {", ".join(sorted(state_dict)[:5])}. The names must be '
            f"{'torchvision' if is_resnet else 'the library'}'s ({examples}), after any one prefix."
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
    needed = _number_needed(expected)
    complete, best = [], None
    for prefix in ranked[:8]:
        # A prefix has a vote for each key below it that is expected.
        if votes[prefix] < needed and (complete or (best and votes[prefix] <= len(best.weights))):
            break
        match = match_prefix(state_dict, expected, prefix, which, naming, fit)
        if match.complete:
            complete.append(match)
        elif best is None or len(match.weights) > len(best.weights):
            best = match
    if not complete:
        return best
    complete[0].alternative_prefixes = [match.prefix for match in complete[1:]]
    return complete[0]
