"""Optimizer wrapper that skips steps whose loss or gradient is not finite."""

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
    """MMEngine's wrapper, skipping steps whose loss or gradient is not finite on any rank.

    :class:`vito_mm.engine.NonFiniteHook` acts on them, by ``skipped_last_step``. The check costs
    one wait for the device per step, between backward pass and update.

    bfloat16 has the range of float32 and needs no loss scaling. For float16 take MMEngine's
    ``AmpOptimWrapper``, whose scaler skips steps by itself.

    Args:
        dtype (str, optional): 'bfloat16' computes in mixed precision. Defaults to float32.
        **kwargs: See :class:`mmengine.optim.OptimWrapper`.

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
        """Compute in mixed precision, and exchange no gradients before they are needed."""
        with super().optim_context(model):
            if self.dtype is None:
                yield
                return
            with torch.autocast(get_device().split(':')[0], dtype=DTYPES[self.dtype]):
                yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Run the backward pass and note whether the loss is finite."""
        self._losses_are_finite.append(loss.detach().isfinite().all())
        super().backward(loss, **kwargs)

    def step(self, **kwargs: Any) -> None:
        """Step if losses and gradients are finite on all ranks."""
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
