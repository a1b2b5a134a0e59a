"""Decoders: one module each, with one function ``decode(request)``.

All of them give the same frames for the same times; none is imported before it is asked for.
"""

import importlib
from types import ModuleType

BACKENDS = ('pyav', 'decord', 'torchcodec')
"""Known decoders of video files, the fastest first."""

_EXTRAS = {'av': 'video', 'decord': 'decord', 'torchcodec': 'torchcodec'}


def load_backend(name: str) -> ModuleType:
    """Import one of ``BACKENDS``, a module with ``decode(request)``.

    Raises:
        ValueError: If there is no such decoder.
        ImportError: If the library it needs is not installed; names the extra to install.
    """
    if name == 'opencv':  # until 0.1.0, the slowest, for files that pyav reads as well
        raise ValueError("the video backend 'opencv' was removed: take 'pyav'")
    if name not in BACKENDS:
        raise ValueError(f'unknown video backend {name!r}, known are {", ".join(BACKENDS)}')
    try:
        return importlib.import_module(f'{__name__}.{name}_backend')
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        raise ImportError(
            f'the video backend {name!r} needs {error.name}: '
            f'pip install "vito_mm[{_EXTRAS[error.name]}]"'
        ) from None
    except (OSError, RuntimeError) as error:
        raise ImportError(
            f'the video backend {name!r} does not load: {str(error).strip().splitlines()[0]} '
            '(torchcodec needs the shared libraries of FFmpeg in the system)'
        ) from error
