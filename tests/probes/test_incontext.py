"""In-context segmentation against a direct computation, and on MiniScenes."""

import numpy as np
import pytest
import torch
from mmengine.config import Config

from tests.conftest import REPO
from vito_mm.probes import incontext
from vito_mm.probes.encoder import Encoder
from vito_mm.probes.image_folders import ProbeError
from vito_mm.probes.incontext import (
    InContext,
    LabelledSquares,
    Memory,
    build_memory,
    choose_patches,
    evaluate,
    in_context_iou,
    patch_labels,
    segment,
)
from vito_mm.probes.record import Record
from vito_mm.transfer.identity import moved_data


class Pooled(torch.nn.Module):
    """Mean and spread of colours of 8 x 8 pixels."""

    def __init__(self):
        super().__init__()
        self.layer1 = torch.nn.Identity()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        pool = torch.nn.functional.avg_pool2d
        mean = pool(x, 8)
        return self.layer1(torch.cat([mean, (pool(x**2, 8) - mean**2).clamp(min=0).sqrt()], 1))


@pytest.fixture
def encoder():
    return Encoder(Pooled(), lambda images: images.float() / 255 - 0.5)


@pytest.fixture(scope='module')
def config(miniscenes):
    cfg = Config.fromfile(REPO / 'configs/miniscenes/seg_pascal.py')
    cfg.merge_from_dict(moved_data(cfg, str(miniscenes['pascal'])))
    return cfg


def test_patch_labels_are_pixel_counts():
    labels = torch.randint(0, 4, (2, 11, 13), dtype=torch.uint8)
    labels[labels == 3] = 255
    found = patch_labels(labels, (2, 3), 3).view(2, 2, 3, 3)
    for n in range(2):
        for y in range(11):
            for x in range(13):
                if labels[n, y, x] < 3:
                    found[n, y * 2 // 11, x * 3 // 13, int(labels[n, y, x])] -= 1
    assert (found == 0).all()


def test_patches_of_rare_classes_come_first():
    counts = torch.zeros(100, 3, dtype=torch.int64)
    counts[:, 0] = 64
    counts[7:10] = torch.tensor([0, 64, 0])
    counts[50] = 0  # no label at all
    generator = torch.Generator().manual_seed(0)
    chosen = [set(choose_patches(counts, 10, generator).tolist()) for _ in range(50)]
    rare = np.mean([{7, 8, 9} <= each for each in chosen])
    assert rare > 0.9  # three of 100, if all were alike: 0.1 %
    assert not any(50 in each for each in chosen)
    assert len(choose_patches(counts, 1000, generator)) == 99


def test_labels_are_those_of_the_nearest_patches():
    rng = np.random.default_rng(0)
    queries, keys, labels = (rng.normal(size=s) for s in ((7, 4), (50, 4), (50, 3)))
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    tensors = [torch.from_numpy(x).half() for x in (keys, labels)]
    found = segment(torch.from_numpy(queries).float(), Memory(*tensors), 5, 0.02)
    keys, labels = (x.double().numpy() for x in tensors)
    for query, mine in zip(queries, found, strict=True):
        cosines = keys @ query / np.linalg.norm(query)
        best = np.argsort(-cosines)[:5]
        weights = np.exp(cosines[best] / 0.02 - cosines.max() / 0.02)
        np.testing.assert_allclose(mine, weights @ labels[best] / weights.sum(), rtol=1e-3)


def test_memory_is_shared_equally_and_repeats(config, encoder):
    settings = InContext(size=64, memory=100, epochs=2, seed=3)
    data = config.train_dataloader.dataset
    first, again = (build_memory(encoder, data, settings, workers=w) for w in (0, 2))
    images = len(LabelledSquares(data, settings))
    assert len(first.features) == 2 * images * (100 // (2 * images))
    assert torch.equal(first.features, again.features)
    assert torch.equal(first.labels, again.labels)
    np.testing.assert_allclose(first.labels.float().sum(1), 1, atol=2e-3)
    np.testing.assert_allclose(first.features.float().norm(dim=1), 1, atol=2e-3)
    other = build_memory(encoder, data, InContext(size=64, memory=100, epochs=2, seed=4), workers=0)
    assert not torch.equal(first.features, other.features)


def test_its_own_training_images_are_segmented_well(config, encoder):
    """A query's own patch is its nearest, so only the coarse grid costs accuracy."""
    data = config.train_dataloader.dataset
    settings = InContext(size=128, neighbours=1, epochs=0)
    own = in_context_iou(encoder, data, data, settings, workers=0)
    squares = LabelledSquares(data, settings)
    labels = torch.stack([squares[i][1] for i in range(len(squares))])
    classes = len(squares.classes)
    counts = patch_labels(labels, (16, 16), classes)
    shares = counts.float().transpose(1, 2).unflatten(2, (16, 16)) / 64
    large = torch.nn.functional.interpolate(shares, size=128, mode='bilinear').argmax(1)
    pairs = [((large == c) & (labels == c), (large == c) | (labels == c)) for c in range(classes)]
    expected = [100 * float(a.sum() / b.sum()) for a, b in pairs if b.any()]
    assert own['mIoU'] == pytest.approx(np.mean(expected), abs=1.5)
    other = in_context_iou(encoder, data, config.val_dataloader.dataset, settings, workers=0)
    assert other['mIoU'] < own['mIoU']
    assert set(own['IoU']) == set(squares.classes)


def test_seeds_follow_the_first_one(config, encoder, tmp_path):
    parts = [config[f'{part}_dataloader'].dataset for part in ('train', 'val')]
    sizes = dict(size=64, memory=100, neighbours=3)
    record = Record(tmp_path / 'a.json', {})
    found = evaluate(encoder, *parts, InContext(**sizes, seed=3), 2, record, workers=0)
    alone = [
        in_context_iou(encoder, *parts, InContext(**sizes, seed=seed), workers=0) for seed in (3, 4)
    ]
    scores = [each['mIoU'] for each in alone]
    assert [each['mIoU'] for each in found] == scores
    assert scores[0] != scores[1]
    assert list(record.parts) == ['seed 3', 'seed 4']


def test_a_memory_that_does_not_fit_names_the_option(config, encoder, monkeypatch):
    monkeypatch.setattr(incontext.os, 'sysconf', lambda name: 10)
    with pytest.raises(ProbeError, match='--memory'):
        build_memory(encoder, config.train_dataloader.dataset, InContext(size=64), workers=0)
