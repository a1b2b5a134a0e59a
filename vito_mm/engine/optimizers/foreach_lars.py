"""LARS on all parameters at once."""

from collections.abc import Callable
from typing import Any

import torch
from mmpretrain.engine.optimizers import LARS
from torch import Tensor

FORMULAS = ('byol', 'mmpretrain')
"""Known values of ``formula``."""


class ForeachLARS(LARS):
    """LARS of BYOL's code, computed by group and without waiting for the device.

    Layer-wise adaptive rate scaling, https://arxiv.org/abs/1708.03888, of which there are two
    formulas for weights w, gradient g, rate lr and momentum buffer m:

    - 'byol' (google-deepmind/deepmind-research, byol/utils/optimizers.py): ``u = g + wd * w``;
      ``m = momentum * m + u * eta * |w| / |u|``; ``w -= lr * m``. optax's ``lars`` is the same at a
      constant rate.
    - 'mmpretrain': ``m = momentum * m + lr * u * eta * |w| / (|g| + wd * |w| + eps)``; ``w -= m``.
      Its buffer holds updates at the rates of their own steps, so that steps lag behind the
      schedule: in a warm-up from 0 they have 0.53 of the length at iteration 1 and 0.91 at
      iteration 100, and in the last iterations they are longer.

    Where a norm is zero, the layer-wise rate is 1. A parameter group with ``lars_exclude=True`` has
    none, i.e. ``m = momentum * m + u``.

    mmpretrain's implementation fetches two norms of each parameter to the host, which a GPU has to
    wait for. This one pays with few large groups, as of
    :class:`vito_mm.engine.TrainableParamsConstructor`. Sparse gradients are not supported.

    Args:
        params: Parameters or groups.
        formula (str): 'byol' or 'mmpretrain'. Defaults to 'byol'.
        **kwargs: ``lr``, ``momentum``, ``weight_decay``, ``dampening``, ``eta``, ``nesterov`` and,
            for 'mmpretrain' only, ``eps`` of :class:`mmpretrain.engine.optimizers.LARS`.

    Raises:
        ValueError: If ``formula`` is neither, or a checkpoint holds momenta of the other one.
    """

    def __init__(self, params: Any, formula: str = 'byol', **kwargs: Any) -> None:
        if formula not in FORMULAS:
            raise ValueError(f'formula must be one of {FORMULAS}, got {formula!r}')
        super().__init__(params, **kwargs)
        self.formula = self.defaults['formula'] = formula
        for group in self.param_groups:
            group['formula'] = formula

    def load_state_dict(self, state_dict: dict) -> None:
        """Load the state of a checkpoint."""
        for group in state_dict['param_groups']:
            found = group.get('formula', 'mmpretrain')  # what vito_mm 0.1.0 computed
            if found != self.formula:
                raise ValueError(
                    f'the checkpoint holds momenta of LARS with formula={found!r}, which mean '
                    f'something else with formula={self.formula!r}: set '
                    f'optim_wrapper.optimizer.formula={found!r} to resume it'
                )
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Make one step; returns the loss of ``closure``, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [param for param in group['params'] if param.grad is not None]
            if params:
                self._step_group(group, params)
        return loss

    def _step_group(self, group: dict, params: list[Tensor]) -> None:
        grads = [param.grad for param in params]
        decay, momentum = group['weight_decay'], group['momentum']
        is_byol = self.formula == 'byol'
        before, after = (1.0, group['lr']) if is_byol else (group['lr'], 1.0)
        update = torch._foreach_add(grads, params, alpha=decay)
        if group.get('lars_exclude', False):
            if before != 1:
                torch._foreach_mul_(update, before)
        else:
            weights = torch.stack(torch._foreach_norm(params))
            norms = torch.stack(torch._foreach_norm(update if is_byol else grads))
            scale = norms if is_byol else norms + decay * weights + self.eps
            rate = torch.where((weights > 0) & (norms > 0), group['eta'] * weights / scale, 1.0)
            torch._foreach_mul_(update, list((rate * before).unbind()))
        if momentum != 0:
            known = [param for param in params if 'momentum_buffer' in self.state[param]]
            if len(known) == len(params):
                buffers = [self.state[param]['momentum_buffer'] for param in params]
                torch._foreach_mul_(buffers, momentum)
                torch._foreach_add_(buffers, update, alpha=1 - group['dampening'])
            else:
                buffers = self._first_buffers(params, update, group)
            if group['nesterov']:
                torch._foreach_add_(update, buffers, alpha=momentum)
            else:
                update = buffers
        torch._foreach_sub_(params, update, alpha=after)

    def _first_buffers(
        self, params: list[Tensor], update: list[Tensor], group: dict
    ) -> list[Tensor]:
        """Momenta where some parameter has a gradient for the first time."""
        for param, change in zip(params, update, strict=True):
            state = self.state[param]
            if 'momentum_buffer' in state:
                state['momentum_buffer'].mul_(group['momentum'])
                state['momentum_buffer'].add_(change, alpha=1 - group['dampening'])
            else:
                state['momentum_buffer'] = change.clone()
        return [self.state[param]['momentum_buffer'] for param in params]
