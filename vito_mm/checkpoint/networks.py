"""The networks in a checkpoint as one flat dict of tensors."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import CheckpointError

WRAPPERS = ('state_dict', 'model', 'model_state_dict', 'network', 'net')
"""Entries under which a file may hold its state dict."""

_TARGET = re.compile(
    r'(?:^|_)(?:target|teacher|momentum|ema|shadow|swa|avg|averaged?|key|k)(?:_|$)'
)
# Modules that torch.compile, FSDP and activation checkpointing put around others.
_INSERTED = ('_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module')
_IN_BACKBONE = re.compile(r'conv1|bn1|stem|layer\d|res\d|stages|blocks|patch_embed')


def is_target(prefix: str) -> bool:
    """Tell by its name whether a network is the slowly moving one, such as ``model_ema.module.``.

    One of its parts then contains ``target``, ``teacher``, ``momentum``, ``ema`` or the like, as in
    VITO, BYOL, MoCo, DINO and timm.
    """
    return any(_TARGET.search(part) for part in prefix.split('.'))


def flat_weights(
    content: Mapping[str, Any], path: str | os.PathLike, with_averaged: bool = True
) -> dict[str, Tensor]:
    """Gather the weights of a checkpoint in one flat dict.

    Names that ``torch.compile``, FSDP and activation checkpointing insert are taken out. Dicts
    within dicts that are none of :data:`WRAPPERS`, such as ``{'student': {...}, 'teacher':
    {...}}``, become prefixes, and so do averaged weights next to a state dict. Where MMEngine's
    ``EMAHook`` has swapped the two, the averaged ones have the prefix ``averaged.``.

    Args:
        content (Mapping): Entries of a file.
        path (str | os.PathLike): Its name, for the message.
        with_averaged (bool): Give averaged weights prefixes of their own. False gives the state
            dict alone, as the program that wrote it loads it. Defaults to True.

    Raises:
        CheckpointError: If they are one process's part of sharded tensors.
    """
    return {
        _without_inserted(name): _as_tensor(name, value, path)
        for prefix, network in _networks(content, with_averaged)
        for name, value in _tensors(network, prefix)
    }


def _networks(content: Mapping, with_averaged: bool) -> Iterator[tuple[str, Mapping]]:
    """The dicts of weights in a file, each with its prefix."""
    wrapper = next((name for name in WRAPPERS if any(_tensors(content.get(name)))), None)
    if wrapper is None:
        yield '', content
        return
    swapped = content.get('ema_state_dict')
    if with_averaged and wrapper == 'state_dict' and _is_of_ema_hook(swapped):
        # MMEngine's EMAHook saves the averaged weights in the place of the others.
        yield 'averaged.', content['state_dict']
        yield '', {key.removeprefix('module.'): swapped[key] for key in swapped if key != 'steps'}
        return
    for name, value in content.items() if with_averaged else ():
        if name != wrapper and isinstance(name, str) and is_target(name):
            yield f'{name}.', value
    yield from _networks(content[wrapper], with_averaged)


def _is_of_ema_hook(entry: Any) -> bool:
    return (
        isinstance(entry, Mapping)
        and 'steps' in entry
        and all(key == 'steps' or key.startswith('module.') for key in entry)
    )


def _tensors(node: Any, prefix: str = '') -> Iterator[tuple[str, Tensor | np.ndarray]]:
    """Tensors and arrays by name, those of inner dicts with the inner dict's name before it."""
    for key, value in _entries(node):
        if not isinstance(key, str) or (not prefix and key.startswith('optim')):
            continue
        if isinstance(value, Tensor) or _is_numbers(value):
            yield prefix + key, value
        else:
            yield from _tensors(value, f'{prefix}{key}.')


def _is_numbers(value: Any) -> bool:
    return (
        isinstance(value, np.ndarray) and value.dtype.kind in 'fiub' and value.dtype.itemsize <= 8
    )


def _entries(node: Any) -> Iterator[tuple[Any, Any]]:
    if not isinstance(node, Mapping):
        return
    yield from node.items()
    # A pickled module was left empty, with its attributes.
    attributes = getattr(node, '__dict__', {})
    for kind in ('_parameters', '_buffers', '_modules'):
        yield from _entries(attributes.get(kind))


def _without_inserted(name: str) -> str:
    kept: list[str] = []
    is_inside = False
    for part in name.split('.'):
        is_inside |= bool(_IN_BACKBONE.fullmatch(part))
        if part not in _INSERTED and not (is_inside and part == 'module'):
            kept.append(part)
    return '.'.join(kept)


def _as_tensor(name: str, value: Tensor | np.ndarray, path: str | os.PathLike) -> Tensor:
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder('=')))
    local = getattr(value, '_local_tensor', value)  # of a DTensor
    if local.shape != value.shape:
        raise CheckpointError(
            f"{path} holds one process's part of each tensor ({name}: {tuple(local.shape)} of "
            f'{tuple(value.shape)}), as FSDP2 shards them. Save the complete ones in the program '
            'that wrote it: torch.save(get_model_state_dict(model, options=StateDictOptions('
            'full_state_dict=True, cpu_offload=True)), NEW_FILE), both from '
            'torch.distributed.checkpoint.state_dict'
        )
    # Some programs gather the counters of batch norm as vectors of one number.
    is_counter = name.endswith('num_batches_tracked') and local.numel() == 1
    return local.reshape(()) if is_counter else local
