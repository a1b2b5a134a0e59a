"""Configs of mmseg that probes take data sets and a backbone's place from."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from vito_mm.checkpoint.config_check import RESNETS
from vito_mm.checkpoint.config_parts import type_name
from vito_mm.utils.configs import read_config

from .image_folders import ProbeError

SEGMENTORS = ('EncoderDecoder', 'CascadeEncoderDecoder')
"""Models of mmseg whose backbone and classes a probe can take over."""

_EXAMPLE = 'configs/seg/vito_pascal_stock.py'


def read_segmentation_config(
    file: str | os.PathLike, options: Mapping[str, Any] | None = None, backbone: str | None = None
) -> Config:
    """Read a config that can be probed, and check that its data are there.

    Args:
        file: Config of mmseg.
        options (Mapping, optional): Settings that override the config, by dotted key.
        backbone (str, optional): See :func:`.segmentation.probe_config`. Defaults to that of the
            config, a ResNet.

    Raises:
        ProbeError: If there is no such file, it is no config of mmseg's segmentation with such a
            backbone, or a folder or list of its data sets is missing.
    """
    cfg = _read(file, options)
    kind = type_name(cfg.model.backbone)
    if backbone is None and kind not in ('VITOResNet', *RESNETS):
        raise ProbeError(
            f'the backbone of {file} is {kind!r} and not a ResNet: name the network of the weights '
            f'by --backbone, or take a config such as {_EXAMPLE}'
        )
    _require_data(cfg, file)
    return cfg


def read_segmentation_data(
    file: str | os.PathLike, options: Mapping[str, Any] | None = None
) -> Config:
    """Read a config of segmentation for its data sets alone, and check that they are there.

    Raises:
        ProbeError: As :func:`read_segmentation_config`, but for the backbone.
    """
    cfg = _read(file, options)
    _require_data(cfg, file)
    return cfg


def _read(file: str | os.PathLike, options: Mapping[str, Any] | None) -> Config:
    try:
        cfg = read_config(file)
    except FileNotFoundError as error:
        raise ProbeError(str(error)) from None
    if options:
        cfg.merge_from_dict(dict(options))
    model = cfg.get('model') or {}
    if model.get('type') not in SEGMENTORS or not model.get('decode_head'):
        raise ProbeError(
            f'{file} is not a segmentation config: its model is {model.get("type")!r} and not one '
            f'of {", ".join(SEGMENTORS)} of mmseg. Take one such as {_EXAMPLE}'
        )
    return cfg


def _require_data(cfg: Config, file: str | os.PathLike) -> None:
    for part in ('train_dataloader', 'val_dataloader'):
        loader = cfg.get(part)
        if not loader:
            raise ProbeError(f'{file} has no {part}: a probe trains and evaluates. Add one')
        for key, path in _data_paths(loader.dataset, f'{part}.dataset'):
            if not os.path.exists(path):
                raise ProbeError(
                    f'the data set of {file} is not there: {path} (from {key}) does not exist in '
                    f'{os.getcwd()}. Put it there, or name its folder by '
                    f'--cfg-options {key}.data_root=FOLDER'
                )


def _data_paths(dataset: Mapping[str, Any], key: str) -> Iterator[tuple[str, str]]:
    """Files and folders that a data set reads, each with the place in the config that names it."""
    if dataset.get('dataset'):
        yield from _data_paths(dataset['dataset'], f'{key}.dataset')
    for index, part in enumerate(dataset.get('datasets') or []):
        yield from _data_paths(part, f'{key}.datasets.{index}')
    if dataset.get('backend_args'):  # not on this machine's disk
        return
    root = dataset.get('data_root') or ''
    parts = [*(dataset.get('data_prefix') or {}).values(), dataset.get('ann_file')]
    for path in (root, *(os.path.join(root, part) for part in parts if part)):
        if path and '://' not in path:
            yield key, path
