"""LARS on all parameters at once."""

from collections.abc import Callable

import torch
from mmpretrain.engine.optimizers import LARS
from torch import Tensor


class ForeachLARS(LARS):
    """mmpretrain's LARS, computed by group and without waiting for the device.

    Layer-wise adaptive rate scaling, https://arxiv.org/abs/1708.03888. mmpretrain's version goes
    through the parameters one by one and fetches two norms of each to the host, which a GPU has to
    wait for. The numbers are the same up to rounding. It pays with few large groups, as
    :class:`vito_mm.engine.TrainableParamsConstructor` makes them. Sparse gradients are not
    supported.

    Args:
        params: Parameters or groups; a group with ``lars_exclude=True`` has no layer-wise rate.
        **kwargs: ``lr``, ``momentum``, ``weight_decay``, ``dampening``, ``eta``, ``nesterov`` and
            ``eps`` of :class:`mmpretrain.engine.optimizers.LARS`.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Make one step.

        Args:
            closure (Callable, optional): Evaluates the model again and returns the loss. Defaults
                to None.

        Returns:
            Tensor | None: The closure's loss.
        """
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
        decay, momentum, lr = group['weight_decay'], group['momentum'], group['lr']
        update = torch._foreach_add(grads, params, alpha=decay)
        if group.get('lars_exclude', False):
            torch._foreach_mul_(update, lr)
        else:
            weights = torch.stack(torch._foreach_norm(params))
            norms = torch.stack(torch._foreach_norm(grads))
            rate = group['eta'] * weights / (norms + decay * weights + self.eps)
            rate = torch.where((weights != 0) & (norms != 0), rate, 1.0) * lr
            torch._foreach_mul_(update, list(rate.unbind()))
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
        torch._foreach_sub_(params, update)

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
