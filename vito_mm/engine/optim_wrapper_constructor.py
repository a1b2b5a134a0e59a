"""Parameters that the optimizer gets to see."""

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from vito_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableParamsConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's default constructor without the modules that are not trained at all.

    The default adds the frozen parameters of a target network to the optimizer and prints a warning
    for each of them at every start.
    """

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Add the parameters of a module and its children, if any is trained.

        Args:
            params (list[dict]): Parameter groups, extended in place.
            module (nn.Module): Module to add.
            **kwargs: See :class:`mmengine.optim.DefaultOptimWrapperConstructor`.
        """
        if any(param.requires_grad for param in module.parameters()):
            super().add_params(params, module, **kwargs)
