"""Movement of the target network."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from vito_mm.registry import HOOKS


@HOOKS.register_module()
class TargetEMAHook(Hook):
    """Update the target network exactly once for each optimizer step.

    The model must have ``start_target()`` and ``update_target()``, see
    :class:`vito_mm.models.selfsup.vito.VITO`. With ``accumulative_counts`` > 1 the target waits for
    the step that the micro-batches share.
    """

    # Before CheckpointHook and logging, so that a checkpoint holds the target of its own step.
    priority = 'ABOVE_NORMAL'

    def before_train(self, runner) -> None:
        """Let the target network start as a copy of the initialised online network."""
        _unwrap(runner.model).start_target()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Update the target network if this iteration made an optimizer step."""
        wrapper = runner.optim_wrapper
        if wrapper.should_update() and not getattr(wrapper, 'skipped_last_step', False):
            _unwrap(runner.model).update_target((runner.iter + 1) / runner.max_iters)


def _unwrap(model):
    return model.module if is_model_wrapper(model) else model
