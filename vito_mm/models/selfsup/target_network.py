"""The slowly moving copy of the online network."""

import math

import torch
from mmpretrain.models.utils import CosineEMA
from torch import nn


class TargetNetwork(CosineEMA):
    """mmpretrain's ``CosineEMA``, updated by progress and by all parameters at once.

    ``CosineEMA`` counts its own updates against the run's iterations, which is off under gradient
    accumulation, and on a GPU waits for the device at every parameter.

    Args:
        model (nn.Module): The online network; the target starts as its copy.
        base_momentum (float): Share of the target kept in an update at the start.
    """

    def __init__(self, model: nn.Module, base_momentum: float) -> None:
        super().__init__(model, momentum=1 - base_momentum)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module, progress: float | None = None) -> None:
        """Move towards the online network.

        Args:
            model (nn.Module): The online network.
            progress (float, optional): Share of the run that is done, within [0, 1]: the momentum
                rises along a cosine from its base at 0 to 1 at the end. Defaults to None, which
                copies the online network.
        """
        target, online = list(self.module.parameters()), list(model.parameters())
        if progress is None:
            torch._foreach_copy_(target, online)
        else:
            step = self.momentum * (math.cos(math.pi * progress) + 1) / 2
            torch._foreach_lerp_(target, online, step)
        # Running statistics are those of the online network; the target computes with its own
        # batch statistics.
        buffers = list(self.module.buffers())
        if buffers:
            torch._foreach_copy_(buffers, list(model.buffers()))
        self.steps += 1
