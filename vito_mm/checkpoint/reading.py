"""The state dict and metadata in a checkpoint file, read without running code that it may hold.

Three steps: the container (:func:`read_checkpoint`), the networks in it as one flat dict
(:func:`state_dict_of`), and, in :mod:`.checkpoint`, the prefix and the names of a backbone.
"""

import difflib
import hashlib
import importlib
import json
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vito_mm.compat import unfilled_array

WRAPPERS = ('state_dict', 'model', 'model_state_dict', 'network', 'net')
"""Entries under which a file may hold its state dict."""

ENDINGS = ('.pth', '.pt', '.tar', '.bin', '.pkl', '.npz', '.safetensors', '.index.json')
"""Usual endings of checkpoint files."""

PREPROCESSING = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], channel_order='rgb'
)
"""Normalisation of pixels in [0, 255] that nearly every ResNet, VITO's too, is trained with."""

META = 'vito_mm'
"""Name of the metadata in files that have no entry for them: bare state dicts and safetensors."""

_META_KEYS = ('architecture', 'source', 'step', 'which', 'config_sha256', 'preprocessing')
_TARGET = re.compile(
    r'(?:^|_)(?:target|teacher|momentum|ema|shadow|swa|avg|averaged?|key|k)(?:_|$)'
)
# Modules that torch.compile, FSDP and activation checkpointing put around others.
_INSERTED = ('_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module')
_IN_RESNET = re.compile(r'conv1|bn1|stem|layer\d|res\d')
_COUNTER = 'num_batches_tracked'
# How torch.save began before version 1.6: a pickle of this number.
_LEGACY_MAGIC = b'\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
_LONGEST_HEADER = 100_000_000  # of safetensors


# What torch.load and numpy raise of a broken file, or one that is not theirs.
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, zipfile.BadZipFile)
_UNREADABLE += (ValueError, TypeError, LookupError, AttributeError)


class CheckpointError(RuntimeError):
    """A checkpoint that cannot initialise the backbone; the message says why and what to do."""


def read_checkpoint(path: str | os.PathLike) -> Mapping[str, Any]:
    """Read a checkpoint from a local file without running code that it may hold.

    Objects of classes that ``torch.load(weights_only=True)`` refuses, such as the
    ``argparse.Namespace`` of a training script, are left empty.

    Args:
        path (str | os.PathLike): File written by ``torch.save``, a pickle of numpy arrays, an
            ``.npz``, a safetensors file, or the index (``*.index.json``) of one in shards.

    Returns:
        Mapping: The content, tensors on the CPU. Of a safetensors file, its tensors as
        ``state_dict`` and its metadata as ``meta``.

    Raises:
        CheckpointError: If the file is missing, a folder, no checkpoint, damaged, or needs unsafe
            pickles.
        ImportError: If it is a safetensors file and the package safetensors is not installed.
    """
    path = Path(path)
    content = _reader_of(path)(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f'{path} holds a {type(content).__name__}, not a dict of weights. Save '
            'model.state_dict() instead.'
        )
    return content


def state_dict_of(
    content: Mapping[str, Any],
    path: str | os.PathLike = 'checkpoint',
    with_averaged: bool = True,
) -> dict[str, Tensor]:
    """Gather the weights of a checkpoint in one flat dict.

    Args:
        content (Mapping): What :func:`read_checkpoint` returned.
        path (str | os.PathLike): Name of the file, for the message. Defaults to 'checkpoint'.
        with_averaged (bool): Whether to tell averaged weights from the others. False gives the
            state dict alone, as the program that wrote it takes it. Defaults to True.

    Returns:
        dict[str, Tensor]: The weights by their name in the file, without the names that
        ``torch.compile``, FSDP and activation checkpointing insert. Dicts within dicts that are
        none of :data:`WRAPPERS`, such as ``{'student': {...}, 'teacher': {...}}``, become
        prefixes, and so do averaged weights next to a state dict. Where MMEngine's ``EMAHook``
        has swapped the two, the averaged ones stand under ``averaged.``.

    Raises:
        CheckpointError: If no entry holds tensors, or they are parts of tensors.
    """
    weights = {
        _without_inserted(name): _as_tensor(name, value, path)
        for prefix, network in _networks(content, with_averaged)
        for name, value in _tensors(network, prefix)
    }
    if not weights:
        raise CheckpointError(_no_weights(content, path))
    return weights


