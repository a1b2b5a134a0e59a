"""Nearest-neighbour accuracy against a vote counted by hand."""

import math

import numpy as np
import pytest
import torch

from vito_mm.probes import neighbours
from vito_mm.probes.knn import knn_top1


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
