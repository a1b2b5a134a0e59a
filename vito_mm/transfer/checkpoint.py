"""What is in a checkpoint, and the checked way of its ResNet into another model.

OpenMMLab loads weights with ``strict=False`` and complains only when nothing matches at all, so a
wrong prefix or another stem costs the pre-trained weights in silence (mmdet #4304, mmseg #1473).
Here less than all of the backbone's keys is an error that lists them.
"""

import difflib
import logging
import os
import pickle
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from vito_mm.atomic import written_aside

NETWORKS = ('online', 'target')
"""The two networks of a self-distilling method that ``which`` can name."""

TARGET_NAMES = (
    'target',
    'target_net',
    'target_network',
    'encoder_k',
    'momentum_encoder',
    'teacher',
)
"""Module names that mark the slowly moving network in the checkpoints of VITO, BYOL, MoCo, DINO."""

WRAPPERS = ('state_dict', 'model', 'model_state_dict', 'network', 'net')
"""Entries under which a file may hold its state dict."""

RESNET_BLOCKS = {
    18: ('basic', (2, 2, 2, 2)),
    34: ('basic', (3, 4, 6, 3)),
    50: ('bottleneck', (3, 4, 6, 3)),
    101: ('bottleneck', (3, 4, 23, 3)),
    152: ('bottleneck', (3, 8, 36, 3)),
}
"""Kind of block and blocks per stage of each ResNet, https://arxiv.org/abs/1512.03385 table 1."""

_PART_OF_RESNET = re.compile(r'(conv1|bn1|stem|layer\d+)\.')
_OPTIONAL = '.num_batches_tracked'  # absent from files older than PyTorch 0.4.1, never used here


class CheckpointError(RuntimeError):
    """A checkpoint that cannot initialise the backbone; the message says why and what to do."""


@dataclass
class BackboneMatch:
    """How a state dict covers the backbone of a model.

    Attributes:
        prefix (str): What stands before the backbone's keys in the file, such as ``'backbone.'``.
        which (str): ``'online'`` or ``'target'``, the network that the prefix belongs to.
        weights (dict[str, Tensor]): Matching tensors by the model's key.
        missing (list[str]): Keys of the model that the file lacks under the prefix.
        unexpected (list[str]): ResNet keys under the prefix that the model lacks.
        misshaped (list[str]): Keys of both with different shapes, with the shapes.
    """

    prefix: str
    which: str
    weights: dict[str, Tensor] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshaped: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every key is there in its shape, and nothing more of a ResNet."""
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


def resnet_keys(depth: int) -> list[str]:
    """Names of a ResNet's parameters and buffers, without the classifier.

    Args:
        depth (int): One of 18, 34, 50, 101 and 152.

    Returns:
        list[str]: torchvision's names, as also used by mmpretrain, mmdet and mmseg.
    """
    kind, blocks = RESNET_BLOCKS[depth]
    convs = 3 if kind == 'bottleneck' else 2
    layers = [('conv1', 'bn1')]
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            name = f'layer{stage}.{block}'
            layers += [(f'{name}.conv{i}', f'{name}.bn{i}') for i in range(1, convs + 1)]
            if block == 0 and (stage > 1 or kind == 'bottleneck'):
                layers.append((f'{name}.downsample.0', f'{name}.downsample.1'))
    norm_parts = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
    keys = []
    for conv, norm in layers:
        keys.append(f'{conv}.weight')
        keys += [f'{norm}.{part}' for part in norm_parts]
    return keys


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint from a local file without running code that it may hold.

    Args:
        path (str | os.PathLike): File written by ``torch.save``.

    Returns:
        dict: What the file holds, tensors on the CPU.

    Raises:
        CheckpointError: If the file is missing, a folder, no checkpoint, damaged, or needs unsafe
            pickles.
    """
    path = Path(path)
    _check_is_checkpoint(path)
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'{path} holds Python objects beside tensors, and loading them could run any code, so '
            f'it was not read ({_unsafe_types(path) or _first_line(error)}). If you trust its '
            'source, re-save the weights alone: torch.save({"state_dict": torch.load(FILE, '
            'weights_only=False)["state_dict"]}, NEW_FILE)'
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(
            f'{path} is damaged or incomplete ({path.stat().st_size} bytes; '
            f'{_first_line(error)}). Copy or write it again.'
        ) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f'{path} holds a {type(content).__name__}, not a dict of weights. Save '
            'model.state_dict() instead.'
        )
    return dict(content)


