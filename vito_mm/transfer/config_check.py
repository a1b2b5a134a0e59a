"""What a config makes of a checkpoint, told without data and training."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from .checkpoint import BackboneMatch, match_file, require_complete
from .checkpoint_file import CheckpointError
from .settings import settings_remarks

RESNETS = ('ResNet', 'ResNetV1c', 'ResNetV1d')
"""Backbones that hold a ResNet and that VITOResNet can take the place of."""


@dataclass
class ConfigCheck:
    """What a run of a config would start from.

    Attributes:
        match (BackboneMatch): How the checkpoint covers the backbone.
        checkpoint (str): The file.
        place (str): Where in the config the backbone stands, such as ``'model.backbone'``.
        remarks (list[str]): What loads but is wasted or computes something else, and other things
            that should be known.
    """

    match: BackboneMatch
    checkpoint: str
    place: str
    remarks: list[str] = field(default_factory=list)


def check_config(
    config: str | os.PathLike | Config, checkpoint: str | os.PathLike | None = None
) -> ConfigCheck:
    """Tell whether a run of a config would start from the whole checkpoint.

    Builds the backbone and the data preprocessor alone: no data and no training. Knows VITOResNet
    with ``checkpoint=``, and stock ResNets with ``init_cfg=dict(type='Pretrained', ...)``, whose
    prefix it checks. A stock ResNet that names no checkpoint is compared with the given one.

    Args:
        config (str | os.PathLike | Config): Config of mmseg, mmdet or mmpretrain with a ResNet.
        checkpoint (str | os.PathLike, optional): File to check. Defaults to None, which takes the
            one that the config names.

    Returns:
        ConfigCheck: What would be loaded, and remarks on settings.

    Raises:
        CheckpointError: If the run would fail (with the same message), would not start from this
            checkpoint, or names none.
    """
    cfg = config if isinstance(config, Config) else _read(config)
    place, backbone = find_backbone_config(cfg)
    named, prefix = _named_checkpoint(backbone)
    checkpoint = os.fspath(checkpoint or named or '')
    if not checkpoint:
        raise CheckpointError(
            f"{place} of the config names no checkpoint: set type='VITOResNet', checkpoint=FILE "
            'in it, or name a file to check'
        )
    if cfg.get('load_from') and not cfg.get('resume'):
        raise CheckpointError(
            f'load_from={cfg.load_from!r} replaces the weights of the whole model after its '
            f'initialisation, so nothing of {checkpoint} would be left. Set load_from=None'
        )
    for name, part in _pretrained_parts(cfg.model, 'model', stop=backbone):
        raise CheckpointError(
            f'{name}.init_cfg loads {part!r} over the whole part, backbone included, after '
            f'{checkpoint}. Set {name}.init_cfg=None'
        )

    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')), _quiet():
        model = MODELS.build(_without_checkpoint(backbone))
        preprocessor = _preprocessor(cfg, place)
        expected = {k: v for k, v in model.state_dict().items() if not k.startswith('fc.')}
        match = match_file(checkpoint, expected, backbone.get('which', 'online'))
        if not backbone.get('allow_partial', False):
            require_complete(match, checkpoint)
        remarks = match.remarks() + settings_remarks(model, preprocessor, match.meta)
        if not _is_ours(backbone):
            remarks += _stock_remarks(place, backbone, named, prefix, match, checkpoint)
    if _is_ours(backbone) and (pretrained := cfg.model.get('pretrained')):
        remarks.append(
            f'model.pretrained={pretrained!r} of the base is ignored, because checkpoint= is '
            'given. Set model.pretrained=None'
        )
    return ConfigCheck(match, checkpoint, place, remarks)


def find_backbone_config(cfg: Config) -> tuple[str, Mapping[str, Any]]:
    """The backbone in a config: VITOResNet where there is one, else the first ResNet.

    Args:
        cfg (Config): A whole config.

    Returns:
        tuple[str, Mapping]: Its place, such as ``'model.backbone'``, and what stands there.

    Raises:
        CheckpointError: If the config has no model, or no ResNet in it.
    """
    if not isinstance(cfg.get('model'), Mapping):
        raise CheckpointError('The config has no model')
    found = list(_backbones(cfg.model, 'model'))
    for place, backbone in found:
        if _is_ours(backbone):
            return place, backbone
    for place, backbone in found:
        if _type_name(backbone) in RESNETS:
            return place, backbone
    kinds = ', '.join(f'{place}: {_type_name(backbone)}' for place, backbone in found)
    raise CheckpointError(
        f'The config has no ResNet among its backbones ({kinds or "it has none"}), and VITO '
        'checkpoints hold ResNets'
    )


def _read(config: str | os.PathLike) -> Config:
    if not Path(config).is_file():
        raise CheckpointError(f'There is no config file {os.fspath(config)}')
    return Config.fromfile(config)


def _backbones(part: Any, place: str) -> Iterator[tuple[str, Mapping]]:
    """Every dict of a type under a key that ends in ``backbone`` or ``backbone_cfg``."""
    if isinstance(part, Mapping):
        key = place.rpartition('.')[2]
        if 'type' in part and (key.endswith(('backbone', 'backbone_cfg')) or _is_ours(part)):
            yield place, part
        for name, value in part.items():
            yield from _backbones(value, f'{place}.{name}')
    elif isinstance(part, (list, tuple)):
        for index, value in enumerate(part):
            yield from _backbones(value, f'{place}.{index}')


def _pretrained_parts(part: Any, place: str, stop: Mapping) -> Iterator[tuple[str, str]]:
    """Parts around the backbone that load weights of their own over it."""
    if part is stop or not isinstance(part, Mapping):
        return
    if any(inner is stop for _, inner in _backbones(part, place)):
        listed = part.get('init_cfg') or []
        for init_cfg in listed if isinstance(listed, (list, tuple)) else [listed]:
            if _type_name(init_cfg) in ('Pretrained', 'PretrainedInit'):
                yield place, init_cfg.get('checkpoint')
        for name, value in part.items():
            yield from _pretrained_parts(value, f'{place}.{name}', stop)


def _named_checkpoint(backbone: Mapping) -> tuple[str | None, str | None]:
    """The file that a backbone names and, of an ``init_cfg``, the prefix."""
    if _is_ours(backbone):
        return backbone.get('checkpoint'), None
    listed = backbone.get('init_cfg') or []
    for init_cfg in listed if isinstance(listed, (list, tuple)) else [listed]:
        if _type_name(init_cfg) in ('Pretrained', 'PretrainedInit'):
            return init_cfg.get('checkpoint'), init_cfg.get('prefix', '')
    return None, None


def _stock_remarks(
    place: str,
    backbone: Mapping,
    named: str | None,
    prefix: str | None,
    match: BackboneMatch,
    checkpoint: str,
) -> list[str]:
    kind = _type_name(backbone)
    if named is None or Path(named) != Path(checkpoint):
        return [
            f'{place} is {kind} and starts from {named or "random weights"}, not from this file. '
            f"Set {place} = dict(type='VITOResNet', checkpoint={checkpoint!r})"
        ]
    lost = _lost_by_mmengine(backbone, match)
    if lost:
        under = f'prefix={match.prefix!r}' if match.prefix else 'no prefix'
        raise CheckpointError(
            f'{place}.init_cfg with prefix={prefix!r} leaves {len(lost)} of {len(match.weights)} '
            f'keys of {kind} without the weights of {checkpoint}, and MMEngine would go on. The '
            f'backbone stands there under {match.prefix!r} with {match.naming} names: give '
            f"{under}, write the file again by tools/export_checkpoint.py, or set type='VITOResNet'"
        )
    return []


def _lost_by_mmengine(backbone: Mapping, match: BackboneMatch) -> list[str]:
    """Keys that MMEngine's own initialisation does not take from the file, found by doing it."""
    model = MODELS.build(backbone)
    try:
        model.init_weights()
    except (AssertionError, RuntimeError):  # it notices when nothing at all has the prefix
        return list(match.weights)
    loaded = model.state_dict()
    return [
        key
        for key, value in match.weights.items()
        if not torch.equal(loaded[key], value.to(loaded[key].dtype))
    ]


