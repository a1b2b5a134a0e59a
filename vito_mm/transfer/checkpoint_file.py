"""What stands in a checkpoint file, read without running code that it may hold."""

import difflib
import hashlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

WRAPPERS = ('state_dict', 'model', 'model_state_dict', 'network', 'net')
"""Entries under which a file may hold its state dict."""

ENDINGS = ('.pth', '.pt', '.tar', '.safetensors')
"""Usual endings of checkpoint files."""

PREPROCESSING = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], channel_order='rgb'
)
"""Normalisation of pixels in [0, 255] that nearly every ResNet, VITO's too, is trained with."""

META = 'vito_mm'
"""Name of the metadata in files that have no entry for them: bare state dicts and safetensors."""

_META_KEYS = ('architecture', 'source', 'step', 'which', 'config_sha256', 'preprocessing')


class CheckpointError(RuntimeError):
    """A checkpoint that cannot initialise the backbone; the message says why and what to do."""


def read_checkpoint(path: str | os.PathLike) -> Mapping[str, Any]:
    """Read a checkpoint from a local file without running code that it may hold.

    Args:
        path (str | os.PathLike): File written by ``torch.save``, or a safetensors file.

    Returns:
        Mapping: What the file holds, tensors on the CPU. Of a safetensors file, its tensors as
        ``state_dict`` and its metadata as ``meta``.

    Raises:
        CheckpointError: If the file is missing, a folder, no checkpoint, damaged, or needs unsafe
            pickles.
        ImportError: If it is a safetensors file and the package safetensors is not installed.
    """
    path = Path(path)
    if _kind_of(path) == 'safetensors':
        return _read_safetensors(path)
    try:
        # Mapped, a file costs no memory but for what is taken from it, on every rank.
        content = torch.load(
            path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'{path} holds Python objects beside tensors, and loading them could run any code, so '
            f'it was not read ({_unsafe_types(path) or _first_line(error)}). If you trust its '
            'source, re-save the weights alone: torch.save({"state_dict": torch.load(FILE, '
            'weights_only=False)["state_dict"]}, NEW_FILE)'
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        if 'TorchScript' in str(error):
            raise CheckpointError(
                f'{path} is a TorchScript archive, a program. Save its weights: '
                'torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)'
            ) from None
        raise _damaged(path, error) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f'{path} holds a {type(content).__name__}, not a dict of weights. Save '
            'model.state_dict() instead.'
        )
    return content


def state_dict_of(content: Mapping[str, Any], path: str | os.PathLike = 'checkpoint') -> dict:
    """Unwrap the state dict of a checkpoint.

    Args:
        content (Mapping): What :func:`read_checkpoint` returned.
        path (str | os.PathLike): Name of the file, for the message. Defaults to 'checkpoint'.

    Returns:
        dict[str, Tensor]: The weights by their name in the file. Dicts within dicts that are none
        of :data:`WRAPPERS`, such as ``{'student': {...}, 'teacher': {...}}``, become prefixes.

    Raises:
        CheckpointError: If no entry holds tensors.
    """
    top = content
    while True:
        inner = next((content[k] for k in WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            break
        content = inner
    weights = dict(_tensors(content))
    if not weights:
        raise CheckpointError(
            f'{path} holds no weights: its entries are {sorted(map(str, top))[:10]}. Expected '
            f'a state dict, alone or under one of {", ".join(WRAPPERS)}.'
        )
    return weights


def meta_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of itself.

    Args:
        content (Mapping): What :func:`read_checkpoint` returned.

    Returns:
        dict: Of ``architecture``, ``source``, ``step``, ``which``, ``config_sha256`` and
        ``preprocessing`` what is known. Training checkpoints of MMEngine have the step and the
        config's hash; empty for files of other programs.
    """
    meta = content.get('meta')
    if not isinstance(meta, Mapping):
        # A bare state dict has room beside its keys alone.
        meta = getattr(content, '_metadata', {}).get('', {}).get(META, {})
    known = {key: meta[key] for key in _META_KEYS if key in meta}
    if 'step' not in known and isinstance(meta.get('iter'), int):
        known['step'] = meta['iter']
    if 'config_sha256' not in known and isinstance(meta.get('cfg'), str) and meta['cfg']:
        known['config_sha256'] = hashlib.sha256(meta['cfg'].encode()).hexdigest()
    return known


def _tensors(content: Mapping, prefix: str = '') -> Iterator[tuple[str, Tensor]]:
    """Tensors of a dict by name, those of inner dicts with the inner dict's name before it."""
    for key, value in content.items():
        if not isinstance(key, str) or (not prefix and key.startswith('optim')):
            continue
        if isinstance(value, Tensor):
            yield prefix + key, value
        elif isinstance(value, np.ndarray):
            yield prefix + key, torch.from_numpy(value)
        elif isinstance(value, Mapping):
            yield from _tensors(value, f'{prefix}{key}.')


def _kind_of(path: Path) -> str:
    """'torch' or 'safetensors' by the first bytes; refuses everything else with the reason."""
    if path.is_dir():
        files = sorted(p.name for p in path.iterdir() if p.suffix in ENDINGS)
        raise CheckpointError(
            f'{path} is a folder. Name a checkpoint file'
            + (f' in it: {", ".join(files[:5])}' if files else '; it holds no checkpoint')
        )
    if not path.is_file():
        raise CheckpointError(_missing_file(path))
    with path.open('rb') as file:
        head = file.read(64)
    if head.startswith((b'PK\x03\x04', b'\x80')):  # a zip archive, or a pickle of torch < 1.6
        return 'torch'
    if head[8:9] == b'{':  # eight bytes of length, then JSON
        return 'safetensors'
    if head.startswith(b'version https://git-lfs'):
        raise CheckpointError(f'{path} is a Git LFS pointer. Run: git lfs pull')
    begins = f'begins with {head[:20]!r}' if head else 'is empty'
    raise CheckpointError(
        f'{path} is no PyTorch checkpoint: it {begins}. Was a web page saved in its place, or '
        'another file named?'
    )


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ImportError(
            f'{path} is a safetensors file. Run: pip install "vito_mm[safetensors]"'
        ) from None
    try:
        with safe_open(path, framework='pt') as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None
    try:
        meta = json.loads(metadata.get(META, '{}'))
    except json.JSONDecodeError:
        meta = {}
    return {'state_dict': weights, 'meta': meta}


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f'{path} is damaged or incomplete ({path.stat().st_size} bytes; {_first_line(error)}). '
        'Copy or write it again.'
    )


def _missing_file(path: Path) -> str:
    if '://' in str(path) or re.match(r'\w+:/\w', str(path)):
        return f'{path} is an address. Download the file and name the local copy.'
    near: Iterable[str] = ()
    if path.parent.is_dir():
        files = [p.name for p in path.parent.iterdir() if p.suffix in ENDINGS]
        near = difflib.get_close_matches(path.name, files, n=3, cutoff=0.3)
    hint = f' In its folder there is: {", ".join(near)}.' if near else ''
    return (
        f'There is no checkpoint {path} (looked for {path.absolute()}).{hint} Name it by '
        '--cfg-options model.backbone.checkpoint=FILE, or train from random weights by '
        'model.backbone.checkpoint=None.'
    )


def _unsafe_types(path: Path) -> str:
    """Names of the classes that a checkpoint would load, as far as this torch can tell."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the file was refused already; this only adds to the message
        return ''
    return 'it needs ' + ', '.join(sorted(found)[:5]) if found else ''


def _first_line(error: Exception) -> str:
    return str(error).strip().split('\n')[0][:200]
