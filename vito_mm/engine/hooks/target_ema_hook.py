"""Movement of the target network."""

from mmengine.hooks import Hook
from mmengine.model import BaseAveragedModel
from torch import nn

from vito_mm.registry import HOOKS
from vito_mm.utils.unwrap import unwrap


@HOOKS.register_module()
class TargetEMAHook(Hook):
    """Update the target network exactly once for each optimizer step.

    The model has ``start_target()`` and ``update_target()``, see
    :class:`vito_mm.models.selfsup.vito.VITO`; a model without them, e.g. mmpretrain's BYOL, moves
    its target by itself. With ``accumulative_counts`` > 1 the target waits for the step that the
    micro-batches share.

    The target's batch norm has running statistics of its own forward passes, as in BYOL's code
    (``target_state`` in google-deepmind/deepmind-research, byol/byol_experiment.py), so that it
    computes in a task what it was trained to. MMEngine's averaged models, and so mmpretrain's BYOL
    and MoCo v3, copy those of the online network; this hook keeps them from it.

    Args:
        statistics (str): Whose running statistics the target network has: 'own' as in BYOL's code,
            or 'online', copied at each step. Defaults to 'own'.

    Raises:
        ValueError: If ``statistics`` is neither.
    """

    # Before CheckpointHook and logging, so that a checkpoint holds the target of its own step.
    priority = 'ABOVE_NORMAL'

    def __init__(self, statistics: str = 'own') -> None:
        if statistics not in ('own', 'online'):
            raise ValueError(f"statistics must be 'own' or 'online', got {statistics!r}")
        self.statistics = statistics

    def before_train(self, runner) -> None:
        """Let the target network start as a copy of the initialised online network."""
        model = unwrap(runner.model)
        self.has_target = hasattr(model, 'update_target')
        if self.has_target:
            model.start_target()
        elif self.statistics == 'own':
            for network in model.children():
                if isinstance(network, BaseAveragedModel):
                    _keep_own_statistics(network, nn.Sequential(model.backbone, model.neck))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Update the target network if this iteration made an optimizer step."""
        wrapper = runner.optim_wrapper
        made_step = wrapper.should_update() and not getattr(wrapper, 'skipped_last_step', False)
        if self.has_target and made_step:
            unwrap(runner.model).update_target(
                runner.iter / runner.max_iters, copy_statistics=self.statistics == 'online'
            )


def _keep_own_statistics(target: BaseAveragedModel, online: nn.Module) -> None:
    """Stop MMEngine from copying the buffers of the online network at every update."""
    if target.steps == 0:
        target.module.load_state_dict(online.state_dict())
    # Without this flag MMEngine copies buffers. With it, it averages what `avg_parameters` holds:
    # parameters alone, as the model was built without the flag.
    target.update_buffers = True
