"""Quality of embeddings against brute force in float64."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vito_mm.probes import neighbours
from vito_mm.probes.representation import (
    alignment,
    effective_rank,
    quantiles,
    retrieval_top1,
    similarity_counts,
    uniformity,
)


def unit_views(num_views: int = 3, clips: int = 13, dims: int = 6) -> torch.Tensor:
    """Views of clips that resemble each other, of norm 1."""
    generator = torch.Generator().manual_seed(0)
    clip = torch.randn(1, clips, dims, generator=generator)
    return F.normalize(clip + torch.randn(num_views, clips, dims, generator=generator), dim=-1)


@pytest.fixture(params=[1024, 5], ids=['at once', 'some rows at a time'])
def rows(request, monkeypatch):
    monkeypatch.setattr(neighbours, '_ROWS', request.param)


@pytest.mark.parametrize('shape', [(40, 7), (5, 16)], ids=['tall', 'wide'])
def test_effective_rank_is_that_of_the_singular_values(shape):
    features = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    singular = np.linalg.svd(features.double().numpy(), compute_uv=False)
    shares = singular / singular.sum()
    expected = math.exp(-(shares * np.log(shares)).sum())
    assert effective_rank(features) == pytest.approx(expected, rel=1e-6)


def test_effective_rank_of_known_cases():
    line = torch.randn(50, 1) * F.normalize(torch.randn(1, 64), dim=1)
    assert effective_rank(line) == pytest.approx(1, abs=1e-2)
    assert effective_rank(torch.eye(16).repeat(3, 1)) == pytest.approx(16)
    assert effective_rank(torch.zeros(4, 3)) == 0


def test_alignment_and_uniformity_are_means_over_pairs(rows):
    views = unit_views()
    x = views.double().numpy()
    distances = [
        ((x[i, n] - x[j, n]) ** 2).sum() for i, j in combinations(range(3), 2) for n in range(13)
    ]
    assert alignment(views) == pytest.approx(np.mean(distances), rel=1e-5)
    potentials = [
        math.exp(-2 * ((x[i, n] - x[i, m]) ** 2).sum())
        for i in range(3)
        for n in range(13)
        for m in range(13)
        if n != m
    ]
    assert uniformity(views) == pytest.approx(math.log(np.mean(potentials)), rel=1e-5)


def test_collapse_and_the_best_case_have_the_values_of_the_page():
    same = F.normalize(torch.ones(2, 8, 4), dim=-1)
    assert alignment(same) == pytest.approx(0, abs=1e-6)
    assert uniformity(same) == pytest.approx(0, abs=1e-5)
    orthogonal = torch.eye(8).repeat(2, 1, 1)
    assert uniformity(orthogonal) == pytest.approx(-4)


def test_similarities_are_counted_and_their_quantiles_found(rows):
    online, target = unit_views(), F.normalize(unit_views() + unit_views().roll(1, 0), dim=-1)
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    positives, negatives = similarity_counts([(online[i], target[j]) for i, j in pairs], 2000)
    cosine = np.einsum('ind,jmd->injm', online.double().numpy(), target.double().numpy())
    own = [cosine[i, n, j, n] for i, j in pairs for n in range(13)]
    others = [cosine[i, n, j, m] for i, j in pairs for n in range(13) for m in range(13) if n != m]
    for counts, values in ((positives, own), (negatives, others)):
        assert counts.sum() == len(values)
        # A count more or less where rounding moves a cosine over the edge of a bin.
        histogram, _ = np.histogram(values, 20, (-1, 1))
        assert np.abs(counts.view(20, -1).sum(1).numpy() - histogram).max() <= 1
        levels = (0.05, 0.5, 0.95)
        expected = np.quantile(values, levels, method='inverted_cdf')
        assert quantiles(counts, levels) == pytest.approx(expected, abs=1.5e-3)


def test_retrieval_finds_rows_of_the_same_number(rows):
    queries, gallery = unit_views(2) * torch.tensor([[[3.0]], [[0.2]]])
    x, y = queries.double().numpy(), gallery.double().numpy()
    cosine = (x @ y.T) / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(y, axis=1)
    expected = np.mean([max(range(13), key=lambda m: cosine[n, m]) == n for n in range(13)])
    assert 0 < expected < 1
    assert retrieval_top1(queries, gallery) == pytest.approx(100 * expected)
    assert retrieval_top1(torch.ones(8, 4), torch.ones(8, 4)) == 100 / 8
