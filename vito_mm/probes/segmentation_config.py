"""Configs of mmseg that probes take data sets and a backbone's place from."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from vito_mm.checkpoint.config_check import RESNETS
from vito_mm.checkpoint.config_parts import placed_datasets, type_name
from vito_mm.launch import apply_options
from vito_mm.utils.configs import read_config

from .image_folders import ProbeError

SEGMENTORS = ('EncoderDecoder', 'CascadeEncoderDecoder')
"""Models of mmseg whose backbone and classes a probe can take over."""

_EXAMPLE = 'configs/seg/vito_pascal_stock.py'


def read_segmentation_config(
    file: str | os.PathLike, options: Sequence[str] = (), needs_resnet: bool = False
) -> Config:
    """Read a config of segmentation, and check that its data are there.

    Args:
        file: Config of mmseg.
        options (Sequence[str]): ``key=value`` words that override the config. Defaults to none.
        needs_resnet (bool): Refuse a config with another backbone than a ResNet. Defaults to False.

    Raises:
        ProbeError: If there is no such file, it is no config of mmseg's segmentation, or none with
            a ResNet where it is needed, or a folder or list of its data sets is missing.
        ValueError: If an option is no ``key=value``.
    """
    try:
        cfg = read_config(file)
    except FileNotFoundError as error:
        raise ProbeError(str(error)) from None
    apply_options(cfg, options)
    model = cfg.get('model') or {}
    if model.get('type') not in SEGMENTORS or not model.get('decode_head'):
        raise ProbeError(
            f'{file} is not a segmentation config: its model is {model.get("type")!r} and not one '
            f'of {", ".join(SEGMENTORS)} of mmseg. Take one such as {_EXAMPLE}'
        )
    kind = type_name(model.get('backbone'))
    if needs_resnet and kind not in ('VITOResNet', *RESNETS):
        raise ProbeError(
            f'the backbone of {file} is {kind!r} and not a ResNet: name the network of the weights '
            f'by --backbone, or take a config such as {_EXAMPLE}'
        )
    _require_data(cfg, file)
    return cfg


def _require_data(cfg: Config, file: str | os.PathLike) -> None:
    for part in ('train_dataloader', 'val_dataloader'):
        loader = cfg.get(part)
        if not loader:
            raise ProbeError(f'{file} has no {part}: a probe trains and evaluates. Add one')
        paths = (
            (key, path)
            for key, dataset in placed_datasets(loader.dataset, f'{part}.dataset')
            for path in _data_paths(dataset)
        )
        for key, path in paths:
            if not os.path.exists(path):
                raise ProbeError(
                    f'the data set of {file} is not there: {path} (from {key}) does not exist in '
                    f'{os.getcwd()}. Put it there, or name its folder by '
                    f'--cfg-options {key}.data_root=FOLDER'
                )


def _data_paths(dataset: Mapping[str, Any]) -> Iterator[str]:
    """Files and folders that a data set reads."""
    if dataset.get('backend_args'):  # not on this machine's disk
        return
    root = dataset.get('data_root') or ''
    parts = [*(dataset.get('data_prefix') or {}).values(), dataset.get('ann_file')]
    for path in (root, *(os.path.join(root, part) for part in parts if part)):
        if path and '://' not in path:
            yield path
