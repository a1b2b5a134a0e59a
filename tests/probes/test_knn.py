"""Features of image folders, and nearest-neighbour accuracy against a vote counted by hand."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.image_folders import write_classes
from vito_mm.checkpoint import CheckpointError
from vito_mm.probes import knn
from vito_mm.probes.image_folders import (
    ProbeError,
    frozen_resnet,
    labelled_images,
    pooled_features,
    train_and_val,
)
from vito_mm.probes.knn import checkpoint_knn, knn_top1


@pytest.mark.parametrize('rows', [1024, 7])
def test_vote_is_weighted_by_the_cosine(rows, monkeypatch):
    monkeypatch.setattr(knn, '_ROWS', rows)
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
    return write_classes(tmp_path, ('dark', 'light'))


@pytest.mark.parametrize('workers', [0, 2])
def test_features_are_those_of_the_centre(folder, workers):
    identity = torch.nn.Conv2d(3, 3, 1, bias=False)
    torch.nn.init.dirac_(identity.weight)
    images = labelled_images(folder / 'val')
    assert images.labels.tolist() == [0] * 6 + [1] * 6
    assert images.classes == ('dark', 'light')
    found = pooled_features(identity, images, image_size=32, batch_size=5, workers=workers)
    for file, features in zip(images.files, found, strict=True):
        with Image.open(file) as image:
            centre = np.asarray(image.resize((40, 32), Image.Resampling.BICUBIC))[:, 4:36] / 255
        expected = (centre.mean(axis=(0, 1)) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(features, expected, atol=1e-4)


def test_features_are_those_of_the_checkpoint_in_evaluation_mode(checkpoints, online, folder):
    images = labelled_images(folder / 'val')
    found = pooled_features(frozen_resnet(checkpoints['training'], 18), images, image_size=32)
    fc, online.fc = online.fc, torch.nn.Identity()
    expected = pooled_features(_AsMaps(online), images, image_size=32)
    online.fc = fc
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


class _AsMaps(torch.nn.Module):
    """A network that pools by itself, its features as maps of one position."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)[..., None, None]


def test_random_weights_follow_from_the_seed_alone():
    state = torch.get_rng_state()
    one, other, third = (frozen_resnet(None, 18, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not torch.equal(one['conv1.weight'], third['conv1.weight'])


def test_random_resnet_tells_bright_from_dark(folder):
    assert checkpoint_knn(None, folder, depth=18, image_size=32, k=3) == 100


def test_a_missing_checkpoint_is_named(folder):
    with pytest.raises(CheckpointError, match='gone'):
        checkpoint_knn(folder / 'gone.pth', folder, depth=18)


def test_target_network_on_request(checkpoints, target):
    found = frozen_resnet(checkpoints['training'], 18, which='target').state_dict()
    assert torch.equal(found['conv1.weight'], target.conv1.weight)


@pytest.mark.parametrize('workers', [0, 1])
def test_an_unreadable_image_is_named_in_one_line(folder, workers):
    (folder / 'train/light/3.png').write_bytes(b'no image')
    told = r'train/light/3\.png: not readable as an image\. .*remove'
    with pytest.raises(ProbeError, match=told) as caught:
        checkpoint_knn(None, folder, depth=18, image_size=32, workers=workers)
    assert '\n' not in str(caught.value)


def test_what_is_wrong_with_a_folder_is_named(folder):
    with pytest.raises(ProbeError, match=r'no folder .*nowhere/train'):
        train_and_val(folder / 'nowhere')

    (folder / 'val/grey').mkdir()
    with pytest.raises(ProbeError, match=r'val has classes without an image: grey'):
        train_and_val(folder)
    (folder / 'val/dark/0.png').rename(folder / 'val/grey/0.png')
    with pytest.raises(ProbeError, match=r'train lacks classes of \S+val: grey'):
        train_and_val(folder)

    (folder / 'lone').mkdir()
    for part in ('train', 'val'):
        (folder / 'lone' / part).mkdir()
    with pytest.raises(ProbeError, match='train has no sub-folders'):
        train_and_val(folder / 'lone')
    for part in ('train', 'val'):
        (folder / part / 'dark').rename(folder / 'lone' / part / 'dark')
    with pytest.raises(ProbeError, match='one class, dark'):
        train_and_val(folder / 'lone')
