"""Backbones of the task library, loaded strictly from a checkpoint."""

import copy
import inspect
import logging
import os
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import DefaultScope, Registry
from torch import nn

from vito_mm.checkpoint import Checkpoint, CheckpointError, load_backbone
from vito_mm.checkpoint.config_parts import init_cfgs, is_pretrained
from vito_mm.checkpoint.errors import MissingCheckpointError
from vito_mm.checkpoint.preprocessing import preprocessor_around
from vito_mm.checkpoint.settings import settings_warnings
from vito_mm.registry import MODELS, SCOPE, register_in_every_scope


@MODELS.register_module()
class VITOBackbone:
    """A backbone of the task library, starting from a checkpoint strictly.

    It is a subclass, with all keywords, of the class that ``type=stock`` would be at the same place
    of a config: for ``stock='SwinTransformer'`` mmseg's in mmseg's scope and mmdet's where
    ``'mmdet.VITOBackbone'`` is written. A package without such a class (mmrotate, mmdet3d, mmocr,
    open-cd) uses that of the package from which it derives its models.

    ``init_weights`` (called by MMEngine before training, not before testing) fills it from the
    checkpoint, which must cover every parameter and buffer; what the config adds (offsets of
    deformable convolutions, plugins, norms of the outputs of earlier stages) is named and keeps its
    own initialisation.

    Nothing is frozen and batch norm is trained unless the config says otherwise: frozen stages
    cost self-supervised weights about 2 AP on COCO (DenseCL #7). A ``checkpoint`` replaces other
    pre-trained weights of the config (``pretrained``, ``init_cfg`` of type Pretrained), with a
    warning. Settings by which it would compute something else, such as other padding, are an error
    where the file tells or is known (see :mod:`vito_mm.checkpoint.conventions`), else a warning.
    Warnings also tell of settings that waste it (:mod:`vito_mm.checkpoint.settings`) and of weights
    that replace it afterwards (``load_from``).

    Args:
        *args: Positional arguments of the stock class.
        stock (str): Type of the backbone, such as ``'SwinTransformer'``, or with the scope to look
            in, ``'mmpretrain.ConvNeXt'``.
        checkpoint (str | Checkpoint, optional): Local checkpoint file; see
            :func:`vito_mm.checkpoint.load_backbone` for what it may be. None leaves the stock
            initialisation. Defaults to None.
        which (str): ``'online'`` or ``'target'`` network of a training checkpoint.
            Defaults to 'online'.
        allow_partial (bool): Load what matches and warn, instead of an error; of what it computes
            as well. Defaults to False.
        frozen (bool): Train nothing of it, and keep it in evaluation mode: batch norm uses the
            statistics of the checkpoint. Defaults to False.
        library (str, optional): Scope whose class it is, such as ``'mmdet'``. Defaults to the one
            before the dot of ``stock`` or of ``type``, else MMEngine's default scope, else the
            package that builds the model, else mmpretrain.
        **kwargs: Keywords of the stock class. ``norm_eval`` defaults to False in every library.

    Raises:
        CheckpointError: In ``init_weights``, if the checkpoint is not complete, or known to be of a
            network that computes something else.
        ValueError: If the scope has no such class.
    """

    _default_stock: str | None = None
    frozen = False

    def __new__(
        cls, *args: Any, stock: str | None = None, library: str | None = None, **kwargs: Any
    ) -> 'VITOBackbone':
        if not hasattr(cls, 'stock'):
            stock = stock or cls._default_stock
            if stock is None:
                raise ValueError(
                    f"{cls.__name__} needs the type of a backbone: stock='SwinTransformer', say"
                )
            cls = _subclass_of(cls, _stock_class(cls.__name__, stock, library))
        return super().__new__(cls)

    def __init__(
        self,
        *args: Any,
        stock: str | None = None,
        checkpoint: str | os.PathLike | Checkpoint | None = None,
        which: str = 'online',
        allow_partial: bool = False,
        frozen: bool = False,
        library: str | None = None,
        **kwargs: Any,
    ) -> None:
        if _takes(self.stock, 'norm_eval'):
            kwargs.setdefault('norm_eval', False)
        if checkpoint is not None:
            kwargs = self._without_other_weights(kwargs)
        super().__init__(*args, **kwargs)
        self.checkpoint, self.which, self.allow_partial = checkpoint, which, allow_partial
        self._holds_checkpoint = False
        self._is_filled = checkpoint is None
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False).eval()

    def __reduce__(self) -> tuple:
        # The class is made at run time, so pickle cannot find it by name.
        return _empty, (self.base, self.stock), self.__dict__

    def __deepcopy__(self, memo: dict) -> 'VITOBackbone':
        # Target networks are copies made before the weights come, which nothing initialises.
        memo[id(self)] = copied = _empty(self.base, self.stock)
        copied.__setstate__(copy.deepcopy(self.__dict__, memo))
        if not self._is_filled:
            _COPIES.setdefault(self, weakref.WeakSet()).add(copied)
        return copied

    def init_weights(self) -> None:
        """Initialise as the stock class does, then load the checkpoint over it, once."""
        is_first = not self.is_init
        super().init_weights()
        if is_first and self.checkpoint is None:
            name = type(self).__name__
            print_log(f'{name}: checkpoint=None, the stock initialisation stands', 'current')
        elif is_first:
            preprocessor = preprocessor_around(self, _initialised_model(self))
            try:
                load_backbone(self, self.checkpoint, self.which, self.allow_partial, preprocessor)
            except MissingCheckpointError as error:
                raise CheckpointError(
                    f'{error}. Name it by --cfg-options model.backbone.checkpoint=FILE, or train '
                    'from random weights by model.backbone.checkpoint=None.'
                ) from None
            self.checkpoint = os.fspath(self.checkpoint)
            self._holds_checkpoint = self._is_filled = True
            for copied in _COPIES.pop(self, ()):
                if not copied._is_filled:
                    copied.load_state_dict(self.state_dict())
            for warning in settings_warnings(self):
                self._warn(warning)

    def train(self, mode: bool = True) -> 'VITOBackbone':
        """As the stock class, unless it is frozen."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the stock class; refuses to train weights that were to be loaded and were not."""
        if self.training and not self._is_filled:
            raise CheckpointError(
                f'{type(self).__name__} is being trained without the weights of '
                f'{self.checkpoint}: nothing called its init_weights(). MMEngine does not reach '
                'into an nn.Sequential or another plain module: call '
                'model.backbone.init_weights() before training'
            )
        return super().forward(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # Called on any way of loading, PyTorch's and MMEngine's.
        first = next((name for name, _ in self.named_parameters()), '')
        comes = f'{prefix}{first}' in state_dict
        if self._holds_checkpoint and comes:
            self._warn(
                f'other weights replace those of {self.checkpoint}. That is right when a run is '
                'resumed or tested; if it is not, look for load_from= in the config, or for an '
                'init_cfg of type Pretrained around the backbone'
            )
            self._holds_checkpoint = False
        self._is_filled |= comes
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _without_other_weights(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Drop ``pretrained`` and ``init_cfg`` of type Pretrained: the checkpoint replaces them."""
        kwargs = dict(kwargs)
        dropped = []
        if pretrained := kwargs.pop('pretrained', None):
            dropped.append(f'pretrained={pretrained!r}')
        listed = init_cfgs(kwargs)
        dropped += [f'init_cfg={dict(cfg)}' for cfg in listed if is_pretrained(cfg)]
        kwargs.pop('init_cfg', None)
        if others := [cfg for cfg in listed if not is_pretrained(cfg)]:
            kwargs['init_cfg'] = others
        if dropped:
            self._warn(
                f'{" and ".join(dropped)} in the config is ignored, because checkpoint= is given. '
                'Set model.pretrained=None (mmseg) or backbone.init_cfg=None to say so'
            )
        return kwargs

    def _warn(self, text: str) -> None:
        print_log(f'{type(self).__name__}: {text}.', 'current', logging.WARNING)


@MODELS.register_module()
class VITOResNet(VITOBackbone):
    """The task library's own ResNet, starting from a checkpoint strictly.

    A :class:`VITOBackbone` with ``stock='ResNet'`` and all of its arguments.
    """

    _default_stock = 'ResNet'


register_in_every_scope('VITOBackbone', VITOBackbone)
register_in_every_scope('VITOResNet', VITOResNet)

_COPIES: 'weakref.WeakKeyDictionary[nn.Module, weakref.WeakSet]' = weakref.WeakKeyDictionary()
"""The copies of a backbone that was to be loaded and was not yet."""


@cache
def _subclass_of(base: type, stock: type) -> type:
    """VITOBackbone, or a class below it, as a subclass of a library's backbone."""
    content = dict(base=base, stock=stock, __module__=__name__)
    return type(base.__name__, (base, stock), content)


def _empty(base: type, stock: type) -> VITOBackbone:
    cls = _subclass_of(base, stock)
    return cls.__new__(cls)


def _takes(stock: type, keyword: str) -> bool:
    """True if a class has a keyword, itself or in the class that it hands its keywords on to."""
    for base in stock.__mro__:
        if '__init__' in vars(base):
            parameters = inspect.signature(base.__init__).parameters
            if keyword in parameters:
                return True
            if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
                break
    return False


def _stock_class(ours: str, stock: str, library: str | None) -> type:
    """The class that ``type=stock`` stands for in a scope, by default in the current one."""
    before, _, name = stock.rpartition('.')
    library = before or library
    current = DefaultScope.get_current_instance()
    scope = library or (current.scope_name if current else 'mmengine')
    registry = _registry_of(scope)
    if registry is None and library:
        raise ValueError(f'{ours}: there is no scope {library!r}. Is the package installed?')
    for place in chain([registry] if registry else [], _registries_on_the_stack()):
        for candidate in _with_bases(place):
            if found := _backbone_in(candidate, name):
                return found
    if scope in ('mmengine', SCOPE):
        return _stock_class(ours, name, 'mmpretrain')
    raise ValueError(
        f'{ours}: scope {scope!r} has no {name}, and derives its models from no package that '
        f"has one. Name the package in type='mmdet.{ours}' or by library='mmdet'"
    )


def _registry_of(scope: str) -> Registry | None:
    with MMENGINE_MODELS.switch_scope_and_registry(scope) as registry:
        return registry if registry.scope == scope else None


def _stack() -> Iterator[Any]:
    """The frames that are being executed, the innermost first."""
    frame = sys._getframe()
    while frame := frame.f_back:
        yield frame


def _registries_on_the_stack() -> Iterator[Registry]:
    """The registries of the packages whose code is building this, the nearest first.

    A model in mmengine's scope, as of a pure Python config, calls the registry of its own package.
    """
    for frame in _stack():
        package = frame.f_globals.get('__name__', '').partition('.')[0]
        if package in MMENGINE_MODELS.children and package != SCOPE:
            yield MMENGINE_MODELS.children[package]


def _initialised_model(backbone: nn.Module) -> nn.Module:
    """The outermost module around a backbone that is being initialised: a child knows no parent."""
    found = backbone
    for frame in _stack():
        around = frame.f_locals.get('self')
        if isinstance(around, nn.Module) and any(part is found for part in around.modules()):
            found = around
    return found


def _with_bases(registry: Registry) -> Iterator[Registry]:
    """A registry, then those of the packages its models derive from, the most used one first."""
    yield registry
    # Of ours, heads for mmseg derive from it, and which are imported must not decide.
    if registry is MMENGINE_MODELS or registry.scope == SCOPE:
        return
    registry.import_from_location()
    models = filter(inspect.isclass, registry.module_dict.values())
    bases = ({base.__module__.partition('.')[0] for base in model.__mro__} for model in models)
    for package, _ in Counter(chain.from_iterable(bases)).most_common():
        if package in MMENGINE_MODELS.children:
            yield MMENGINE_MODELS.children[package]


def _backbone_in(registry: Registry, name: str) -> type | None:
    """The backbone that a registry finds; of ResNets one of a given depth (mmocr's is another)."""
    while registry is not None:
        registry.import_from_location()
        if found := registry.module_dict.get(name):
            is_backbone = inspect.isclass(found) and issubclass(found, BaseModule)
            return found if is_backbone and (name != 'ResNet' or _takes(found, 'depth')) else None
        registry = registry.parent
    return None
