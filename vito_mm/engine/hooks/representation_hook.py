"""Collapse and quality of projections, from the batch in training."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather, is_main_process
from torch import Tensor, nn

from vito_mm.models.heads.infonce_head import unit_vectors
from vito_mm.probes.image_folders import ProbeError
from vito_mm.probes.representation import (
    alignment,
    effective_rank,
    quantiles,
    similarity_counts,
    uniformity,
)
from vito_mm.registry import HOOKS
from vito_mm.utils.unwrap import unwrap

from .probe_hook import ProbeHook

LEVELS = {'p5': 0.05, 'p50': 0.5, 'p95': 0.95}
"""Quantiles of the similarities that are logged."""

_FINENESS = 2000  # bins at least in which cosines are counted, so that quantiles are exact to 0.001


@HOOKS.register_module()
class RepresentationHook(ProbeHook):
    """Describe the projections of a batch, those of all ranks together.

    They are those that the loss gets, scaled to norm 1: nothing is computed twice. With gradient
    accumulation it is one micro-batch.

    Logs of the online network, and with the prefix ``target_`` of the target network,

    - ``effective_rank``: dimensions in use, see
      :func:`vito_mm.probes.representation.effective_rank`; all views are rows.
    - ``alignment``, ``uniformity``: of https://arxiv.org/abs/2005.10242, between views of the same
      network.

    and of the cosines between online and target projections, of the pairs of views that the loss
    compares, quantiles ``similarity_pos_p5``, ``_p50``, ``_p95`` (same clip) and
    ``similarity_neg_p5``, ... (other clips). The picture ``similarities`` has their histograms.

    Works with :class:`vito_mm.models.InfoNCEHead` and with mmpretrain's heads that are given online
    and target projections of one view at a time (BYOL, SimSiam, MoCo v3).

    Args:
        bins (int): Bars of the histograms. Defaults to 50.
        **kwargs: See :class:`.probe_hook.ProbeHook`; ``begin`` measures the first batch, too.

    Raises:
        ValueError: If a setting makes no sense. During training, if the head gets something other
            than projections.
    """

    def __init__(self, bins: int = 50, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_positive(bins=bins)
        self.bins = bins
        self._listener: _Listener | None = None

    def before_train(self, runner) -> None:
        """Find the head. Nothing is measured: that takes a batch."""
        model = unwrap(runner.model)
        if not hasattr(model, 'head'):
            raise ValueError(
                f'RepresentationHook listens to the head of a model, and {type(model).__name__} '
                'has none. Take the hook out of this config'
            )

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Listen to the head in an iteration that is measured."""
        if self._is_time(runner):
            self._listener = _Listener(unwrap(runner.model).head)

    def _is_time(self, runner) -> bool:
        return super()._is_time(runner) or (self.begin and runner.iter == 0)

    def measure(self, runner, step: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """See :meth:`.probe_hook.ProbeHook.measure`."""
        calls, self._listener = self._listener.stop(), None
        online, target, compared = _views(calls, type(unwrap(runner.model).head).__name__)
        online, target = _of_all_ranks(online), _of_all_ranks(target)
        if not (online.isfinite().all() and target.isfinite().all()):
            raise ProbeError('the projections are not finite')
        if online.size(1) < 2:
            raise ProbeError('the batch has one clip, which cannot be compared with others')
        if not is_main_process():
            return {}, {}
        numbers = {}
        for prefix, views in (('', online), ('target_', target)):
            numbers[f'{prefix}effective_rank'] = effective_rank(views.flatten(0, 1))
            numbers[f'{prefix}alignment'] = alignment(views)
            numbers[f'{prefix}uniformity'] = uniformity(views)
        fine = self.bins * -(-_FINENESS // self.bins)
        pairs = ((online[i], target[j]) for i, j in compared)
        positives, negatives = similarity_counts(pairs, fine)
        for name, counts in (('pos', positives), ('neg', negatives)):
            for level, value in zip(LEVELS, quantiles(counts, list(LEVELS.values())), strict=True):
                numbers[f'similarity_{name}_{level}'] = value
        title = f'Similarities, iteration {step}'
        # Imported here: matplotlib is slow to import, and most runs draw nothing.
        from vito_mm.visualization.plots import draw_similarities

        return numbers, dict(similarities=draw_similarities(positives, negatives, self.bins, title))


class _Listener:
    """Keeps the arguments of a head, called by itself (vito_mm) or by ``loss`` (mmpretrain)."""

    def __init__(self, head: nn.Module) -> None:
        self.head, self.calls = head, []
        self.name = 'loss' if hasattr(head, 'loss') else 'forward'
        inner: Callable = getattr(head, self.name)

        def keep(*args: Any, **kwargs: Any) -> Any:
            self.calls.append([_detached(arg) for arg in (*args, *kwargs.values())][:2])
            return inner(*args, **kwargs)

        setattr(head, self.name, keep)  # hides the method of the class

    def stop(self) -> list[list]:
        """Leave the head as it was; returns the first two arguments of each call."""
        delattr(self.head, self.name)
        return self.calls


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    return [_detached(item) for item in value] if isinstance(value, (list, tuple)) else value


def _views(
    calls: Sequence[Sequence], head: str
) -> tuple[list[Tensor], list[Tensor], list[tuple[int, int]]]:
    """Online and target projections, one tensor (N, D) a view, and which pairs the loss compares.

    A head that gets single views is called once for each pair.
    """
    if len(calls) == 1 and all(isinstance(argument, list) for argument in calls[0]):
        online, target = calls[0]
        pairs = [(i, j) for i in range(len(online)) for j in range(len(target)) if i != j]
    else:
        online, target = ([call[side] for call in calls if len(call) == 2] for side in (0, 1))
        pairs = [(i, i) for i in range(len(online))]
    views = [*online, *target]
    if len(online) < 2 or not all(isinstance(view, Tensor) and view.ndim == 2 for view in views):
        raise ValueError(
            f'RepresentationHook cannot tell what {head} is given: it expects online and target '
            'projections of at least two views. Take the hook out of this config'
        )
    return online, target, pairs


def _of_all_ranks(views: Sequence[Tensor]) -> Tensor:
    """Projections of the global batch, shape (V, N, D), of norm 1."""
    return torch.cat(all_gather(unit_vectors(views)), dim=1)