def is_target(prefix: str) -> bool:
    """Tell by its name whether a network is the slowly moving one, such as ``model_ema.module.``.

    Args:
        prefix (str): Names of modules or entries of a file, joined by dots.

    Returns:
        bool: Whether one of them contains ``target``, ``teacher``, ``momentum``, ``ema`` or the
        like, as in VITO, BYOL, MoCo, DINO and timm.
    """
    return any(_TARGET.search(part) for part in prefix.split('.'))


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


# The networks in a file


def _networks(content: Mapping, with_averaged: bool) -> Iterator[tuple[str, Mapping]]:
    """The dicts of weights in a file, each with the prefix by which it is told from the others."""
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
    # A model pickled as a whole was left empty, with its attributes.
    attributes = getattr(node, '__dict__', {})
    for kind in ('_parameters', '_buffers', '_modules'):
        yield from _entries(attributes.get(kind))


def _without_inserted(name: str) -> str:
    kept: list[str] = []
    is_inside = False
    for part in name.split('.'):
        is_inside |= bool(_IN_RESNET.fullmatch(part))
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
            f'{tuple(value.shape)}), as FSDP2 shards them. Save the whole ones in the program that '
            'wrote it: torch.save(get_model_state_dict(model, options=StateDictOptions('
            'full_state_dict=True, cpu_offload=True)), NEW_FILE), both from '
            'torch.distributed.checkpoint.state_dict'
        )
    # Some programs gather the counters of batch norm as vectors of one number.
    return local.reshape(()) if name.endswith(_COUNTER) and local.numel() == 1 else local


def _no_weights(content: Mapping, path: str | os.PathLike) -> str:
    classes = _foreign_classes(Path(path))
    return (
        f'{path} holds no weights: its entries are {sorted(map(str, content))[:10]}'
        + (f', with objects of {_few(classes)}' if classes else '')
        + f'. Expected a state dict, alone or under one of {", ".join(WRAPPERS)}.'
    )


# The containers


def _reader_of(path: Path) -> Callable[[Path], Any]:
    """The reader of a file by its first bytes; refuses what is none with the reason."""
    if path.is_dir():
        raise CheckpointError(_folder(path))
    if not path.is_file():
        raise CheckpointError(_missing_file(path))
    with path.open('rb') as file:
        head = file.read(64)
    # Eight bytes of length, then JSON; the length may begin like anything.
    if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') <= _LONGEST_HEADER:
        return _read_safetensors
    if head.startswith(b'PK\x03\x04'):
        return _read_npz if _is_npz(path) else _read_torch
    if head.startswith(b'\x80'):
        return _read_torch if _LEGACY_MAGIC in head else _read_pickle
    if head.lstrip().startswith(b'{') and path.suffix == '.json':
        return _read_shards
    if head.startswith(b'version https://git-lfs'):
        raise CheckpointError(f'{path} is a Git LFS pointer. Run: git lfs pull')
    begins = f'begins with {head[:20]!r}' if head else 'is empty'
    raise CheckpointError(
        f'{path} is no PyTorch checkpoint: it {begins}. Was a web page saved in its place, or '
        'another file named?'
    )


