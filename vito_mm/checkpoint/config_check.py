"""The start of a config's run from a checkpoint, examined without data and training."""

import copy
import inspect
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from vito_mm.registry import MODELS as OUR_MODELS
from vito_mm.utils.configs import read_config
from vito_mm.utils.quiet import quiet_logger

from . import old_torch
from .checkpoint import Checkpoint
from .config_parts import (
    OURS,
    RESNETS,
    init_cfgs,
    is_pretrained,
    parts_of,
    strictly,
    type_name,
)
from .conventions import require_same_features
from .errors import CheckpointError
from .loading import is_pretraining, load_pretraining, match_backbone
from .matching import BackboneMatch
from .preprocessing import preprocessor_around
from .reading import foreign_classes
from .settings import settings_warnings

_HELD = 'held-by-vito-mm:'  # a scheme of MMEngine's, for files that were read already


@dataclass
class ConfigCheck:
    """Start of a config's run.

    Attributes:
        match: How the checkpoint covers the backbone.
        checkpoint: The file.
        place: Where in the config the backbone stands, such as ``'model.backbone'``.
        warnings: What loads but is wasted or computes something else, and the like.
        note: How a run comes to this file, if the config names another.
        assumed: What the file does not tell of what its network computes, and is assumed.
        notice: Whose weights they are and under which licence, where that must be said.
    """

    match: BackboneMatch
    checkpoint: str
    place: str
    warnings: list[str] = field(default_factory=list)
    note: str = ''
    assumed: str = ''
    notice: str = ''


def check_config(
    config: str | os.PathLike | Config, checkpoint: str | os.PathLike | Checkpoint | None = None
) -> ConfigCheck:
    """Check that a run of a config would start from the complete backbone of a checkpoint.

    Builds the model as a run does, in the config's scope: no data and no training. Knows
    VITOBackbone and VITOResNet with ``checkpoint=``, and stock backbones with
    ``init_cfg=dict(type='Pretrained', ...)`` or ``pretrained=``, whose own way of loading it tries.
    A stock backbone that names no checkpoint is compared with the given one.

    Args:
        config (str | os.PathLike | Config): Config of any OpenMMLab package, of fine-tuning or
            pre-training; see :func:`.read_config` for its names.
        checkpoint (str | os.PathLike | Checkpoint, optional): File to check. Defaults to None, the
            one that the config names.

    Returns:
        ConfigCheck: What would be loaded, and warnings.

    Raises:
        CheckpointError: If the run would fail (with the same message), would not start from this
            checkpoint, or names none.
        FileNotFoundError: If there is no such config.
    """
    cfg = config if isinstance(config, Config) else read_config(config)
    place, backbone = _find_backbone_config(cfg)
    # As MMEngine's runner does.
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')), quiet_logger():
        built = _build(cfg)
        check = _check(cfg, place, backbone, checkpoint, built)
        for other, part in _backbones(cfg.model, 'model'):
            # What else would be loaded: a second one of ours, a stock one with a local file.
            named = _named_checkpoint(cfg, other, part)[0]
            if part is backbone or not named:
                continue
            if _is_ours(part) or Path(named).is_file():
                further = _check(cfg, other, part, None, built)
                check.warnings += [f'{other}: {warning}' for warning in further.warnings]
    if _is_ours(backbone) and not _imports_vito_mm(cfg):
        check.warnings.append(
            f'nothing in the config imports vito_mm, without which type={backbone["type"]!r} is '
            "unknown to other programs' training scripts. Set "
            "custom_imports=dict(imports=['vito_mm'])"
        )
    return check


def _find_backbone_config(cfg: Config) -> tuple[str, Mapping[str, Any]]:
    """The place and config of the first backbone of ours, else ResNet, else any backbone."""
    if not isinstance(cfg.get('model'), Mapping):
        raise CheckpointError('The config has no model')
    found = list(_backbones(cfg.model, 'model'))
    if not found:
        raise CheckpointError('The model of the config has no backbone')
    wanted = (each for test in (_is_ours, _is_resnet) for each in found if test(each[1]))
    return next(wanted, found[0])


