"""Nearest-neighbour accuracy, against a vote counted by hand."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from vito_mm.transfer import CheckpointError
from vito_mm.transfer.knn import checkpoint_knn, image_folder_features, knn_top1


def test_vote_is_weighted_by_the_cosine():
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


@pytest.fixture
def folder(tmp_path):
    """Two classes, told apart by brightness."""
    rng = np.random.default_rng(0)
    for part in ('train', 'val'):
        for name, level in (('dark', 40), ('light', 200)):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(6):
                image = level + rng.integers(-20, 20, (40, 50, 3))
                Image.fromarray(image.astype(np.uint8)).save(
                    tmp_path / part / name / f'{index}.png'
                )
    return tmp_path


def test_features_are_those_of_the_centre(folder):
    identity = torch.nn.Conv2d(3, 3, 1, bias=False)
    torch.nn.init.dirac_(identity.weight)
    features, labels = image_folder_features(identity, folder / 'val', image_size=32)
    assert labels.tolist() == [0] * 6 + [1] * 6
    with Image.open(folder / 'val' / 'dark' / '0.png') as image:
        centre = np.asarray(image.resize((40, 32), Image.Resampling.BICUBIC))[:, 4:36] / 255
    expected = (centre.mean(axis=(0, 1)) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(features[0], expected, atol=1e-4)


def test_random_resnet_tells_bright_from_dark(folder):
    assert checkpoint_knn(None, folder, depth=18, image_size=32, k=3) == 100


def test_a_missing_checkpoint_is_named(folder):
    with pytest.raises(CheckpointError, match='gone'):
        checkpoint_knn(folder / 'gone.pth', folder, depth=18)
