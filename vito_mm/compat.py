"""Checks of third-party versions, and patches of third-party packages: here and nowhere else.

Versions are those of the import (``mmcv.__version__``), so that forks of a distribution pass.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.registry import Registry

MMENGINE_RANGE = ('0.10.4', '1.0.0')
"""MMEngine versions that work: at least the first, below the second."""
MMCV_RANGE = ('2.0.0', '2.2.0')
"""MMCV versions that work. mmdet 3.3.0 and mmseg 1.2.2 refuse 2.2.0."""

_MMCV_REMEDY = (
    'Build mmcv 2.1.0 with its ops against the installed torch: pip install "setuptools>=70,<82" '
    'wheel ninja psutil && MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps '
    '--no-cache-dir --force-reinstall mmcv==2.1.0'
)


def _check_range(module: str, bounds: tuple[str, str], remedy: str) -> None:
    from packaging.version import Version

    try:
        found = importlib.import_module(module).__version__
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ImportError(f'vito_mm needs {module}, which is not installed.') from None
    lowest, below = bounds
    if not Version(lowest) <= Version(found) < Version(below):
        raise ImportError(
            f'vito_mm works with {module} >= {lowest}, < {below}, but {found} is installed. '
            f'{remedy}'
        )


def check_environment() -> None:
    """Check what the import of vito_mm and of the OpenMMLab packages depends on.

    Raises:
        ImportError: If mmengine or mmcv is missing or outside the range that works, if mmcv was
            installed without its compiled ops (or with ops built for another torch), or if
            setuptools no longer ships ``pkg_resources``. The message says how to repair it.
    """
    _check_range('mmengine', MMENGINE_RANGE, 'Run: pip install mmengine==0.10.7')
    _check_range('mmcv', MMCV_RANGE, _MMCV_REMEDY)
    if importlib.util.find_spec('pkg_resources') is None:
        raise ImportError(
            'mmengine needs pkg_resources to resolve "mmdet::" and "mmseg::" configs, and the '
            'installed setuptools (>= 82) has none. Run: pip install "setuptools>=70,<82"'
        )
    _check_mmcv_ops()


def _check_mmcv_ops() -> None:
    """A full mmcv must have its ops; mmcv-lite, which has none by design, may pre-train."""
    import torch

    try:
        importlib.import_module('mmcv._ext')
    except ModuleNotFoundError:
        if not any(importlib.metadata.distributions(name='mmcv-lite')):
            raise ImportError(
                'The installed mmcv was installed without its compiled ops (mmcv._ext is missing). '
                f'{_MMCV_REMEDY}'
            ) from None
    except ImportError as error:
        raise ImportError(
            f'The installed mmcv has ops that do not load with torch {torch.__version__} '
            f'({error}). {_MMCV_REMEDY}'
        ) from None


def install_patches() -> None:
    """Make MMEngine and MMCV work with vito_mm and with current torch and numpy. Idempotent."""
    _allow_package_bases()
    _allow_mmengine_checkpoints()
    _repair_adjust_hue()


def _allow_package_bases() -> None:
    """``vito_mm::vito/pretrain_r50.py`` as a base: MMEngine looks packages up in a fixed list."""
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE.setdefault('vito_mm', 'vito_mm')


def for_every_child(registry: 'Registry', visit: Callable[['Registry'], None]) -> None:
    """Call ``visit`` once on every registry below one of MMEngine's, those to come included.

    MMEngine has no hook for a package that is imported later and makes a registry.
    """
    add = registry._add_child

    def enter(child: 'Registry') -> None:
        visit(child)
        for_every_child(child, visit)

    def add_child(child: 'Registry') -> None:
        add(child)
        enter(child)

    registry._add_child = add_child
    for child in registry.children.values():
        enter(child)


def _getattr_for_history(obj: Any, name: str) -> Any:
    """``getattr`` as in the pickle of MMEngine's ``HistoryBuffer``; others could run any code."""
    from mmengine.logging import HistoryBuffer

    if obj is HistoryBuffer and name in HistoryBuffer._statistics_methods:
        return getattr(obj, name)
    raise RuntimeError(f'checkpoint refused: it looks up the attribute {name!r} of {obj!r}')


def unfilled_array(*args: Any) -> Any:
    """Make the array that a pickle fills, whatever its arguments, in place of numpy's functions.

    ``numpy.ndarray`` would take any bytes of a file for pointers to objects.
    """
    import numpy as np

    return np.empty(0, np.uint8)


def _allow_mmengine_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)``, torch 2.6's default, read MMEngine checkpoints.

    MMEngine 0.10.7 stores its message hub (numpy arrays in ``HistoryBuffer``) next to the weights,
    so that resume, ``mim test`` and initialisation fail. Only the types in such files are allowed.
    """
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    HistoryBuffer()  # registers the standard statistics methods
    multiarray = sys.modules[np.ndarray.__reduce__(np.empty(0))[0].__module__]
    modules = ('numpy.core.multiarray', 'numpy._core.multiarray')  # of numpy 1 and 2
    dtypes = {type(np.dtype(kind)) for kind in ('f4', 'f8', 'i4', 'i8', 'u1', '?')}
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            np.dtype,
            *sorted(dtypes, key=lambda dtype: dtype.__name__),
            *((unfilled_array, f'{module}._reconstruct') for module in modules),
            *((multiarray.scalar, f'{module}.scalar') for module in modules),
            # Arrays may be filled. No file can call the class itself, whose key has no module.
            (np.ndarray, 'ndarray'),
            (unfilled_array, 'numpy.ndarray'),
            (_getattr_for_history, 'builtins.getattr'),
        ]
    )


def _repair_adjust_hue() -> None:
    """Let mmpretrain's ``ColorJitter`` shift hues downwards on numpy >= 2.

    mmcv 2.1.0 casts the shift to uint8, which numpy 2 refuses for negative numbers
    (OverflowError) instead of taking it modulo 256, where hues are cyclic.
    """
    import cv2
    import mmcv
    import numpy as np

    stock = mmcv.adjust_hue
    try:
        stock(np.zeros((1, 1, 3), np.uint8), -0.1, backend='cv2')
        return
    except OverflowError:
        pass

    @functools.wraps(stock)
    def adjust_hue(img: np.ndarray, hue_factor: float, backend: str | None = None) -> np.ndarray:
        if hue_factor >= 0 or hue_factor < -0.5:
            return stock(img, hue_factor, backend)
        hsv = cv2.cvtColor(np.ascontiguousarray(img, np.uint8), cv2.COLOR_BGR2HSV_FULL)
        hsv[..., 0] += np.uint8(int(hue_factor * 255) % 256)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL).astype(img.dtype)

    for module in (mmcv, mmcv.image, mmcv.image.photometric):
        module.adjust_hue = adjust_hue
