"""Length of a schedule of the learning rate, and the same schedule in another number of steps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

BOUNDS = ('begin', 'end', 'T_max')
COUNTS = ('step_size', 'milestones', 'periods', 'total_steps')
"""Together the arguments of MMEngine's schedulers that are numbers of steps."""


def schedule_length(schedulers: Sequence[Mapping[str, Any]], iters_per_epoch: float) -> float:
    """Compute the iteration in which the last scheduler ends.

    Args:
        schedulers (Sequence[Mapping]): Configs of schedulers.
        iters_per_epoch (float): Iterations per epoch of those with ``convert_to_iter_based``.

    Returns:
        float: Iterations; 0 if no scheduler has an end.
    """
    ends = [each['end'] * _unit(each, iters_per_epoch) for each in schedulers if 'end' in each]
    return max((end for end in ends if math.isfinite(end)), default=0)


def in_iterations(
    schedulers: Sequence[Mapping[str, Any]], iters_per_epoch: float, factor: float
) -> list[dict[str, Any]]:
    """Write schedulers in iterations, all their steps multiplied by a factor.

    Bounds are rounded to whole iterations. A scheduler whose span becomes empty is left out, and so
    is a ``LinearLR`` of a single iteration, which would never reach its end factor.

    Args:
        schedulers (Sequence[Mapping]): Configs of schedulers.
        iters_per_epoch (float): See :func:`schedule_length`.
        factor (float): New length per old one.

    Returns:
        list[dict]: Configs of schedulers.
    """
    found = []
    for each in schedulers:
        scale = _unit(each, iters_per_epoch) * factor
        new = {key: value for key, value in each.items() if key != 'convert_to_iter_based'}
        new.update(by_epoch=False, begin=_rounded(each.get('begin', 0), scale))
        if 'end' in each:
            new['end'] = _rounded(each['end'], scale)
            shortest = 2 if str(each['type']).rpartition('.')[2] == 'LinearLR' else 1
            if new['end'] - new['begin'] < shortest:
                continue
        if each.get('T_max') is not None:
            # Exactly the span where it was that, in spite of the rounding.
            is_span = each['T_max'] == each.get('end', math.inf) - each.get('begin', 0)
            new['T_max'] = new['end'] - new['begin'] if is_span else each['T_max'] * scale
        for key in COUNTS:
            if each.get(key) is not None:
                several = isinstance(each[key], (list, tuple))
                counts = [
                    max(1, _rounded(count, scale))
                    for count in (each[key] if several else [each[key]])
                ]
                new[key] = counts if several else counts[0]
        found.append(new)
    return found


def _unit(scheduler: Mapping[str, Any], iters_per_epoch: float) -> float:
    return iters_per_epoch if scheduler.get('convert_to_iter_based') else 1


def _rounded(count: float, scale: float) -> int | float:
    return round(count * scale) if math.isfinite(count) else count
