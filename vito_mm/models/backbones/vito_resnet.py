"""ResNet of the task library, initialised from a checkpoint with a check of every key."""

import importlib
import logging
import sys
import weakref
from functools import cache
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from vito_mm.registry import MODELS
from vito_mm.transfer.checkpoint import load_backbone
from vito_mm.transfer.checkpoint_file import CheckpointError
from vito_mm.transfer.config_parts import init_cfgs, is_pretrained
from vito_mm.transfer.settings import preprocessing_of, settings_remarks

LIBRARIES = ('mmseg', 'mmdet', 'mmpretrain')
"""Packages whose ResNet VITOResNet can be."""


@MODELS.register_module()
class VITOResNet:
    """The task library's own ResNet, starting from a VITO checkpoint.

    In mmseg's scope it is ``mmseg.models.ResNet``, in mmdet's and mmpretrain's likewise, so every
    keyword of the stock class works and ``isinstance`` holds. ``init_weights`` (called by MMEngine
    before training, not before testing) fills it from the checkpoint, which must cover every
    parameter and buffer of a plain ResNet; what the config adds (offsets of deformable
    convolutions, plugins) is named and keeps its own initialisation.

    Nothing is frozen and batch norm is trained unless the config says otherwise: frozen stages
    cost self-supervised weights about 2 AP on COCO (DenseCL #7). Other pre-trained weights named
    by the base config (``pretrained``, ``init_cfg`` of type Pretrained) are dropped with a warning
    when ``checkpoint`` is given. It also warns, when the weights are loaded, of settings with which
    they are wasted or compute something else (frozen parts, ``style='caffe'``, input in another
    colour order or scale; see :func:`vito_mm.transfer.settings.settings_remarks`), and when they
    are replaced afterwards (``load_from``).

    Args:
        *args: Positional arguments of the stock ResNet.
        checkpoint (str, optional): Local checkpoint file; see
            :func:`vito_mm.transfer.load_backbone` for what it may be. None leaves the stock
            initialisation. Defaults to None.
        which (str): ``'online'`` or ``'target'`` network of a training checkpoint.
            Defaults to 'online'.
        allow_partial (bool): Whether to load what matches and warn, instead of an error.
            Defaults to False.
        library (str, optional): ``'mmseg'``, ``'mmdet'`` or ``'mmpretrain'``. Defaults to None,
            which takes MMEngine's default scope, or else the only one of them that is imported.
        **kwargs: Keywords of the stock ResNet. ``norm_eval`` defaults to False in every library.

    Raises:
        CheckpointError: In ``init_weights``, if the checkpoint is not whole; see
            :func:`vito_mm.transfer.load_backbone`.
        ValueError: If the library cannot be told.
    """

    def __new__(cls, *args: Any, library: str | None = None, **kwargs: Any) -> 'VITOResNet':
        if cls is VITOResNet:
            cls = _class_for(library or _current_library())
        return super().__new__(cls)

    def __init__(
        self,
        *args: Any,
        checkpoint: str | None = None,
        which: str = 'online',
        allow_partial: bool = False,
        library: str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault('norm_eval', False)
        if checkpoint is not None:
            kwargs = _without_other_weights(kwargs)
            _remember_parents()
        super().__init__(*args, **kwargs)
        self.checkpoint = checkpoint
        self.which = which
        self.allow_partial = allow_partial
        self._holds_checkpoint = False
        self._is_filled = checkpoint is None

    def __reduce__(self) -> tuple:
        # The class is made at run time, so pickle cannot find it by name.
        return _empty, (self.library,), self.__dict__

    def init_weights(self) -> None:
        """Initialise as the stock ResNet does, then load the checkpoint over it, once."""
        is_first = not self.is_init
        super().init_weights()
        if is_first and self.checkpoint is None:
            print_log('VITOResNet: checkpoint=None, the stock initialisation stands', 'current')
        elif is_first:
            match = load_backbone(self, self.checkpoint, self.which, self.allow_partial)
            self._holds_checkpoint = self._is_filled = True
            for remark in settings_remarks(self, _preprocessor_around(self), match.meta):
                _warn(remark)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the stock ResNet; refuses to train weights that were to be loaded and were not."""
        if self.training and not self._is_filled:
            raise CheckpointError(
                f'VITOResNet is being trained without the weights of {self.checkpoint}: nothing '
                'called its init_weights(). MMEngine reaches the children of a BaseModule that '
                'have such a method, but not what stands in an nn.Sequential or another plain '
                'module: call model.backbone.init_weights() before training'
            )
        return super().forward(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # Called on any way of loading, PyTorch's and MMEngine's.
        if self._holds_checkpoint and f'{prefix}conv1.weight' in state_dict:
            _warn(
                f'other weights replace those of {self.checkpoint}. That is right when a run is '
                'resumed or tested; if it is not, look for load_from= in the config, or for an '
                'init_cfg of type Pretrained around the backbone'
            )
            self._holds_checkpoint = False
        self._is_filled |= f'{prefix}conv1.weight' in state_dict
        super()._load_from_state_dict(state_dict, prefix, *args)


@cache
def _class_for(library: str) -> type:
    """VITOResNet as a subclass of the library's ResNet, imported only now."""
    if library not in LIBRARIES:
        raise ValueError(f'VITOResNet: library must be one of {LIBRARIES}, got {library!r}')
    try:
        stock = importlib.import_module(f'{library}.models.backbones').ResNet
    except ModuleNotFoundError as error:
        raise ImportError(
            f'VITOResNet: the ResNet of {library} cannot be imported ({error}).'
        ) from error
    return type('VITOResNet', (VITOResNet, stock), {'library': library, '__module__': __name__})


def _empty(library: str) -> VITOResNet:
    cls = _class_for(library)
    return cls.__new__(cls)


def _current_library() -> str:
    scope = DefaultScope.get_current_instance()
    if scope is not None and scope.scope_name in LIBRARIES:
        return scope.scope_name
    imported = [name for name in LIBRARIES if name in sys.modules]
    if len(imported) == 1:
        return imported[0]
    raise ValueError(
        'VITOResNet cannot tell whose ResNet to be: the default scope is '
        f'{scope.scope_name if scope else None!r}, and of {", ".join(LIBRARIES)} these are '
        f'imported: {", ".join(imported) or "none"}. Set default_scope in the config (or '
        f'init_default_scope), or give library=, one of {LIBRARIES}.'
    )


def _without_other_weights(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Drop ``pretrained`` and ``init_cfg`` of type Pretrained, which the checkpoint replaces."""
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
        print_log(
            f'VITOResNet: {" and ".join(dropped)} in the config is ignored, because checkpoint= '
            'is given. Set model.pretrained=None (mmseg) or backbone.init_cfg=None to say so.',
            'current',
            logging.WARNING,
        )
    return kwargs


_PARENTS: 'weakref.WeakKeyDictionary[nn.Module, weakref.WeakSet]' = weakref.WeakKeyDictionary()
"""The modules that a backbone, or a module around one, was assigned to."""


@cache
def _remember_parents() -> None:
    """From now on know which model a VITOResNet stands in: a module does not know that by itself.

    What its data preprocessor feeds it decides whether the weights mean anything.
    """

    def remember(parent: nn.Module, name: str, child: nn.Module | None) -> None:
        if isinstance(child, VITOResNet) or any(child in around for around in _PARENTS.values()):
            _PARENTS.setdefault(child, weakref.WeakSet()).add(parent)

    register_module_module_registration_hook(remember)


def _preprocessor_around(module: nn.Module) -> nn.Module | None:
    """The outermost data preprocessor around a backbone that normalises: that one is called."""
    found, level = None, [module]
    while level := [parent for child in level for parent in _PARENTS.get(child, ())]:
        for parent in level:
            preprocessor = getattr(parent, 'data_preprocessor', None)
            if preprocessor is not None and preprocessing_of(preprocessor) is not None:
                found = preprocessor
    return found


def _warn(text: str) -> None:
    print_log(f'VITOResNet: {text}.', 'current', logging.WARNING)
