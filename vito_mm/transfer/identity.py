"""Identity of a run: its resolved config without what changes no result, as where data lies."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from vito_mm.checkpoint.config_parts import placed_datasets
from vito_mm.utils.text import first_few

LOADERS = ('train_dataloader', 'val_dataloader')
"""Loaders of a fine-tuning run."""

_UNIMPORTANT = (
    *('work_dir', 'launcher', 'resume', 'env_cfg', 'randomness.seed', 'model.backbone.checkpoint'),
    *('visualizer', 'vis_backends', 'log_level', 'log_processor'),
    *(f'default_hooks.{name}' for name in ('logger', 'checkpoint', 'visualization')),
    *(
        f'{loader}_dataloader.{name}'
        for loader in ('train', 'val', 'test')
        for name in ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory')
    ),
    'train_dataloader.batch_size',  # follows from base_batch_size
)


def identity_of(cfg: Config) -> dict:
    """Resolved config without what changes no result: the run, up to checkpoint and seed."""
    content = cfg.to_dict()
    content['randomness'] = dict(content.get('randomness') or {})
    for key in _UNIMPORTANT:
        *places, name = key.split('.')
        node = content
        for place in places:
            node = node.get(place) or {}
        node.pop(name, None)
    for _, dataset in placed_datasets(content['train_dataloader']['dataset'], ''):
        dataset.pop('subset_seed', None)  # follows from the seed
    return without_places(content)


def difference(there: Config, identity: Mapping) -> str:
    """Name the first keys in which a config differs from an identity, with both values."""
    old, new = (dict(leaves(node)) for node in (identity_of(there), identity))
    keys = [key for key in old | new if old.get(key) != new.get(key)]
    changes = [f'{key} {old.get(key)} -> {new.get(key)}' for key in keys]
    return first_few(changes, 3) or 'another config'


def moved_data(cfg: Config, folder: str) -> dict[str, str]:
    """Settings that replace the data root and every path below it by a folder, by key."""
    root, moved = data_root(cfg), {}
    parts = (*LOADERS, 'test_dataloader', 'val_evaluator', 'test_evaluator')
    for key, text in leaves({part: cfg[part] for part in parts if cfg.get(part)}):
        if root and isinstance(text, str):
            rest = _rest_below(os.path.normpath(root), text)
            if rest is not None:
                moved[key] = folder.rstrip('/') + rest + '/' * text.endswith('/')
    return moved


def without_places(content: dict) -> dict:
    """Copy a config with placeholders where data lies: each ``data_root`` and paths below one."""
    # Loaders of one task may have several; their order keeps them apart.
    roots = [text for key, text in leaves(content) if key.rpartition('.')[2] == 'data_root']
    places: dict[str, str] = {}
    for root in filter(None, roots):
        place = places.setdefault(os.path.abspath(root), f'<data {len(places)}>')
        places[os.path.normpath(root)] = place  # a relative path lies below a relative root

    def replaced(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {name: replaced(value) for name, value in node.items()}
        if isinstance(node, (list, tuple)):
            return type(node)(replaced(value) for value in node)
        if isinstance(node, str) and '://' not in node:
            for root, place in places.items():
                if (rest := _rest_below(root, node)) is not None:
                    return place + rest
        return node

    return replaced(content)


def data_root(cfg: Config) -> str:
    """Folder of the validation data, empty where the config has none."""
    _, dataset = next(placed_datasets(cfg.val_dataloader.dataset, ''))
    return str(dataset.get('data_root') or '').rstrip('/')


def leaves(node: Any, key: str = '') -> Iterator[tuple[str, Any]]:
    """List the values of a config by key with dots; tuples and lists are alike."""
    if isinstance(node, (Mapping, list, tuple)):
        pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
        for name, value in pairs:
            yield from leaves(value, f'{key}.{name}'.lstrip('.'))
    else:
        yield key, node


def _rest_below(root: str, text: str) -> str | None:
    """Rest of a path behind a root, which is normalised; None where it does not lie below."""
    path = os.path.normpath(text) if text else ''
    if path == root:
        return ''
    if root == os.curdir:
        # Every relative path would be below it, and so would every name that is no path.
        inside = text.startswith('./') and path.split('/')[0] != os.pardir
        return f'/{path}' if inside else None
    top = root.rstrip('/')
    return path[len(top) :] if path.startswith(f'{top}/') else None
