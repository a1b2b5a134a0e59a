"""The content of a checkpoint file, read without running code that it may hold."""

import importlib
import json
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vito_mm.compat import unfilled_array
from vito_mm.utils.text import near_text

from . import old_torch
from .errors import CheckpointError, MissingCheckpointError
from .networks import flat_weights

ENDINGS = ('.pth', '.pt', '.tar', '.bin', '.pkl', '.npz', '.safetensors', '.index.json')
"""Usual endings of checkpoint files."""

META = 'vito_mm'
"""Name of the metadata in files that have no entry for them: bare state dicts and safetensors."""

# How torch.save began before version 1.6: a pickle of this number.
_LEGACY_MAGIC = b'\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
_LONGEST_HEADER = 100_000_000  # of safetensors
# What torch.load and numpy raise of a broken file, or one that is not theirs.
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, zipfile.BadZipFile)
_UNREADABLE += (ValueError, TypeError, LookupError, AttributeError)


def read_content(path: Path) -> Mapping[str, Any]:
    """Read the entries of a file, see :meth:`.Checkpoint.read`.

    A safetensors file has its tensors as ``state_dict`` and its metadata as ``meta``.
    """
    content = _reader_of(path)(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f'{path} holds a {type(content).__name__}, not a dict of weights. Save '
            'model.state_dict() instead.'
        )
    return content


def foreign_classes(path: str | os.PathLike) -> list[str] | None:
    """Names of the classes that ``torch.load`` refuses; None of a format that does not tell."""
    try:
        if old_torch.needed():
            return old_torch.foreign_classes(path)
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # another format, damaged: the reader gives the reason
        return None


def _reader_of(path: Path) -> Callable[[Path], Any]:
    """The reader of a file by its first bytes; refuses what is no checkpoint with the reason."""
    if path.is_dir():
        raise CheckpointError(_folder(path))
    if not path.is_file():
        raise MissingCheckpointError(_missing_file(path))
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
    # Mapped, a file costs no memory but for what is taken from it, on every rank.
    mmap = zipfile.is_zipfile(path)
    classes = foreign_classes(path) or []
    if any(name.startswith('torch.distributed.') for name in classes):
        importlib.import_module('torch.distributed.tensor')  # lets torch.load read DTensors
        classes = foreign_classes(path) or []
    # Files of torch < 1.6 do not tell their classes beforehand.
    empty = [(_Empty, name) for name in {*classes, 'argparse.Namespace'}]
    try:
        if old_torch.needed():
            return old_torch.load(path, mmap, _Empty)
        with torch.serialization.safe_globals(empty):
            return torch.load(path, map_location='cpu', weights_only=True, mmap=mmap)
    except _UNREADABLE as error:
        if 'TorchScript' in str(error):
            raise CheckpointError(
                f'{path} is a TorchScript archive, a program. Save its weights: '
                f"torch.save(torch.jit.load({str(path)!r}).state_dict(), 'weights.pth')"
            ) from None
        if classes or isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(
                f'{path} holds Python objects next to tensors, and loading them could run any '
                f'code, so it was not read ({", ".join(classes[:5]) or _first_line(error)}). If '
                'you trust its source, save the weights alone by this Python code:\n'
                f'{_resaving(path)}'
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
            return old_torch.encode
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
        return False  # cut off; torch.load raises
    with zipfile.ZipFile(path) as archive:
        return all(name.endswith('.npy') for name in archive.namelist())


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except _UNREADABLE as error:
        if 'allow_pickle' in str(error):
            raise CheckpointError(
                f'{path} holds Python objects next to arrays, and loading them could run any code. '
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
        raise CheckpointError(f'{path} names files outside its folder: {", ".join(outside[:5])}')
    if gone := [name for name in files if not (path.parent / name).is_file()]:
        raise CheckpointError(f'{path} names files that are not next to it: {", ".join(gone[:5])}')
    weights: dict[str, Tensor] = {}
    for name in files:
        weights |= flat_weights(read_content(path.parent / name), path.parent / name)
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


def _missing_file(path: Path) -> str:
    if address := re.match(r'([\w-]+:)/(\w.*)', str(path)):  # of two slashes Path keeps one
        return (
            f'{address[1]}//{address[2]} is an address. Download the file and name the local copy.'
        )
    folder = path.absolute().parent
    there = folder.iterdir() if folder.is_dir() else ()
    near = near_text(path.name, (p.name for p in there if p.name.endswith(ENDINGS)))
    return f'There is no checkpoint {path}{near} in {folder}'


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f'{path} is damaged or incomplete ({path.stat().st_size} bytes; {_first_line(error)}). '
        'Copy or write it again.'
    )


def _resaving(path: Path) -> str:
    return (
        'import torch\n'
        'pick = lambda x: (\n'
        '    pick(x.state_dict()) if isinstance(x, torch.nn.Module)\n'
        '    else {k: pick(v) for k, v in x.items()} if isinstance(x, dict)\n'
        '    else x if isinstance(x, torch.Tensor) else None)\n'
        f"torch.save(pick(torch.load({str(path)!r}, weights_only=False)), 'weights.pth')"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split('\n')[0][:200]
