"""Optimizer steps that a bad batch cannot spoil."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, is_distributed
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from vito_mm.registry import OPTIM_WRAPPERS

DTYPES = {'bfloat16': torch.bfloat16}
"""Known values of ``dtype``."""


@OPTIM_WRAPPERS.register_module(
    name=['SkipNonFiniteOptimWrapper', 'GuardedOptimWrapper']  # the second: configs of 0.1.0
)
class SkipNonFiniteOptimWrapper(OptimWrapper):
    """MMEngine's wrapper that leaves out steps whose loss or gradient is not finite.

    All ranks decide alike. What follows from skipped steps is up to
    :class:`vito_mm.engine.NonFiniteHook`. It costs one wait for the device a step, between backward
    pass and update.

    bfloat16 has the range of float32, so mixed precision needs no loss scaling here. For float16
    take MMEngine's ``AmpOptimWrapper``, whose scaler skips steps by itself.

    Args:
        dtype (str, optional): 'bfloat16' computes in mixed precision. Defaults to None, which means
            float32.
        **kwargs: See :class:`mmengine.optim.OptimWrapper`.

    Attributes:
        skipped_last_step (bool): Whether the last optimizer step was left out.

    Raises:
        ValueError: If ``dtype`` is unknown.
    """

    def __init__(self, *args: Any, dtype: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if dtype is not None and dtype not in DTYPES:
            raise ValueError(
                f'optim_wrapper.dtype must be None or one of {tuple(DTYPES)}, got {dtype!r}'
            )
        self.dtype = dtype
        self.skipped_last_step = False
        self._losses_are_finite: list[Tensor] = []

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Mixed precision, and no gradient exchange before it is needed.

        Args:
            model (nn.Module): The model, wrapped or not.
        """
        with super().optim_context(model):
            if self.dtype is None:
                yield
                return
            device = get_device().split(':')[0]
            with torch.autocast(device, dtype=DTYPES[self.dtype]):
                yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Backward pass, keeping in mind whether the loss is finite.

        Args:
            loss (Tensor): Loss of a micro-batch.
            **kwargs: See :meth:`torch.Tensor.backward`.
        """
        self._losses_are_finite.append(loss.detach().isfinite().all())
        super().backward(loss, **kwargs)

    def step(self, **kwargs: Any) -> None:
        """Step if losses and gradients are finite on all ranks.

        Args:
            **kwargs: See :meth:`torch.optim.Optimizer.step`.
        """
        finite = self._all_finite()
        self._losses_are_finite.clear()
        self.skipped_last_step = not finite
        if finite:
            super().step(**kwargs)

    def _all_finite(self) -> bool:
        grads = [
            param.grad
            for group in self.optimizer.param_groups
            for param in group['params']
            if param.grad is not None
        ]
        norms = torch._foreach_norm(grads)
        finite = torch.stack(norms).isfinite().all() & torch.stack(self._losses_are_finite).all()
        if is_distributed():
            finite = finite.float()
            all_reduce(finite, op='min')
        return bool(finite)
