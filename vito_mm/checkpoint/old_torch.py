"""Safe reading of checkpoints on torch < 2.6, whose own safe reader refuses training checkpoints.

There, ``weights_only=True`` knows a fixed list of types (torch < 2.4) or types by their own name
only (2.4 and 2.5), which leaves out what MMEngine stores beside the weights.
"""

import _compat_pickle
import io
import pickle
import types
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


def load(path: Path, mmap: bool, stand_in: type, unknown: list[str]) -> Any:
    """Read a file of ``torch.save``, and run nothing that it names.

    Args:
        path (Path): The file.
        mmap (bool): Whether to map it into memory; for files of torch >= 1.6.
        stand_in (type): Takes the place of every class and function that is not known to be safe.
        unknown (list[str]): Is filled with the names of those.

    Returns:
        Any: The content, on the CPU.
    """
    allowed: dict[str, Callable] = {
        **torch._weights_only_unpickler._get_allowed_globals(),
        **{name: value for value, name in safe_globals()},
        '_codecs.encode': encode,
        'builtins.set': set,
    }

    class Unpickler(pickle.Unpickler):
        """Finds what is allowed and nothing else."""

        def find_class(self, module: str, name: str) -> Any:
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            full = f'{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}'
            if full not in allowed:
                unknown.append(full)
            return allowed.get(full, stand_in)

    module = types.ModuleType('pickle_of_known_types')
    module.Unpickler = Unpickler
    module.load = lambda file, **options: Unpickler(file, **options).load()
    module.loads = lambda data, **options: Unpickler(io.BytesIO(data), **options).load()
    # Not all of its own unpickler: the whole allow list is ours.
    return torch.load(
        str(path), map_location='cpu', mmap=mmap, pickle_module=module, weights_only=False
    )
