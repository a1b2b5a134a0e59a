"""Movement of the target network."""

from mmengine.hooks import Hook

from vito_mm.engine.unwrap import unwrap
from vito_mm.registry import HOOKS


@HOOKS.register_module()
class TargetEMAHook(Hook):
    """Update the target network exactly once for each optimizer step.

    The model has ``start_target()`` and ``update_target()``, see
    :class:`vito_mm.models.selfsup.vito.VITO`; for a model without them, e.g. mmpretrain's BYOL,
    which moves its target by itself, nothing is done. With ``accumulative_counts`` > 1 the target
    waits for the step that the micro-batches share.
    """

    # Before CheckpointHook and logging, so that a checkpoint holds the target of its own step.
    priority = 'ABOVE_NORMAL'

    def before_train(self, runner) -> None:
        """Let the target network start as a copy of the initialised online network."""
        model = unwrap(runner.model)
        self.has_target = hasattr(model, 'update_target')
        if self.has_target:
            model.start_target()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Update the target network if this iteration made an optimizer step."""
        wrapper = runner.optim_wrapper
        made_step = wrapper.should_update() and not getattr(wrapper, 'skipped_last_step', False)
        if self.has_target and made_step:
            unwrap(runner.model).update_target((runner.iter + 1) / runner.max_iters)
