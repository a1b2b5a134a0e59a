"""The stock configs of the installed mmdet and mmseg, with VITOResNet put into them."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope

from vito_mm.checkpoint.config_check import RESNETS
from vito_mm.models.backbones import VITOResNet


def stock_files(library: str) -> list[Path]:
    """All configs that ``mim`` finds in a library."""
    folder = Path(import_module(library).__file__).parent / '.mim' / 'configs'
    return sorted(f for f in folder.rglob('*.py') if '_base_' not in f.parts)


def resnets(part, place: str = 'model') -> Iterator[tuple[str, dict]]:
    """Every ResNet-18 to 152 of a model by its place."""
    if isinstance(part, dict):
        kind = str(part.get('type', '')).rpartition('.')[2]
        if kind in RESNETS and 'depth' in part:
            yield place, part
        for key, value in part.items():
            yield from resnets(value, f'{place}.{key}')
    elif isinstance(part, (list, tuple)):
        for index, value in enumerate(part):
            yield from resnets(value, f'{place}.{index}')


def with_vito(file: Path, checkpoints: dict[int, Path], folder: Path) -> tuple[Path, int] | None:
    """Write the config that a user would: the stock one as base, and the backbone changed.

    Returns:
        tuple | None: The new config and the depth of the backbone; None without a ResNet.
    """
    base = Config.fromfile(file)
    found = next(resnets(base.get('model')), None)
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
