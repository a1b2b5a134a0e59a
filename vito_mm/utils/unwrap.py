"""The model itself."""

from mmengine.model import is_model_wrapper
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """The model within ``DistributedDataParallel`` or another wrapper, or the model as it is.

    Args:
        model (nn.Module): A runner's model.

    Returns:
        nn.Module: The model.
    """
    return model.module if is_model_wrapper(model) else model
