"""Quality and collapse of embeddings, without labels."""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from .neighbours import nearest, products


def effective_rank(features: Tensor) -> float:
    r"""Number of dimensions that embeddings use (RankMe).

    :math:`\exp(-\sum_k p_k \log p_k)` with :math:`p_k = \sigma_k / \sum_j \sigma_j` of the
    singular values, https://arxiv.org/abs/2210.02885, section 3, without its small constant. 1
    where all embeddings lie on a line; the number of dimensions (or of rows, if that is smaller)
    where no direction is preferred.

    Args:
        features (Tensor): Shape (N, D), not centred.

    Returns:
        float: Within [1, min(N, D)]; 0 if all features are 0.
    """
    features = features.double()
    if len(features) < features.size(1):
        features = features.T
    # Of the smaller Gram matrix in float64, which is fast on a GPU as well, unlike an SVD of all.
    singular = torch.linalg.eigvalsh(features.T @ features).clamp(min=0).sqrt()
    total = singular.sum()
    if not total > 0:
        return 0.0
    return torch.special.entr(singular / total).sum().exp().item()


def alignment(views: Sequence[Tensor]) -> float:
    """Mean squared distance between two views of a clip.

    https://arxiv.org/abs/2005.10242, equation 2 with alpha = 2.

    Args:
        views (Sequence[Tensor]): One tensor (N, D) per view, of norm 1, with a row per clip.

    Returns:
        float: 0 where views of a clip are the same, 2 where they are unrelated, at most 4.
    """
    distances = [(a - b).square().sum(dim=1).double().mean() for a, b in combinations(views, 2)]
    return torch.stack(distances).mean().item()


def uniformity(views: Sequence[Tensor]) -> float:
    r"""Evenness of the spread of different clips over the sphere.

    :math:`\log \mathbb{E} \exp(-2 \|x - y\|^2)` over pairs of different clips in the same view,
    https://arxiv.org/abs/2005.10242, equation 3 with t = 2.

    Args:
        views (Sequence[Tensor]): See :func:`alignment`; at least two clips.

    Returns:
        float: 0 where all are the same; -4 where all are orthogonal.
    """
    total, pairs = 0.0, 0
    for view in views:
        for start, cosine in products(view, view):
            own = torch.arange(len(cosine), device=cosine.device)
            cosine[own, own + start] = -math.inf  # at infinite distance: no part of the sum
            total += (4 * (cosine - 1)).exp().double().sum().item()
        pairs += len(view) * (len(view) - 1)
    return math.log(total / pairs)


def similarity_counts(pairs: Iterable[tuple[Tensor, Tensor]], bins: int) -> tuple[Tensor, Tensor]:
    """Histograms of cosines over [-1, 1] of positive pairs (one clip) and of negative ones.

    Args:
        pairs (Iterable[tuple[Tensor, Tensor]]): Embeddings (N, D) of norm 1 of two views or
            networks, with a row per clip.
        bins (int): Bins of equal width.

    Returns:
        tuple[Tensor, Tensor]: Counts, each of shape (bins, ), int64, on the CPU.
    """
    positives, everything = torch.zeros(2, bins, dtype=torch.int64)
    for a, b in pairs:
        for start, cosine in products(a, b):
            positives += _histogram(cosine.diagonal(start), bins)
            everything += _histogram(cosine, bins)
    return positives, everything - positives


def quantiles(counts: Tensor, levels: Sequence[float]) -> list[float]:
    """Quantiles of what a histogram over [-1, 1] counted, exact to the width of a bin."""
    cumulative = counts.double().cumsum(0)
    wanted = torch.tensor(levels, dtype=torch.float64) * cumulative[-1]
    bins = torch.searchsorted(cumulative, wanted).clamp(max=len(counts) - 1)
    within = 1 - (cumulative[bins] - wanted) / counts[bins].clamp(min=1)
    return ((bins + within) * 2 / len(counts) - 1).tolist()


def retrieval_top1(queries: Tensor, gallery: Tensor) -> float:
    """Percent of rows (N, D) whose nearest of a gallery (N, D), by cosine, has the same number."""
    queries, gallery = F.normalize(queries, dim=1), F.normalize(gallery, dim=1)
    _, found = nearest(queries, gallery, 1)
    own = torch.arange(len(queries), device=found.device)
    return 100 * int((found[:, 0] == own).sum()) / len(queries)


def _histogram(cosine: Tensor, bins: int) -> Tensor:
    # Not torch.histc, which refuses a GPU where only deterministic algorithms are allowed.
    places = ((cosine + 1) * (bins / 2)).long().clamp_(0, bins - 1)
    return torch.bincount(places.flatten(), minlength=bins).cpu()
