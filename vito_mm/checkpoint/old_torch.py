"""Safe reading of checkpoints on torch < 2.6, whose own safe reader refuses training checkpoints.

There, ``weights_only=True`` knows a fixed list of types (torch < 2.4) or types by their own name
only (2.4 and 2.5), which leaves out what MMEngine stores beside the weights.
"""

import _compat_pickle
import io
import os
import pickle
import pickletools
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vito_mm.compat import safe_globals


def needed() -> bool:
    """True if the installed torch is older than 2.6."""
    return not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint')


def encode(text: str, encoding: str = 'latin1') -> bytes:
    """The bytes of a pickle of protocol 2, which holds them as text of one byte per letter."""
    return text.encode('latin1')


def _allowed() -> dict[str, Callable]:
    return {
        **torch._weights_only_unpickler._get_allowed_globals(),
        **{name: value for value, name in safe_globals()},
        '_codecs.encode': encode,
        'builtins.set': set,
    }


def _full_name(module: str, name: str) -> str:
    """Name of a class or function today, from that in a pickle of protocol 2."""
    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    return f'{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}'


def foreign_classes(path: str | os.PathLike) -> list[str]:
    """Names of the classes and functions in a file that are not known to be safe.

    Raises:
        Exception: Of any kind, if it is no file of torch >= 1.6.
    """
    with zipfile.ZipFile(path) as archive:
        (file,) = (name for name in archive.namelist() if name.endswith('/data.pkl'))
        operations = list(pickletools.genops(archive.read(file)))
    names = {_full_name(*arg.split(' ', 1)) for op, arg, _ in operations if op.name == 'GLOBAL'}
    return sorted(name for name in names - _allowed().keys() if not name.endswith('Storage'))


def load(path: Path, mmap: bool, stand_in: type) -> Any:
    """Read a file of ``torch.save``, and run nothing that it names.

    Args:
        path (Path): The file.
        mmap (bool): Whether to map it into memory; for files of torch >= 1.6.
        stand_in (type): Takes the place of every class and function that is not known to be safe.

    Returns:
        Any: The content, on the CPU.

    Raises:
        RuntimeError: If it is a TorchScript archive.
    """
    if mmap:
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith('/constants.pkl') for name in archive.namelist()):
                raise RuntimeError('a TorchScript archive')
    allowed = _allowed()

    class Unpickler(pickle.Unpickler):
        """Finds what is allowed and nothing else."""

        def find_class(self, module: str, name: str) -> Any:
            return allowed.get(_full_name(module, name), stand_in)

    module = types.ModuleType('pickle_of_known_types')
    module.Unpickler = Unpickler
    module.load = lambda file, **options: Unpickler(file, **options).load()
    module.loads = lambda data, **options: Unpickler(io.BytesIO(data), **options).load()
    # Not all of its own unpickler: the whole allow list is ours.
    return torch.load(
        str(path), map_location='cpu', mmap=mmap, pickle_module=module, weights_only=False
    )
