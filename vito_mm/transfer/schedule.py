"""Schedules under gradient accumulation, where MMEngine counts every micro-batch."""

from typing import Any

from mmengine.config import Config

from vito_mm.checkpoint.config_parts import parts_of, type_name

_SPANS = ('begin', 'end', 'T_max', 'step_size', 'total_steps', 'milestones', 'periods')
"""Arguments of MMEngine's schedulers that are numbers of iterations."""


def stretched_schedule(cfg: Config, count: int) -> dict[str, str]:
    """Settings that keep a schedule when each step is made of several micro-batches.

    MMEngine's schedulers go on with every micro-batch, so a warm-up of 500 iterations would end
    after ``500 / count`` steps of the optimizer. What is counted in epochs needs no change.

    Args:
        cfg (Config): Config of a run.
        count (int): Micro-batches of a step.

    Returns:
        dict[str, str]: Values, as texts, by key with dots.
    """
    stretched: dict[str, Any] = {}
    for place, part in parts_of(cfg.get('param_scheduler'), 'param_scheduler'):
        if count == 1 or part.get('by_epoch', True):
            continue
        for name in _SPANS:
            if value := part.get(name):
                is_list = isinstance(value, (list, tuple))
                new = [each * count for each in value] if is_list else value * count
                stretched[f'{place}.{name}'] = new
        if type_name(part).startswith('Exponential'):  # a factor of every micro-batch, no span
            stretched[f'{place}.gamma'] = part['gamma'] ** (1 / count)
    return {key: str(value).replace(' ', '') for key, value in stretched.items()}
