"""Reports of skipped optimizer steps, and an end after too many."""

import shlex

import torch
from mmengine.hooks import Hook

from vito_mm.engine.clip_train_loop import CLIPS_DRAWN
from vito_mm.registry import HOOKS


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Report skipped optimizer steps, undo their traces, and stop after too many in a row.

    Needs ``optim_wrapper=dict(type='SkipNonFiniteOptimWrapper')``. Batch norm's running statistics,
    which have the bad numbers, are put back to those before the step. Logs ``skipped_steps``.

    Args:
        max_in_row (int): How many steps in a row may be skipped. Defaults to 10.

    Raises:
        ValueError: If ``max_in_row`` is negative.
        FloatingPointError: While training, one step after ``max_in_row`` skipped ones.
    """

    # After RuntimeInfoHook, before anything that would take over or save the numbers of the step.
    priority = 'HIGH'

    def __init__(self, max_in_row: int = 10) -> None:
        if max_in_row < 0:
            raise ValueError(f'max_in_row must not be negative, got {max_in_row}')
        self.max_in_row = max_in_row
        self.num_in_row = self.num_skipped = 0
        self._buffers: list[torch.Tensor] = []
        self._saved: list[torch.Tensor] = []
        self._step_begins = True

    def before_train(self, runner) -> None:
        """Find the buffers to protect."""
        if not hasattr(runner.optim_wrapper, 'skipped_last_step'):
            raise ValueError(
                'NonFiniteHook needs optim_wrapper.type="SkipNonFiniteOptimWrapper", got '
                f'{type(runner.optim_wrapper).__name__}'
            )
        self._buffers = [b for b in runner.model.buffers() if b.dtype.is_floating_point]
        self._saved = [buffer.clone() for buffer in self._buffers]

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Remember the running statistics at the start of an optimizer step."""
        if self._step_begins and self._buffers:
            torch._foreach_copy_(self._saved, self._buffers)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Deal with a skipped step."""
        wrapper = runner.optim_wrapper
        self._step_begins = wrapper.should_update()
        if not self._step_begins:
            return
        if not wrapper.skipped_last_step:
            self.num_in_row = 0
            return
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._saved)
        self.num_in_row += 1
        self.num_skipped += 1
        runner.message_hub.update_scalar('train/skipped_steps', self.num_skipped)
        clips = runner.message_hub.runtime_info.get(CLIPS_DRAWN)
        where = f'iteration {runner.iter + 1}' + (f' ({clips} clips drawn)' if clips else '')
        runner.logger.warning(
            f'{where}: loss or gradient is not finite, step skipped ({self.num_in_row} in a row, '
            f'{self.num_skipped} in this run)'
        )
        if self.num_in_row > self.max_in_row:
            saved = runner.message_hub.runtime_info.get('last_ckpt')
            remedy = (
                f'Go on from {saved} (--resume {shlex.quote(saved)})'
                if saved
                else 'There is no checkpoint yet: start again'
            )
            raise FloatingPointError(
                f'loss or gradient was not finite in {self.num_in_row} optimizer steps in a row, '
                f'the last at {where}. {remedy}. The data will be the same, so if it is no fault '
                'of the machine, lower optim_wrapper.optimizer.lr or set '
                'optim_wrapper.clip_grad.'
            )
