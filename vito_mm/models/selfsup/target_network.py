"""The slowly moving copy of the online network."""

import math

import torch
from mmpretrain.models.utils import CosineEMA
from torch import nn


class TargetNetwork(CosineEMA):
    """mmpretrain's ``CosineEMA``, updated by progress and by all parameters at once.

    ``CosineEMA`` counts its own updates against the run's iterations, which is off under gradient
    accumulation, and on a GPU waits for the device at every parameter. It starts as a copy of the
    online network ``model``; ``base_momentum`` is the share of it kept in an update at the start.
    """

    def __init__(self, model: nn.Module, base_momentum: float) -> None:
        super().__init__(model, momentum=1 - base_momentum)

    @torch.no_grad()
    def update_parameters(
        self, model: nn.Module, progress: float | None = None, copy_statistics: bool = False
    ) -> None:
        """Move towards the online network, see :meth:`.VITO.update_target`.

        The momentum rises along a cosine from its base to 1 at a ``progress`` of 1. Without it, the
        online network is copied, statistics and all.
        """
        target, online = list(self.module.parameters()), list(model.parameters())
        if progress is None:
            torch._foreach_copy_(target, online)
        else:
            step = self.momentum * (math.cos(math.pi * progress) + 1) / 2
            torch._foreach_lerp_(target, online, step)
        buffers = list(self.module.buffers())
        if buffers and (progress is None or copy_statistics):
            torch._foreach_copy_(buffers, list(model.buffers()))
        self.steps += 1
