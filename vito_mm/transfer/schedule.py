"""Schedules under gradient accumulation."""

from typing import Any

from mmengine.config import Config

from vito_mm.checkpoint.config_parts import parts_of, type_name
from vito_mm.engine.schedule_length import BOUNDS, COUNTS


def stretched_schedule(cfg: Config) -> dict[str, str]:
    """Return the settings, as texts by key, that keep a schedule under gradient accumulation.

    MMEngine's schedulers go on with every micro-batch, so a warm-up of 500 iterations would end
    after ``500 / accumulative_counts`` steps of the optimizer. What is counted in epochs needs no
    change.
    """
    count = cfg.get('optim_wrapper', {}).get('accumulative_counts', 1)
    stretched: dict[str, Any] = {}
    for place, part in parts_of(cfg.get('param_scheduler'), 'param_scheduler'):
        if count == 1 or part.get('by_epoch', True):
            continue
        for name in (*BOUNDS, *COUNTS):
            if value := part.get(name):
                is_list = isinstance(value, (list, tuple))
                new = [each * count for each in value] if is_list else value * count
                stretched[f'{place}.{name}'] = new
        if type_name(part).startswith('Exponential'):  # a factor of every micro-batch, no span
            stretched[f'{place}.gamma'] = part['gamma'] ** (1 / count)
    return {key: str(value).replace(' ', '') for key, value in stretched.items()}