def _build(cfg: Config) -> dict[str, nn.Module]:
    """Build the model as MMEngine's runner does; it and its backbones by their places."""
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor'):
        model.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    built: dict[str, nn.Module] = {}
    names = []
    for place, part in list(_backbones(model, 'model')):
        kind = part['type']
        part['type'] = _recording(kind, place, built)
        if isinstance(kind, str):  # models may look for a word in it
            names.append(f'{place}.{kind}'.replace('.', '_'))
            OUR_MODELS.register_module(name=names[-1], module=part['type'], force=True)
            part['type'] = f'vito_mm.{names[-1]}'
    try:
        built['model'] = MODELS.build(model)
    except Exception as error:
        raise CheckpointError(
            f'The model of the config cannot be built: {type(error).__name__}: {error}'
        ) from error
    finally:
        for name in names:
            del OUR_MODELS.module_dict[name]
    return built


def _recording(
    kind: str | Callable, place: str, built: dict[str, nn.Module]
) -> Callable[..., nn.Module]:
    """A builder of the same type that notes the first module it builds."""

    def build(**kwargs: Any) -> nn.Module:
        module = MODELS.build(dict(kwargs, type=kind))
        built.setdefault(place, module)
        return module

    return build


def _check(
    cfg: Config,
    place: str,
    backbone: Mapping[str, Any],
    checkpoint: str | os.PathLike | Checkpoint | None,
    built: Mapping[str, nn.Module],
) -> ConfigCheck:
    """Check one backbone of a config."""
    named, prefix = _named_checkpoint(cfg, place, backbone)
    # Pre-training loads its backbone from any file that is named by load_from.
    is_strict = not named and place == 'model.backbone' and is_pretraining(built['model'])
    load_from = None if cfg.get('resume') else cfg.get('load_from')
    if is_strict:
        named = load_from
    if not (checkpoint or named):
        raise CheckpointError(
            f'{place} of the config names no checkpoint. Name a file to check, or set '
            f'{_ours_instead(place, backbone, "FILE")}'
        )
    file = os.fspath(checkpoint or named)
    is_start = bool(named) and _is_same(named, file)
    if load_from and not (is_strict and is_start):
        raise CheckpointError(
            f'load_from={cfg.load_from!r} replaces the weights of the complete model after its '
            f'initialisation, so nothing of {file} would be left. Set load_from=None'
        )
    for setting, other in _pretrained_parts(cfg, cfg.model, 'model', stop=backbone):
        raise CheckpointError(
            f'{setting} loads {other!r} over the complete part, backbone included, after {file}. '
            f'Set {setting}=None'
        )
    if place not in built:
        raise CheckpointError(f'The model of the config does not build {place}')

    model = built[place]
    checkpoint = Checkpoint.read(checkpoint or named)
    if is_strict and is_start:
        load_pretraining(built['model'], checkpoint)
    is_stock_start = is_start and not is_strict and not _is_ours(backbone)
    match = match_backbone(model, checkpoint, prefix=prefix) if is_stock_start else None
    if match is None or not match.complete:
        match = match_backbone(model, checkpoint, backbone.get('which', 'online'))
    if not backbone.get('allow_partial', False):
        match.require_complete()
    if is_stock_start and (lost := _lost_by_mmengine(model, match, checkpoint)):
        under = f'prefix={match.prefix!r}' if match.prefix else 'no prefix'
        raise CheckpointError(
            f'{place}.init_cfg with prefix={prefix!r} leaves {lost} of {len(match.weights)} '
            f'keys of {type_name(backbone)} without the weights of {file}, and MMEngine '
            f'would go on. The backbone stands there under {match.prefix!r} with {match.naming} '
            f'names: give {under}, write the file again by tools/export_checkpoint.py, or set '
            f'{_ours_instead(place, backbone, file)}'
        )
    preprocessor = preprocessor_around(model, built['model'])
    allow = backbone.get('allow_partial', False)
    warnings = match.warnings() + settings_warnings(model)
    warnings += require_same_features(checkpoint, model, match.weights, preprocessor, allow)
    note = ''
    if not is_start:
        start = f'{place} is {type_name(backbone)} and starts from {named or "random weights"}'
        setting = _ours_instead(place, backbone, file)
        if _is_ours(backbone):
            note = f'{start}; name this file by {setting}'
        else:
            warnings.append(f'{start}, not from this file. Set {setting}')
    if _is_ours(backbone) and (pretrained := cfg.model.get('pretrained')):
        warnings.append(
            f'model.pretrained={pretrained!r} of the base is ignored, because checkpoint= is '
            'given. Set model.pretrained=None'
        )
    conventions = checkpoint.conventions
    assumed = conventions.assumption(model, match.weights)
    return ConfigCheck(match, file, place, warnings, note, assumed, conventions.notice)