def _without_checkpoint(backbone: Mapping) -> dict[str, Any]:
    """The backbone's config with nothing to load, so that building it needs no file."""
    plain = {key: value for key, value in backbone.items() if key not in ('init_cfg', 'pretrained')}
    if _is_ours(backbone):
        plain['checkpoint'] = None
    return plain


def _preprocessor(cfg: Config, place: str) -> nn.Module | None:
    """The data preprocessor of the model nearest around the backbone, or the config's own."""
    parts = place.split('.')[:-1]
    for end in range(len(parts), 0, -1):
        around: Any = cfg
        for name in parts[:end]:
            around = around[int(name)] if name.isdigit() else around[name]
        if isinstance(around, Mapping) and around.get('data_preprocessor'):
            return MODELS.build(around['data_preprocessor'])
    if cfg.get('data_preprocessor'):
        preprocessor = dict(cfg.data_preprocessor)
        # mmpretrain's ImageClassifier names the type itself.
        preprocessor.setdefault('type', 'ClsDataPreprocessor')
        return MODELS.build(preprocessor)
    return None


def _type_name(part: Any) -> str:
    kind = part.get('type', '') if isinstance(part, Mapping) else ''
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__


def _is_ours(part: Mapping) -> bool:
    return _type_name(part) == 'VITOResNet'


@contextmanager
def _quiet() -> Iterator[None]:
    """Building logs what a run will log again."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')
    try:
        yield
    finally:
        logger.setLevel(level)
