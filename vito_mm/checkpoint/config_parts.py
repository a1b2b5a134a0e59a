"""Parts of a config: where they stand, of what type they are, what they load."""

from collections.abc import Iterator, Mapping
from typing import Any

RESNETS = ('ResNet', 'ResNetV1c', 'ResNetV1d')
"""Backbones that hold a ResNet and that VITOResNet can take the place of."""

OURS = ('VITOBackbone', 'VITOResNet')
"""Backbones that start from a checkpoint strictly."""


def strictly(kind: str) -> dict[str, str]:
    """Settings that make a backbone of a type, or name of a class, start strictly.

    ResNetV1c and V1d differ from a ResNet, which checkpoints are, in their stem alone.
    """
    name = kind.rpartition('.')[2]
    if name in OURS:
        return {}
    if name in RESNETS:
        return dict(type='VITOResNet')
    return dict(type='VITOBackbone', stock=kind)


def parts_of(node: Any, place: str) -> Iterator[tuple[str, Mapping]]:
    """Every dict of a config with its place, such as ``'model.neck.0'``, outer ones first."""
    if isinstance(node, Mapping):
        yield place, node
    items = node.items() if isinstance(node, Mapping) else ()
    if isinstance(node, (list, tuple)):
        items = enumerate(node)
    for name, value in items:
        yield from parts_of(value, f'{place}.{name}')


def placed_datasets(dataset: Mapping, place: str) -> Iterator[tuple[str, Mapping]]:
    """Data sets within MMEngine's wrappers, each with its key; ``place`` is that of the first."""
    if 'datasets' in dataset:
        for index, part in enumerate(dataset['datasets']):
            yield from placed_datasets(part, f'{place}.datasets.{index}')
    elif 'dataset' in dataset:
        yield from placed_datasets(dataset['dataset'], f'{place}.dataset')
    else:
        yield place, dataset


def type_name(part: Any) -> str:
    """Name, without its scope, of the class that a part of a config stands for; '' for none."""
    kind = part.get('type') if isinstance(part, Mapping) else None
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')


def is_pretrained(init_cfg: Mapping) -> bool:
    """True for an ``init_cfg`` that loads weights from a file."""
    return type_name(init_cfg) in ('Pretrained', 'PretrainedInit', 'Pretrained_Part')


def init_cfgs(part: Mapping) -> list[Mapping]:
    """The ``init_cfg`` of a part as a list, which MMEngine takes as well."""
    listed = part.get('init_cfg') or []
    return list(listed) if isinstance(listed, (list, tuple)) else [listed]
