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

from mmengine import registry as root
from mmengine.registry import Registry

from .compat import for_every_child

SCOPE = 'vito_mm'


def _below(parent: Registry, folder: str) -> Registry:
    return Registry(parent.name, parent=parent, scope=SCOPE, locations=[f'vito_mm.{folder}'])


DATA_SAMPLERS = _below(root.DATA_SAMPLERS, 'datasets')
DATASETS = _below(root.DATASETS, 'datasets')
HOOKS = _below(root.HOOKS, 'engine')
LOOPS = _below(root.LOOPS, 'engine')
METRICS = _below(root.METRICS, 'evaluation')
MODELS = _below(root.MODELS, 'models')
OPTIM_WRAPPER_CONSTRUCTORS = _below(root.OPTIM_WRAPPER_CONSTRUCTORS, 'engine')
OPTIM_WRAPPERS = _below(root.OPTIM_WRAPPERS, 'engine')
OPTIMIZERS = _below(root.OPTIMIZERS, 'engine')
PARAM_SCHEDULERS = _below(root.PARAM_SCHEDULERS, 'engine')
TRANSFORMS = _below(root.TRANSFORMS, 'datasets')

REGISTRIES = tuple(value for value in vars().values() if isinstance(value, Registry))


def register_lazily(registry: Registry, name: str, module: str) -> None:
    """Register a class that is imported only when it is first built.

    For parts that subclass another OpenMMLab package: a detection user needs no mmpretrain.
    ``name`` is the class, in the registry and in the module with the full name ``module``.
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
    """

    def enter(registry: Registry) -> None:
        if name not in registry.module_dict:
            registry.register_module(name=name, module=partial(module, library=registry.scope))

    for_every_child(root.MODELS, enter)


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