def _read_torch(path: Path) -> Any:
    classes = _foreign_classes(path)
    if any(name.startswith('torch.distributed.') for name in classes):
        importlib.import_module('torch.distributed.tensor')  # lets torch.load read DTensors
        classes = _foreign_classes(path)
    # Files of torch < 1.6 do not tell their classes beforehand.
    empty = [(_Empty, name) for name in {*classes, 'argparse.Namespace'}]
    try:
        with torch.serialization.safe_globals(empty):
            # Mapped, a file costs no memory but for what is taken from it, on every rank.
            return torch.load(
                path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except _UNREADABLE as error:
        if 'TorchScript' in str(error):
            raise CheckpointError(
                f'{path} is a TorchScript archive, a program. Save its weights: '
                f"torch.save(torch.jit.load({str(path)!r}).state_dict(), 'weights.pth')"
            ) from None
        if classes or isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(
                f'{path} holds Python objects beside tensors, and loading them could run any code, '
                f'so it was not read ({_few(classes) or _first_line(error)}). If you trust its '
                f'source, save the weights alone by this Python code:\n{_resaving(path)}'
            ) from None
        raise _damaged(path, error) from None


class _Empty:
    """Stands for any class of another program; its objects keep their items and attributes.

    They become ordered dicts, which ``torch.load(weights_only=True)`` fills as it does its own.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return OrderedDict()


class _NumpyUnpickler(pickle.Unpickler):
    """Makes numpy arrays of numbers and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ('numpy.core.multiarray', 'numpy._core.multiarray') and name == '_reconstruct':
            return unfilled_array
        if module in ('numpy.core.numeric', 'numpy._core.numeric') and name == '_frombuffer':
            return lambda data, dtype, shape, order: np.frombuffer(data, dtype).reshape(
                shape, order=order
            )
        if (module, name) == ('numpy', 'dtype'):
            return np.dtype
        if (module, name) == ('_codecs', 'encode'):  # bytes in protocol 2
            return lambda text, encoding: text.encode('latin1')
        if module.startswith('torch'):
            raise CheckpointError('tensors')
        return _Empty


def _read_pickle(path: Path) -> Any:
    try:
        with path.open('rb') as file:
            return _NumpyUnpickler(file, encoding='latin1').load()
    except CheckpointError:
        raise CheckpointError(
            f'{path} is a pickle of torch tensors, and reading it could run any code, so it was '
            'not read. If you trust its source, save it by this Python code:\n'
            'import pickle, torch\n'
            f"torch.save(pickle.load(open({str(path)!r}, 'rb')), 'weights.pth')"
        ) from None
    except Exception as error:  # a broken pickle raises whatever its bytes happen to mean
        raise _damaged(path, error) from None


def _is_npz(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False  # cut off; torch.load says so
    with zipfile.ZipFile(path) as archive:
        return all(name.endswith('.npy') for name in archive.namelist())


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except _UNREADABLE as error:
        if 'allow_pickle' in str(error):
            raise CheckpointError(
                f'{path} holds Python objects beside arrays, and loading them could run any code. '
                'Save the arrays alone: numpy.savez(NEW_FILE, **state_dict)'
            ) from None
        raise _damaged(path, error) from None


def _read_shards(path: Path) -> dict[str, Any]:
    """The weights of all files that an index of Hugging Face's names."""
    try:
        files = sorted(set(json.loads(path.read_text())['weight_map'].values()))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CheckpointError(f'{path} is no index of shards: it has no weight_map') from None
    if outside := [name for name in files if Path(name).name != name]:
        raise CheckpointError(f'{path} names files outside its folder: {_few(outside)}')
    if gone := [name for name in files if not (path.parent / name).is_file()]:
        raise CheckpointError(f'{path} names files that are not next to it: {_few(gone)}')
    weights: dict[str, Tensor] = {}
    for name in files:
        weights |= state_dict_of(read_checkpoint(path.parent / name), path.parent / name)
    return {'state_dict': weights}


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


# Messages


def _folder(path: Path) -> str:
    if (path / '.metadata').is_file():
        return (
            f'{path} is a distributed checkpoint. Make a file of it: python -m '
            f'torch.distributed.checkpoint.format_utils dcp_to_torch {path} weights.pth'
        )
    files = sorted(p.name for p in path.iterdir() if p.name.endswith(ENDINGS))
    return f'{path} is a folder. Name a checkpoint file' + (
        f' in it: {", ".join(files[:5])}' if files else '; it holds no checkpoint'
    )


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
        files = [p.name for p in path.parent.iterdir() if p.name.endswith(ENDINGS)]
        near = difflib.get_close_matches(path.name, files, n=3, cutoff=0.3)
    hint = f' In its folder there is: {", ".join(near)}.' if near else ''
    return (
        f'There is no checkpoint {path} (looked for {path.absolute()}).{hint} Name it by '
        '--cfg-options model.backbone.checkpoint=FILE, or train from random weights by '
        'model.backbone.checkpoint=None.'
    )


def _foreign_classes(path: Path) -> list[str]:
    """Names of the classes that ``torch.load`` refuses in a file, as far as it can tell."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # no such file, another format, damaged: said by the reader
        return []


def _resaving(path: Path) -> str:
    return (
        'import torch\n'
        'pick = lambda x: (\n'
        '    pick(x.state_dict()) if isinstance(x, torch.nn.Module)\n'
        '    else {k: pick(v) for k, v in x.items()} if isinstance(x, dict)\n'
        '    else x if isinstance(x, torch.Tensor) else None)\n'
        f"torch.save(pick(torch.load({str(path)!r}, weights_only=False)), 'weights.pth')"
    )


def _few(names: list[str]) -> str:
    return ', '.join(names[:5])


def _first_line(error: Exception) -> str:
    return str(error).strip().split('\n')[0][:200]
