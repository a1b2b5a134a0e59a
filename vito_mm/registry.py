"""Registries of scope ``vito_mm`` and the publication of their names.

Every part of vito_mm is registered in a child registry of this module, as in any OpenMMLab
package, so that ``type='vito_mm.VITOResNet'`` is found by MMEngine without ``custom_imports``.
On ``import vito_mm`` the same names are added to MMEngine's root registries, which mmseg, mmdet and
mmpretrain all search, so that after ``custom_imports=['vito_mm']`` plain ``type='VITOResNet'``
works in any of them. A part that differs between packages is also registered in each package's own
registry, so that ``type='mmdet.VITOResNet'`` works.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import OPTIMIZERS as MMENGINE_OPTIMIZERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

from .compat import for_every_child

SCOPE = 'vito_mm'

DATA_SAMPLERS = Registry(
    'data sampler', parent=MMENGINE_DATA_SAMPLERS, scope=SCOPE, locations=['vito_mm.datasets']
)
DATASETS = Registry(
    'dataset', parent=MMENGINE_DATASETS, scope=SCOPE, locations=['vito_mm.datasets']
)
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope=SCOPE, locations=['vito_mm.engine'])
LOOPS = Registry('loop', parent=MMENGINE_LOOPS, scope=SCOPE, locations=['vito_mm.engine'])
METRICS = Registry('metric', parent=MMENGINE_METRICS, scope=SCOPE, locations=['vito_mm.evaluation'])
MODELS = Registry('model', parent=MMENGINE_MODELS, scope=SCOPE, locations=['vito_mm.models'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_CONSTRUCTORS,
    scope=SCOPE,
    locations=['vito_mm.engine'],
)
OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope=SCOPE, locations=['vito_mm.engine']
)
OPTIMIZERS = Registry(
    'optimizer', parent=MMENGINE_OPTIMIZERS, scope=SCOPE, locations=['vito_mm.engine']
)
PARAM_SCHEDULERS = Registry(
    'parameter scheduler',
    parent=MMENGINE_PARAM_SCHEDULERS,
    scope=SCOPE,
    locations=['vito_mm.engine'],
)
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, scope=SCOPE, locations=['vito_mm.datasets']
)

REGISTRIES = (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
)


def register_lazily(registry: Registry, name: str, module: str) -> None:
    """Register a class that is imported only when it is first built.

    For parts that subclass another OpenMMLab package: a detection user needs no mmpretrain.

    Args:
        registry (Registry): Registry that receives the name.
        name (str): Name of the class, both in the registry and in ``module``.
        module (str): Full name of the module that defines the class.
    """

    def build(*args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(module), name)(*args, **kwargs)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f'Builds :class:`{module}.{name}`.'
    registry.register_module(name=name, module=build)


def register_in_every_scope(name: str, module: Callable) -> None:
    """Register a model under the name of every package, ``'mmdet.NAME'`` and so on.

    Packages that are imported later are included. ``module`` is called with the scope in whose
    registry it was found as ``library``.

    Args:
        name (str): Name within each scope.
        module (Callable): Class or function with a keyword ``library``.
    """

    def enter(registry: Registry) -> None:
        if name not in registry.module_dict:
            registry.register_module(name=name, module=partial(module, library=registry.scope))

    for_every_child(MMENGINE_MODELS, enter)


def publish() -> None:
    """Add every name registered in scope ``vito_mm`` to MMEngine's root registries.

    Raises:
        KeyError: If the root registry already holds another object of the same name.
    """
    for registry in REGISTRIES:
        for name, module in registry.module_dict.items():
            known: Callable | None = registry.parent.module_dict.get(name)
            if known is None:
                registry.parent.register_module(name=name, module=module)
            elif known is not module:
                raise KeyError(
                    f'vito_mm cannot publish {name!r} in the root registry '
                    f'{registry.parent.name!r}: {known} is registered under '
                    f'this name. Use type="{SCOPE}.{name}" and import the other package later.'
                )
