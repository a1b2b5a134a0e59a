"""Checks of third-party versions, and patches of third-party packages: here and nowhere else.

Versions are those of the import (``mmcv.__version__``), so that forks of a distribution pass.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.registry import Registry

_VERSIONS = {
    # module: oldest that works, newest that was tried
    'torch': ('2.1', '2.15'),
    'mmengine': ('0.10.4', '0.10.12'),
    'mmcv': ('2.0.1', '2.3'),
}


def _is_installed(distribution: str) -> bool:
    return any(importlib.metadata.distributions(name=distribution))


def _remedy(module: str) -> str:
    """Command that installs a version that works; of the OneDL fork where that is installed."""
    fork = any(map(_is_installed, ('onedl-mmengine', 'onedl-mmcv')))
    if module == 'torch':
        return 'Run: pip install -U torch torchvision; then: vito-mm build-mmcv'
    if module == 'mmengine':
        return f'Run: pip install {"onedl-mmengine" if fork else "mmengine==0.10.7"}'
    return (
        'Build it with its ops against the installed torch, in a few minutes: vito-mm build-mmcv'
        f'{" onedl-mmcv==2.3.6" if fork else ""} (in a checkout: python tools/build_mmcv.py)'
    )


def _check_version(module: str, oldest: str, tried: str) -> None:
    from packaging.version import Version

    try:
        found = importlib.import_module(module).__version__
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ImportError(
            f'vito_mm needs {module}, which is not installed. {_remedy(module)}'
        ) from None
    if Version(found) < Version(oldest):
        raise ImportError(
            f'vito_mm works with {module} >= {oldest}, but {found} is installed. {_remedy(module)}'
        )
    if Version(found).release[: len(Version(tried).release)] > Version(tried).release:
        warnings.warn(
            f'{module} {found} is newer than what vito_mm was tried with ({tried}).', stacklevel=4
        )


def check_environment() -> None:
    """Check what the import of vito_mm and of the OpenMMLab packages depends on.

    Raises:
        ImportError: If torch, mmengine or mmcv is missing or too old, if mmcv was installed without
            its compiled ops (or with ops built for another torch), or if setuptools no longer ships
            ``pkg_resources``. The message says how to repair it.
    """
    for module, versions in _VERSIONS.items():
        _check_version(module, *versions)
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
        if not _is_installed('mmcv-lite'):
            raise ImportError(
                'The installed mmcv was installed without its compiled ops (mmcv._ext is missing). '
                f'{_remedy("mmcv")}'
            ) from None
    except ImportError as error:
        raise ImportError(
            f'The installed mmcv has ops that do not load with torch {torch.__version__} '
            f'({error}). {_remedy("mmcv")}'
        ) from None


def install_patches() -> None:
    """Make MMEngine and MMCV work with vito_mm and with current torch and numpy. Idempotent."""
    _allow_package_bases()
    _allow_hub()
    _allow_mmengine_checkpoints()
    _repair_adjust_hue()


def _allow_package_bases() -> None:
    """``vito_mm::vito/pretrain_r50.py`` as a base: MMEngine looks packages up in a fixed list.

    That of the OneDL fork has the names of the original distributions. MMEngine marks what comes
    from a package's config with the package as its scope; ours are written for the scope that they
    state, and are taken like a base of the user's own.
    """
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    stock = Config._get_cfg_path

    @functools.wraps(stock)
    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        path, scope = stock(cfg_path, filename)
        return path, None if scope == 'vito_mm' else scope

    if not hasattr(stock, '__wrapped__'):
        Config._get_cfg_path = staticmethod(get_cfg_path)

    MODULE2PACKAGE.setdefault('vito_mm', 'vito_mm')
    for module, package in MODULE2PACKAGE.items():
        fork = f'onedl-{package}'
        if not _is_installed(package) and _is_installed(fork):
            MODULE2PACKAGE[module] = fork


def _allow_hub() -> None:
    """``mmengine.hub`` takes configs of vito_mm, of which no weights are published.

    It builds models in the scope of their package; ours are of the scope that their config states.
    """
    from mmengine import hub

    stock = hub.get_config

    @functools.wraps(stock)
    def get_config(cfg_path: str, pretrained: bool = False) -> 'Config':
        is_ours = cfg_path.startswith('vito_mm::')
        if is_ours and pretrained:
            raise ValueError(
                f'pretrained=True: no weights of {cfg_path} are published. Train them, or start '
                'from a file of yours (VITOResNet(checkpoint=...), load_from=...)'
            )
        cfg = stock(cfg_path, pretrained)
        if is_ours and 'model' in cfg:
            cfg.model.setdefault('_scope_', cfg.default_scope)
        return cfg

    if not hasattr(stock, '__wrapped__'):
        hub.get_config = hub.hub.get_config = get_config


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


def safe_globals() -> list[tuple[Any, str]]:
    """The types in MMEngine's checkpoints, each with the name that files have for it.

    MMEngine stores its message hub (numpy arrays in ``HistoryBuffer``) next to the weights. Where a
    file could use a type for more than that, a function stands for it.
    """
    import numpy as np
    from mmengine.logging import HistoryBuffer

    HistoryBuffer()  # registers the standard statistics methods
    multiarray = sys.modules[np.ndarray.__reduce__(np.empty(0))[0].__module__]
    modules = ('numpy.core.multiarray', 'numpy._core.multiarray')  # of numpy 1 and 2
    dtypes = {type(np.dtype(kind)) for kind in ('f4', 'f8', 'i4', 'i8', 'u1', '?')}
    return [
        *((kind, f'{kind.__module__}.{kind.__name__}') for kind in (HistoryBuffer, *dtypes)),
        (np.dtype, 'numpy.dtype'),
        *((unfilled_array, f'{module}._reconstruct') for module in modules),
        *((multiarray.scalar, f'{module}.scalar') for module in modules),
        # Arrays may be filled. No file can call the class itself, whose key has no module.
        (np.ndarray, 'ndarray'),
        (unfilled_array, 'numpy.ndarray'),
        (_getattr_for_history, 'builtins.getattr'),
    ]


def _allow_mmengine_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)``, torch 2.6's default, read MMEngine checkpoints.

    MMEngine's own reading of them depends on it: resume, ``mim test`` and initialisation. Before,
    its default read any file. OneDL's MMEngine adds a list of its own while it reads, of which some
    parts do not fit together with some of this one.
    """
    from mmengine.runner import checkpoint
    from torch import serialization

    if hasattr(checkpoint, 'get_torch_safe_globals'):
        checkpoint.get_torch_safe_globals = lambda: [slice]

    if hasattr(serialization, 'get_unsafe_globals_in_checkpoint'):
        serialization.add_safe_globals(safe_globals())


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
