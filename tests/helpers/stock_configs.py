"""The stock configs of the installed mmdet and mmseg, with VITOResNet put into them."""

import json
from importlib import import_module
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope

from vito_mm.checkpoint.config_parts import RESNETS, init_cfgs, parts_of, type_name
from vito_mm.models.backbones import VITOResNet


def stock_files(library: str) -> list[Path]:
    """All configs that ``mim`` finds in a library."""
    folder = Path(import_module(library).__file__).parent / '.mim' / 'configs'
    return sorted(f for f in folder.rglob('*.py') if '_base_' not in f.parts)


def with_vito(file: Path, checkpoints: dict[int, Path], folder: Path) -> tuple[Path, int] | None:
    """Write the config that a user would: the stock one as base, and the backbone changed.

    Returns:
        tuple | None: The new config and the depth of the backbone; None without a ResNet.
    """
    base = Config.fromfile(file)
    resnets = (
        (place, part)
        for place, part in parts_of(base.get('model'), 'model')
        if type_name(part) in RESNETS and 'depth' in part
    )
    found = next(resnets, None)
    if found is None:
        return None
    place, backbone = found
    change = f"dict(type='VITOResNet', checkpoint={str(checkpoints[backbone['depth']])!r})"
    for name in reversed(place.split('.')[1:]):
        change = f'dict({name}={change})'
    new = folder / f'{file.stem}.py'
    new.write_text(
        f'_base_ = {str(file)!r}\n'
        "custom_imports = dict(imports=['vito_mm'], allow_failed_imports=False)\n"
        f'model = {change}\n'
    )
    return new, backbone['depth']


def without_downloads(part):
    """The config of a model without weights that other parts than the backbone would fetch."""
    if isinstance(part, dict):
        is_ours = part.get('type') == 'VITOResNet'
        return {
            key: without_downloads(value)
            for key, value in part.items()
            if is_ours or key not in ('pretrained', 'init_cfg', 'teacher_ckpt')
        }
    if isinstance(part, (list, tuple)):
        return type(part)(map(without_downloads, part))
    return part


def first_difference(config: Path, weights: dict[str, torch.Tensor]) -> str | None:
    """Build and initialise the whole model as a runner does; the first key that is not loaded."""
    cfg = Config.fromfile(config)
    if cfg.get('data_preprocessor'):  # as MMEngine's Runner.build_model
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(ConfigDict(without_downloads(cfg.model.to_dict())))
        model.init_weights()
    backbone = next(module for module in model.modules() if isinstance(module, VITOResNet))
    loaded = backbone.state_dict()
    stages = {key.split('.')[0] for key in loaded}
    for key, value in weights.items():
        if key.split('.')[0] in stages and not (key in loaded and torch.equal(loaded[key], value)):
            return key
    return None


OTHERS = ('SwinTransformer', 'ConvNeXt', 'ResNeXt', 'RegNet')
"""Further backbones whose stock configs are walked over."""

_WIDTHS = ('type', 'arch', 'depth', 'groups', 'base_width', 'embed_dims', 'depths', 'num_heads')
_WIDTHS += ('window_size', 'mlp_ratio', 'patch_norm', 'use_abs_pos_embed', 'pretrain_img_size')
_WIDTHS += ('strides', 'patch_size')


@MODELS.register_module()
class BackboneHolder(BaseModel):
    """A model of a backbone alone, which hands ``pretrained`` on as mmseg's do."""

    def __init__(self, backbone, pretrained=None, init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        if pretrained is not None:
            backbone['pretrained'] = pretrained
        self.backbone = MODELS.build(backbone)

    def forward(self, *args, **kwargs):
        raise NotImplementedError


def other_backbones(library: str, unreadable: list[str]) -> dict[str, dict[str, list[Path]]]:
    """Files of stock configs by what decides about their backbones, by what their weights have.

    Args:
        library: Its configs are read; those that do not load go to ``unreadable``.

    Returns:
        dict: By the plain backbone, as JSON, a dict: by the config that a user would start a run
        with, as JSON and with a model of the backbone alone, its files.
    """
    groups: dict[str, dict[str, list[Path]]] = {}
    for file in stock_files(library):
        try:
            cfg = Config.fromfile(file)
        except (FileNotFoundError, KeyError) as error:
            unreadable.append(f'{"/".join(file.parts[-2:])}: {error}')
            continue
        found = [
            (place, part)
            for place, part in parts_of(cfg.get('model'), 'model')
            if type_name(part) in OTHERS
        ]
        if not found:
            continue
        place, backbone = found[0]
        plain = {key: backbone[key] for key in _WIDTHS if key in backbone}
        around = [part for other, part in parts_of(cfg.model, 'model') if place.startswith(other)]
        init_cfg = [each for part in around[:-1] for each in init_cfgs(part)]
        model = dict(
            type='BackboneHolder',
            backbone=dict(backbone, type='VITOBackbone', stock=backbone['type']),
            pretrained=cfg.model.get('pretrained'),
            init_cfg=init_cfg or None,
        )
        start = dict(
            model=model,
            load_from=cfg.get('load_from'),
            default_scope=cfg.default_scope,
            custom_imports=dict(imports=['vito_mm']),
        )
        keys = (json.dumps(each, sort_keys=True) for each in (plain, start))
        groups.setdefault(next(keys), {}).setdefault(next(keys), []).append(file)
    return groups