def _lost_by_mmengine(model: nn.Module, match: BackboneMatch, checkpoint: Checkpoint) -> int:
    """Number of keys that MMEngine's own initialisation does not take, found by doing it."""
    model = copy.deepcopy(model)
    for init_cfg in filter(is_pretrained, init_cfgs(vars(model))):
        init_cfg['checkpoint'] = f'{_HELD}{checkpoint}'
    try:
        model.init_weights()
    except Exception:  # nothing at all has the prefix, or it cannot read the file
        return len(match.weights)
    loaded = model.state_dict()
    return sum(
        not torch.equal(loaded[key], value.to(loaded[key].dtype))
        for key, value in match.weights.items()
    )


READS_ANY = old_torch.needed() or 'weights_only=False' in inspect.getsource(mmengine_checkpoint)
"""MMEngine reads any file, with the same weights: on an old torch, and OneDL's."""


@CheckpointLoader.register_scheme(prefixes=_HELD)
def _load_held(filename: str, map_location: Any = None) -> Mapping[str, Any]:
    """The content of a file as MMEngine would read it, without reading it again if it is plain."""
    checkpoint = Checkpoint.read(filename.removeprefix(_HELD))
    if READS_ANY or foreign_classes(checkpoint.path) == []:
        return checkpoint.content
    return torch.load(checkpoint.path, map_location=map_location)


def _backbones(part: Any, place: str) -> Iterator[tuple[str, Mapping]]:
    """Every part that has a type under a key that names a backbone, and every ResNet."""
    for where, found in parts_of(part, place):
        is_named_so = where.endswith(('backbone', 'backbone_cfg')) and 'type' in found
        if is_named_so or _is_ours(found) or _is_resnet(found):
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
        # mmseg hands it on to the backbone; mmpretrain's models load it themselves.
        kind = part.get('type')
        package = cfg.get('default_scope') or getattr(kind, '__module__', '').partition('.')[0]
        if part.get('pretrained') and package == 'mmpretrain':
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


def _is_same(named: str, file: str) -> bool:
    return os.path.realpath(named) == os.path.realpath(file)


def _ours_instead(place: str, backbone: Mapping, file: str) -> str:
    """The setting by which a backbone starts from a file, to be typed."""
    kind = backbone['type']
    if not isinstance(kind, str):  # a class of a pure Python config
        kind = f'{kind.__module__.partition(".")[0]}.{kind.__name__}'
    values = strictly(kind)
    if 'type' in values:
        values['type'] = f'vito_mm.{values["type"]}'
        if 'stock' not in values and '.' in kind:
            values['library'] = kind.partition('.')[0]
    values['checkpoint'] = file
    if any(sign in file for sign in ' ,()[]"\''):  # MMEngine changes these on command lines
        text = f'dict({", ".join(f"{key}={value!r}" for key, value in values.items())})'
        for name in reversed(place.split('.')[1:]):
            text = f'dict({name}={text})'
        return f'model = {text} in the config'
    options = (shlex.quote(f'{place}.{key}={value}') for key, value in values.items())
    return f'--cfg-options {" ".join(options)}'


def _imports_vito_mm(cfg: Config) -> bool:
    """True if loading a config, or building its model, imports vito_mm."""
    listed = (cfg.get('custom_imports') or {}).get('imports') or []
    kinds = [part.get('type') for _, part in parts_of(cfg.model, 'model')]
    names = [listed] if isinstance(listed, str) else list(listed)
    names += [kind if isinstance(kind, str) else getattr(kind, '__module__', '') for kind in kinds]
    return any(name.partition('.')[0] == 'vito_mm' for name in names)


def _is_ours(part: Mapping) -> bool:
    return type_name(part) in OURS


def _is_resnet(part: Mapping) -> bool:
    # mmocr's ResNet, another network, has no depth.
    return type_name(part) in RESNETS and 'depth' in part
