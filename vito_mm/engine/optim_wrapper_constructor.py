"""Constructor of the optimizer wrapper that leaves frozen parameters out."""

import logging
from typing import Any

from mmengine.logging import MMLogger
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from vito_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS

from .layer_depth import layer_depths


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableParamsConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's default constructor without frozen parameters, such as the target network's.

    Makes a group, and logs a line, of all parameters with the same settings, not of each parameter.

    ``paramwise_cfg.layer_decay_rate`` below 1 multiplies the rate of the backbone's parameters by
    its power, larger towards the input, as in mmpretrain's
    ``LearningRateDecayOptimWrapperConstructor``; :func:`.layer_depths` counts the layers. Defaults
    to 1.

    Raises:
        ValueError: If ``layer_decay_rate`` is given and the layers of the backbone are not known.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the wrapper of the optimizer over the trained parameters."""
        logger = MMLogger.get_current_instance()
        logger.addFilter(_is_no_parameter_line)
        try:
            wrapper = super().__call__(model)
        finally:
            logger.removeFilter(_is_no_parameter_line)
        for group in wrapper.optimizer.param_groups:
            shown = ('lr', 'weight_decay', 'lars_exclude')
            settings = ', '.join(f'{name}={group[name]:g}' for name in shown if name in group)
            logger.info(f'{len(group["params"])} parameter tensors with {settings}')
        return wrapper

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs: Any
    ) -> None:
        """Add the trained parameters of a module and its children to the groups."""
        if any(param.requires_grad for param in module.parameters()):
            super().add_params(params, module, prefix=prefix, **kwargs)
        if not prefix:
            if (rate := self.paramwise_cfg.get('layer_decay_rate', 1.0)) != 1:
                self._decay_rates(params, module, rate)
            params[:] = _merge(params)

    def _decay_rates(self, params: list[dict], model: nn.Module, rate: float) -> None:
        """Lower the rates of a group per parameter of the backbone by its distance to the end."""
        groups = {id(group['params'][0]): group for group in params}
        depths, head = layer_depths(model.backbone)
        for name, param in model.backbone.named_parameters():
            if group := groups.get(id(param)):
                group['lr'] = group.get('lr', self.base_lr) * rate ** (head - depths[name])


def _merge(groups: list[dict]) -> list[dict]:
    """Join groups of the same settings, without what is not trained."""
    merged: dict[tuple, dict] = {}
    for group in groups:
        settings = {name: value for name, value in group.items() if name != 'params'}
        trained = [param for param in group['params'] if param.requires_grad]
        if trained:
            key = tuple(sorted(settings.items()))
            merged.setdefault(key, dict(params=[], **settings))['params'] += trained
    return list(merged.values())


def _is_no_parameter_line(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith('paramwise_options')
