"""Exact search against sorting all products, and a vote counted by hand."""

import math

import numpy as np
import pytest
import torch

from vito_mm.probes import neighbours
from vito_mm.probes.knn import knn_top1


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
@pytest.mark.parametrize('elements', [1, 2**27])
@pytest.mark.parametrize('k', [1, 5, 200])
def test_blocks_find_what_sorting_everything_finds_and_of_equals_the_first(
    monkeypatch, device, elements, k
):
    if device == 'cuda' and not torch.cuda.is_available():
        pytest.skip('no GPU')
    monkeypatch.setattr(neighbours, '_ROWS', 7)
    monkeypatch.setattr(neighbours, '_ELEMENTS', elements)
    # Small integers: products are exact, and many are equal.
    queries, gallery = (
        torch.randint(-2, 3, (n, 6), generator=torch.Generator().manual_seed(n)).to(device).float()
        for n in (30, 100)
    )
    values, indices = neighbours.nearest(queries, gallery, k)
    products = (queries.cpu().double() @ gallery.cpu().double().T).numpy()
    expected = np.argsort(-products, axis=1, kind='stable')[:, :k]
    np.testing.assert_array_equal(indices.cpu(), expected)
    np.testing.assert_array_equal(values.cpu(), np.take_along_axis(products, expected, axis=1))


def test_queries_decide_the_precision_and_there_may_be_none():
    gallery = torch.rand(10, 3)
    assert neighbours.nearest(gallery[:2].double(), gallery, 3)[0].dtype == torch.float64
    assert neighbours.nearest(gallery[:0], gallery, 3)[1].shape == (0, 3)


@pytest.mark.parametrize('rows', [1024, 7])
def test_vote_is_weighted_by_the_cosine(rows, monkeypatch):
    monkeypatch.setattr(neighbours, '_ROWS', rows)
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(40, 5)), rng.normal(size=(25, 5))
    train_labels, test_labels = rng.integers(0, 4, 40), rng.integers(0, 4, 25)
    correct = 0
    for x, label in zip(test, test_labels, strict=True):
        cosine = train @ x / np.linalg.norm(train, axis=1) / np.linalg.norm(x)
        votes = [0.0] * 4
        for neighbour in np.argsort(-cosine)[:7]:
            votes[train_labels[neighbour]] += math.exp(cosine[neighbour] / 0.07)
        correct += int(np.argmax(votes) == label)
    found = knn_top1(*(torch.from_numpy(x) for x in (train, train_labels, test, test_labels)), k=7)
    assert found == pytest.approx(100 * correct / 25)


def test_more_neighbours_than_images_is_fine():
    features, labels = torch.eye(3), torch.arange(3)
    assert knn_top1(features, labels, features, labels, k=20) == 100
