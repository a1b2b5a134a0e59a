"""Linear warm-up from a rate of zero."""

from typing import Any

from mmengine.optim import LinearLR

from vito_mm.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmUpLR(LinearLR):
    """Raise the learning rate from 0 to its base: ``base * step / (end - begin)``.

    The schedule of BYOL's code (google-deepmind/deepmind-research, byol/utils/schedules.py): step
    ``begin`` has a rate of exactly 0, step ``end``, where the decay begins, the base rate.
    MMEngine's ``LinearLR`` cannot begin at 0, and reaches the base rate one step early.

    Args:
        *args: The optimizer.
        begin (int): First step. Defaults to 0.
        end (int): Step that has the base rate; the next scheduler begins here.
        **kwargs: ``by_epoch``, ``last_step`` and ``verbose`` of :class:`mmengine.optim.LinearLR`.
    """

    def __init__(self, *args: Any, begin: int = 0, end: int, **kwargs: Any) -> None:
        # `end` of MMEngine is the first step that a scheduler leaves alone.
        super().__init__(*args, start_factor=0.0, begin=begin, end=end + 1, **kwargs)

    def _get_value(self) -> list[float]:
        return [value * self.last_step / self.total_iters for value in self.base_values]
