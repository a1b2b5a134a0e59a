"""What a config makes of a checkpoint, told without data and training."""

import copy
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from .checkpoint import BackboneMatch, match_at, match_file, require_complete
from .checkpoint_file import CheckpointError
from .config_parts import init_cfgs, is_pretrained, parts_of, type_name
from .quiet import quiet_logger
from .settings import preprocessing_of, settings_remarks

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
        note (str): How a run comes to this file, if the config names another.
    """

    match: BackboneMatch
    checkpoint: str
    place: str
    remarks: list[str] = field(default_factory=list)
    note: str = ''


def check_config(
    config: str | os.PathLike | Config, checkpoint: str | os.PathLike | None = None
) -> ConfigCheck:
    """Tell whether a run of a config would start from the whole checkpoint.

    Builds the model as a run does, in the config's scope: no data and no training. Knows VITOResNet
    with ``checkpoint=``, and stock ResNets with ``init_cfg=dict(type='Pretrained', ...)``, whose
    prefix it checks. A stock ResNet that names no checkpoint is compared with the given one.

    Args:
        config (str | os.PathLike | Config): Config of any OpenMMLab package with a ResNet, of
            fine-tuning or pre-training; see :func:`read_config` for its names.
        checkpoint (str | os.PathLike, optional): File to check. Defaults to None, which takes the
            one that the config names.

    Returns:
        ConfigCheck: What would be loaded, and remarks on settings.

    Raises:
        CheckpointError: If the run would fail (with the same message), would not start from this
            checkpoint, or names none.
    """
    cfg = config if isinstance(config, Config) else read_config(config)
    place, backbone = find_backbone_config(cfg)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')), quiet_logger():
        return _check_all(cfg, place, backbone, checkpoint)

    check = _check(cfg, place, backbone, checkpoint)
    for other, part in _backbones(cfg.model, 'model'):
        # What else would be loaded: a second VITOResNet, a stock ResNet with a local file.
        named = _named_checkpoint(cfg, other, part)[0]
        if part is backbone or not named or not (_is_ours(part) or _is_local_resnet(part, named)):
            continue
        further = _check(cfg, other, part, None)
        check.remarks += [f'{other}: {remark}' for remark in further.remarks]
    return check


def _check(
    cfg: Config, place: str, backbone: Mapping[str, Any], checkpoint: str | os.PathLike | None
) -> ConfigCheck:
    """Check one backbone of a config."""
    named, prefix = _named_checkpoint(cfg, place, backbone)
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
    for setting, file in _pretrained_parts(cfg, cfg.model, 'model', stop=backbone):
        raise CheckpointError(
            f'{setting} loads {file!r} over the whole part, backbone included, after '
            f'{checkpoint}. Set {setting}=None'
        )

    with DefaultScope.overwrite_default_scope(_library(cfg) or None), quiet_logger():
        model = MODELS.build(_without_checkpoint(backbone))
        preprocessor = _preprocessor(cfg, place)
        expected = {k: v for k, v in model.state_dict().items() if not k.startswith('fc.')}
        is_stock_start = not _is_ours(backbone) and named and _is_same(named, checkpoint)
        match = None
        if is_stock_start:
            match = match_at(checkpoint, expected, prefix)
        if match is None or not match.complete:
            match = match_file(checkpoint, expected, backbone.get('which', 'online'))
        if not backbone.get('allow_partial', False):
            require_complete(match, checkpoint)
        if is_stock_start:
            _require_stock_start(place, backbone, prefix, match, checkpoint)
        remarks = match.remarks() + settings_remarks(model, preprocessor, match.meta)
    note = ''
    if not (named and _is_same(named, checkpoint)):
        start = f'{place} is {type_name(backbone)} and starts from {named or "random weights"}'
        if _is_ours(backbone):
            note = f'{start}; name this file by --cfg-options {place}.checkpoint={checkpoint}'
        else:
            remarks.append(
                f'{start}, not from this file. Set {place} = '
                f"dict(type='VITOResNet', checkpoint={checkpoint!r})"
            )
    if _is_ours(backbone) and (pretrained := cfg.model.get('pretrained')):
        remarks.append(
            f'model.pretrained={pretrained!r} of the base is ignored, because checkpoint= is '
            'given. Set model.pretrained=None'
        )
    return ConfigCheck(match, checkpoint, place, remarks, note)


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
        if type_name(backbone) in RESNETS:
            return place, backbone
    kinds = ', '.join(f'{place}: {type_name(backbone)}' for place, backbone in found)
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
    for where, found in parts_of(part, place):
        key = where.rpartition('.')[2]
        if 'type' in found and (key.endswith(('backbone', 'backbone_cfg')) or _is_ours(found)):
            yield where, found


def _pretrained_parts(
    cfg: Config, part: Any, place: str, stop: Mapping
) -> Iterator[tuple[str, str]]:
    """Settings of parts around the backbone by which weights of their own come over it."""
    if part is stop or not isinstance(part, Mapping):
        return
    if any(inner is stop for _, inner in _backbones(part, place)):
        for init_cfg in filter(is_pretrained, init_cfgs(part)):
            yield f'{place}.init_cfg', init_cfg.get('checkpoint')
        # mmseg hands it on to the backbone; mmpretrain's models load it whole.
        if part.get('pretrained') and _library(cfg) == 'mmpretrain':
            yield f'{place}.pretrained', part['pretrained']
        for name, value in part.items():
            yield from _pretrained_parts(cfg, value, f'{place}.{name}', stop)


def _named_checkpoint(cfg: Config, place: str, backbone: Mapping) -> tuple[str | None, str]:
    """The file that a backbone starts from and the prefix, with its dot, of an ``init_cfg``."""
    if _is_ours(backbone):
        return backbone.get('checkpoint'), ''
    for init_cfg in filter(is_pretrained, init_cfgs(backbone)):
        prefix = init_cfg.get('prefix') or ''
        return init_cfg.get('checkpoint'), f'{prefix.rstrip(".")}.' if prefix else ''
    handed_on = cfg.model.get('pretrained') if place == 'model.backbone' else None
    return backbone.get('pretrained') or handed_on, ''


def _is_local_resnet(backbone: Mapping, named: str) -> bool:
    return type_name(backbone) in RESNETS and Path(named).is_file()


def _is_same(named: str, checkpoint: str) -> bool:
    return Path(named).absolute() == Path(checkpoint).absolute() or (
        Path(named).exists() and Path(checkpoint).exists() and os.path.samefile(named, checkpoint)
    )


def _require_stock_start(
    place: str, backbone: Mapping, prefix: str, match: BackboneMatch, checkpoint: str
) -> None:
    """Refuse an ``init_cfg`` by which MMEngine does not load what is in the file."""
    if lost := _lost_by_mmengine(backbone, match, checkpoint):
        under = f'prefix={match.prefix!r}' if match.prefix else 'no prefix'
        raise CheckpointError(
            f'{place}.init_cfg with prefix={prefix!r} leaves {len(lost)} of {len(match.weights)} '
            f'keys of {type_name(backbone)} without the weights of {checkpoint}, and MMEngine '
            f'would go on. The backbone stands there under {match.prefix!r} with {match.naming} '
            f'names: give {under}, write the file again by tools/export_checkpoint.py, or set '
            "type='VITOResNet'"
        )


def _lost_by_mmengine(backbone: Mapping, match: BackboneMatch, checkpoint: str) -> list[str]:
    """Keys that MMEngine's own initialisation does not take from the file, found by doing it."""
    plain = {key: value for key, value in backbone.items() if key != 'pretrained'}
    # `pretrained`, also where mmseg hands it on, is another name of this.
    plain.setdefault('init_cfg', dict(type='Pretrained', checkpoint=checkpoint))
    model = MODELS.build(plain)
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
    """The outermost data preprocessor around the backbone that normalises: that one is called."""
    around: Any = cfg
    if cfg.get('data_preprocessor') and not cfg.model.get('data_preprocessor'):
        around = dict(cfg.items(), model=dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    for name in place.split('.')[:-1]:
        around = around[int(name)] if name.isdigit() else around[name]
        if not isinstance(around, Mapping) or not around.get('data_preprocessor'):
            continue
        preprocessor = dict(around['data_preprocessor'])
        # mmpretrain's models name the type themselves.
        preprocessor.setdefault('type', 'mmpretrain.ClsDataPreprocessor')
        preprocessor = MODELS.build(preprocessor)
        if preprocessing_of(preprocessor) is not None:
            return preprocessor
    return None


def _library(cfg: Config) -> str:
    return cfg.get('default_scope') or _library_of(cfg.model)


def _library_of(model: Mapping) -> str:
    """The package of a model whose type is a class, as in MMEngine's pure Python configs."""
    kind = model.get('type')
    return '' if kind is None or isinstance(kind, str) else kind.__module__.partition('.')[0]


def _is_ours(part: Mapping) -> bool:
    return type_name(part) == 'VITOResNet'
