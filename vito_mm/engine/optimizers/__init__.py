"""Optimizers. They subclass mmpretrain's, so they are imported when first built."""

from typing import Any

from torch.optim import Optimizer

from vito_mm.registry import OPTIMIZERS


# Not by register_lazily: MMEngine hands the parameters over by the name of the first argument.
@OPTIMIZERS.register_module(name='ForeachLARS')
def _build_foreach_lars(params: Any, **kwargs: Any) -> Optimizer:
    from .foreach_lars import ForeachLARS

    return ForeachLARS(params, **kwargs)


__all__: list[str] = []
