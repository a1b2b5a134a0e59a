"""Parameters that the optimizer gets to see."""

import logging
from collections import Counter

from mmengine.logging import MMLogger
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from vito_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableParamsConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's default constructor without the modules that are not trained at all.

    The default adds the frozen parameters of a target network to the optimizer, and logs several
    lines for every parameter at every start. This one logs a line for each kind of parameter group.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer wrapper.

        Args:
            model (nn.Module): Model, or a wrapper of it.

        Returns:
            OptimWrapper: Wrapper of the optimizer over the trained parameters.
        """
        logger = MMLogger.get_current_instance()
        logger.addFilter(_is_no_parameter_line)
        try:
            wrapper = super().__call__(model)
        finally:
            logger.removeFilter(_is_no_parameter_line)
        shown = ('lr', 'weight_decay', 'lars_exclude')
        kinds = Counter()
        for group in wrapper.optimizer.param_groups:
            kind = ', '.join(f'{name}={group[name]:g}' for name in shown if name in group)
            kinds[kind] += sum(param.requires_grad for param in group['params'])
        for kind, count in kinds.items():
            logger.info(f'{count} parameter tensors with {kind}')
        return wrapper

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Add the parameters of a module and its children, if any is trained.

        Args:
            params (list[dict]): Parameter groups, extended in place.
            module (nn.Module): Module to add.
            **kwargs: See :class:`mmengine.optim.DefaultOptimWrapperConstructor`.
        """
        if any(param.requires_grad for param in module.parameters()):
            super().add_params(params, module, **kwargs)


def _is_no_parameter_line(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith('paramwise_options')