def state_dict_of(content: Mapping[str, Any], path: str | os.PathLike = 'checkpoint') -> dict:
    """Unwrap the state dict of a checkpoint.

    Args:
        content (Mapping): What :func:`read_checkpoint` returned.
        path (str | os.PathLike): Name of the file, for the message. Defaults to 'checkpoint'.

    Returns:
        dict[str, Tensor]: The weights by their name in the file.

    Raises:
        CheckpointError: If no entry holds tensors.
    """
    while True:
        inner = next((content[k] for k in WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            break
        content = inner
    weights = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not weights:
        raise CheckpointError(
            f'{path} holds no weights: its entries are {sorted(map(str, content))[:10]}. Expected '
            f'a state dict, alone or under one of {", ".join(WRAPPERS)}.'
        )
    return weights


def find_backbone(
    state_dict: Mapping[str, Tensor],
    expected: Mapping[str, Tensor] | None = None,
    which: str = 'online',
) -> BackboneMatch:
    """Find the ResNet in a state dict, under whatever prefix it stands.

    Args:
        state_dict (Mapping[str, Tensor]): The weights of a whole model or of a backbone alone.
        expected (Mapping[str, Tensor], optional): State dict of the backbone to fill. Without it,
            any ResNet of :data:`RESNET_BLOCKS` will do, and shapes are not compared.
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
    wanted = [p for p in votes if _is_target(p) == (which == 'target')]
    if not wanted:
        nearest = max(votes, key=votes.get)
        other = 'online' if which == 'target' else 'target'
        raise CheckpointError(
            f'It holds no {which} network: the backbone stands under {nearest!r} alone. '
            f'Use which="{other}".'
        )
    prefix = min(wanted, key=lambda p: (-votes[p], p.count('.'), p))
    return _match(state_dict, expected, prefix, which)


def load_backbone(
    model: nn.Module,
    checkpoint: str | os.PathLike,
    which: str = 'online',
    allow_partial: bool = False,
) -> BackboneMatch:
    """Load the ResNet of a checkpoint into a ResNet, all of it or with an error.

    It reads VITO training checkpoints (online and target network), exported files, mmpretrain's
    checkpoints and torchvision's. A classifier (``fc.*``) is left out. One line in the log says
    what was loaded.

    Args:
        model (nn.Module): ResNet with torchvision's names: torchvision's, mmpretrain's, mmdet's or
            mmseg's.
        checkpoint (str | os.PathLike): Local file.
        which (str): ``'online'`` or ``'target'`` network. Defaults to 'online'.
        allow_partial (bool): Whether to load what matches and only warn about the rest.
            Defaults to False.

    Returns:
        BackboneMatch: What was loaded and, with ``allow_partial``, what was not.

    Raises:
        CheckpointError: If the file cannot be read, or does not hold exactly this backbone.
    """
    content = read_checkpoint(checkpoint)
    state_dict = state_dict_of(content, checkpoint)
    meta = _meta_of(content)
    expected = {k: v for k, v in model.state_dict().items() if not k.startswith('fc.')}
    try:
        match = find_backbone(state_dict, expected, _which_in_file(meta, which))
    except CheckpointError as error:
        raise CheckpointError(f'No backbone could be loaded from {checkpoint}. {error}') from None
    match.which = meta.get('which', match.which)

    coverage = f'{len(match.weights)}/{match.total} backbone keys from {checkpoint}'
    origin = f'prefix "{match.prefix}", {match.which} network'
    if 'step' in meta:
        origin += f', step {meta["step"]}'
    if not match.complete:
        report = f'{coverage} ({origin})\n{match.describe()}\n{_remedy(match)}'
        if not allow_partial:
            raise CheckpointError(
                f'Only {report}\nNothing was loaded. allow_partial=True loads what matches.'
            )
        print_log(f'{type(model).__name__}: loaded only {report}', 'current', logging.WARNING)
    model.load_state_dict(match.weights, strict=False)
    if match.complete:
        print_log(f'{type(model).__name__}: loaded {coverage} ({origin})', 'current')
    return match


def check_config(config: str | os.PathLike, checkpoint: str | None = None) -> BackboneMatch:
    """Tell whether the backbone of a config would start from the whole checkpoint.

    Builds the backbone alone: no data and no training.

    Args:
        config (str | os.PathLike): Config of mmseg, mmdet or mmpretrain with a ResNet.
        checkpoint (str, optional): File to check. Defaults to None, which takes the one that the
            config names in ``model.backbone.checkpoint``.

    Returns:
        BackboneMatch: What would be loaded.

    Raises:
        CheckpointError: If the run would fail, with the same message, or the config names no file.
    """
    cfg = Config.fromfile(config)
    backbone = cfg.model.backbone
    which = backbone.get('which', 'online')
    checkpoint = checkpoint or backbone.get('checkpoint')
    if checkpoint is None:
        raise CheckpointError(f'{config} sets no model.backbone.checkpoint; name a file to check')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model = MODELS.build(backbone)
    return load_backbone(model, checkpoint, which, backbone.get('allow_partial', False))


def export_backbone(
    checkpoint: str | os.PathLike, out: str | os.PathLike, which: str = 'online'
) -> dict[str, Any]:
    """Write the ResNet of a checkpoint under torchvision's names, with where it comes from.

    The file initialises VITOResNet, any stock ResNet of OpenMMLab
    (``init_cfg=dict(type='Pretrained', checkpoint=FILE)``), and torchvision's ResNet of the same
    depth with nothing missing but ``fc``. Exporting an exported file copies it. The file appears
    at once or not at all.

    Args:
        checkpoint (str | os.PathLike): File that :func:`load_backbone` can read.
        out (str | os.PathLike): File to write. Its folder is made if needed.
        which (str): ``'online'`` or ``'target'`` network. Defaults to 'online'.

    Returns:
        dict: What was written: ``state_dict`` and ``meta`` (architecture, source, step, which).

    Raises:
        CheckpointError: If the file cannot be read or holds no whole ResNet.
    """
    content = read_checkpoint(checkpoint)
    state_dict = state_dict_of(content, checkpoint)
    meta = _meta_of(content)
    try:
        match = find_backbone(state_dict, which=_which_in_file(meta, which))
    except CheckpointError as error:
        raise CheckpointError(f'No backbone could be exported from {checkpoint}. {error}') from None
    if not match.complete:
        raise CheckpointError(
            f'{checkpoint} holds no whole ResNet-18, 34, 50, 101 or 152 under {match.prefix!r}.\n'
            f'{match.describe()}'
        )
    depth = next(d for d in RESNET_BLOCKS if match.weights.keys() <= set(resnet_keys(d)))
    meta = {
        'architecture': f'resnet{depth}',
        'source': meta.get('source', str(checkpoint)),
        'which': meta.get('which', match.which),
        **({'step': meta['step']} if 'step' in meta else {}),
    }
    exported = {
        'state_dict': {k: v.detach().clone().contiguous() for k, v in match.weights.items()},
        'meta': meta,
    }
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(out) as unfinished:
        torch.save(exported, unfinished)
    return exported


def _match(
    state_dict: Mapping[str, Tensor],
    expected: Mapping[str, Tensor | None],
    prefix: str,
    which: str,
) -> BackboneMatch:
    match = BackboneMatch(prefix, which)
    for key, target in expected.items():
        found = state_dict.get(prefix + key)
        if found is None:
            if not key.endswith(_OPTIONAL):
                match.missing.append(key)
        elif target is not None and found.shape != target.shape:
            match.misshaped.append(f'{key} {tuple(found.shape)} -> {tuple(target.shape)}')
        else:
            match.weights[key] = found
    for full in state_dict:
        key = full.removeprefix(prefix)
        if full.startswith(prefix) and key not in expected and _PART_OF_RESNET.match(key):
            match.unexpected.append(key)
    return match


def _is_target(prefix: str) -> bool:
    return any(part in TARGET_NAMES for part in prefix.split('.'))


def _which_in_file(meta: Mapping[str, Any], which: str) -> str:
    """An exported file holds one network under bare names; it was chosen when it was written."""
    exported = meta.get('which')
    if exported is None:
        return which
    if which == 'target' and exported != 'target':
        raise CheckpointError(f'It was exported from the {exported} network; use which="online".')
    return 'online'


def _meta_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Meta data of an exported file, or the step of a training checkpoint of MMEngine."""
    meta = content.get('meta')
    if not isinstance(meta, Mapping):
        return {}
    known = {key: meta[key] for key in ('source', 'step', 'which') if key in meta}
    if 'step' not in known and isinstance(meta.get('iter'), int):
        known['step'] = meta['iter']
    return known


def _remedy(match: BackboneMatch) -> str:
    stem_missing = any(key.startswith('stem.') for key in match.missing)
    if stem_missing and not any(key.startswith('stem.') for key in match.unexpected):
        return (
            'The model has the deep stem of three 3x3 convolutions (deep_stem=True, ResNetV1c or '
            'ResNetV1d) and the checkpoint the plain 7x7 stem: set deep_stem=False or use '
            'type="VITOResNet" without it.'
        )
    if len(match.weights) < 0.1 * match.total:
        return (
            f'The nearest prefix in the file, {match.prefix!r}, holds next to nothing of the '
            'backbone. Is it the checkpoint of another architecture?'
        )
    return (
        'The checkpoint is of another ResNet than the model: compare depth, base_channels, '
        'num_stages, plugins and norm_cfg with those of the pre-training.'
    )


def _listing(kind: str, keys: list[str], shown: int = 10) -> str:
    more = f', ... ({len(keys) - shown} more)' if len(keys) > shown else ''
    return f'{len(keys)} {kind}: {", ".join(keys[:shown])}{more}'


def _check_is_checkpoint(path: Path) -> None:
    """Refuse what is no file of torch.save, by its first bytes, with the reason."""
    if path.is_dir():
        files = sorted(p.name for p in path.glob('*.pth'))
        raise CheckpointError(
            f'{path} is a folder. Name a checkpoint file'
            + (f' in it: {", ".join(files[:5])}' if files else '; it holds no *.pth file')
        )
    if not path.is_file():
        raise CheckpointError(_missing_file(path))
    with path.open('rb') as file:
        head = file.read(64)
    if head.startswith((b'PK\x03\x04', b'\x80')):  # a zip archive, or a pickle of torch < 1.6
        return
    if head.startswith(b'version https://git-lfs'):
        raise CheckpointError(f'{path} is a Git LFS pointer. Run: git lfs pull')
    begins = f'begins with {head[:20]!r}' if head else 'is empty'
    raise CheckpointError(
        f'{path} is no PyTorch checkpoint: it {begins}. Was a web page saved in its place, or '
        'another file named?'
    )


def _missing_file(path: Path) -> str:
    if '://' in str(path) or re.match(r'\w+:/\w', str(path)):
        return f'{path} is an address. Download the file and name the local copy.'
    near: Iterable[str] = ()
    if path.parent.is_dir():
        files = [p.name for p in path.parent.iterdir() if p.suffix in ('.pth', '.pt', '.tar')]
        near = difflib.get_close_matches(path.name, files, n=3, cutoff=0.3)
    hint = f' In its folder there is: {", ".join(near)}.' if near else ''
    return (
        f'There is no checkpoint {path} (looked for {path.absolute()}).{hint} Name it by '
        '--cfg-options model.backbone.checkpoint=FILE, or train from random weights by '
        'model.backbone.checkpoint=None.'
    )


def _unsafe_types(path: Path) -> str:
    """Names of the classes that a checkpoint would load, as far as this torch can tell."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the file was refused already; this only adds to the message
        return ''
    return 'it needs ' + ', '.join(sorted(found)[:5]) if found else ''


def _first_line(error: Exception) -> str:
    return str(error).strip().split('\n')[0][:200]
