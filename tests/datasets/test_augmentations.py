"""The shipped augmentations, against the constants of the paper."""

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import init_default_scope
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop, functional

from tests.conftest import REPO
from vito_mm.datasets import RandomGaussianBlur

CONFIG = Config.fromfile(REPO / 'configs/vito/pretrain_r50.py')
PIPELINES = CONFIG.train_dataloader.dataset.pipeline.augment.pipelines


def image(seed: int = 0, size: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


def only(name: str, augmentation: str = 'A1') -> Compose:
    """One transform of the shipped pipeline."""
    init_default_scope('mmpretrain')
    steps = [
        step
        for step in PIPELINES[augmentation].values()
        if name in (step['type'], step.get('transforms', [{}])[0].get('type'))
    ]
    assert len(steps) == 1
    return Compose(steps)


@pytest.mark.parametrize('sigma', [0.1, 0.7, 2.0])
def test_blur_is_torchvisions_gaussian_of_23_pixels(sigma):
    img = image()
    ours = RandomGaussianBlur(23, (sigma, sigma)).transform(dict(img=img))['img']
    theirs = functional.gaussian_blur(torch.from_numpy(img).permute(2, 0, 1), 23, sigma)
    difference = ours.astype(int) - theirs.permute(1, 2, 0).numpy()
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ('name', 'augmentation', 'probability'),
    [
        ('RandomGaussianBlur', 'A1', 1.0),
        ('RandomGaussianBlur', 'A2', 0.1),
        ('Solarize', 'A2', 0.2),
        ('RandomGrayscale', 'A1', 0.2),
        ('RandomFlip', 'A1', 0.5),
        ('ColorJitter', 'A1', 0.8),
    ],
)
def test_probabilities(name, augmentation, probability):
    np.random.seed(0)
    import random

    random.seed(0)
    step, img, n = only(name, augmentation), image(size=16), 1500
    changed = sum(
        not np.array_equal(step(dict(img=img.copy(), img_shape=img.shape[:2]))['img'], img)
        for _ in range(n)
    )
    # Four standard deviations; a blur of sigma 0.1 and a jitter near 1 leave some images as they
    # are.
    slack = 4 * np.sqrt(probability * (1 - probability) / n) + 0.12 * probability
    assert changed / n == pytest.approx(probability, abs=slack)


def test_view_1_has_no_solarize():
    assert 'Solarize' not in [step['type'] for step in PIPELINES.A1.values()]


def test_solarize_threshold_is_half_of_the_range():
    img = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    step = only('Solarize', 'A2')
    step.transforms[0].prob = 1.0
    levels = img.astype(float) / 255
    expected = np.where(levels < 0.5, levels, 1 - levels)
    np.testing.assert_allclose(step(dict(img=img))['img'] / 255, expected, atol=1e-9)


def test_grey_has_luma_weights_in_bgr_order():
    step = only('RandomGrayscale')
    step.transforms[0].prob = 1.0
    for channel, weight in enumerate((0.114, 0.587, 0.299)):
        img = np.zeros((2, 2, 3), np.uint8)
        img[..., channel] = 200
        grey = step(dict(img=img))['img']
        assert grey.shape == (2, 2, 3)
        assert (grey == int(200 * weight)).all()


def test_crop_has_the_distribution_of_torchvisions():
    np.random.seed(0)
    torch.manual_seed(0)
    crop = only('RandomResizedCrop').transforms[0]
    img = np.zeros((400, 600, 3), np.uint8)
    ours = np.array([crop.rand_crop_params(img) for _ in range(3000)], float)
    theirs = np.array(
        [
            RandomResizedCrop.get_params(torch.zeros(3, 400, 600), (0.4, 1.0), (3 / 4, 4 / 3))
            for _ in range(3000)
        ],
        float,
    )
    for ours_column, theirs_column in zip(ours.T, theirs.T, strict=True):
        assert ks_2samp(ours_column, theirs_column).pvalue > 1e-3
    assert ours[:, 2:].prod(axis=1).min() >= 0.399 * 400 * 600
    assert (crop.scale, crop.interpolation) == ((224, 224), 'bicubic')


def test_jitter_ranges_and_random_order():
    np.random.seed(0)
    jitter = only('ColorJitter').transforms[0].transforms.transforms[0]
    draws = [jitter._rand_params() for _ in range(4000)]
    for index, (low, high) in enumerate([(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)], 1):
        values = np.array([draw[index] for draw in draws])
        assert values.min() == pytest.approx(low, abs=0.01)
        assert values.max() == pytest.approx(high, abs=0.01)
    assert len({tuple(draw[0]) for draw in draws}) == 24


@pytest.mark.parametrize('hue', [-0.1, -0.03, 0.07])
def test_hue_shifts_both_ways(hue):
    """mmcv 2.1.0 fails on negative shifts with numpy 2; see vito_mm/compat.py."""
    import mmcv

    img = cv2.cvtColor(
        np.dstack([np.arange(256), np.full(256, 200), np.full(256, 180)]).astype(np.uint8),
        cv2.COLOR_HSV2BGR_FULL,
    )
    shifted = mmcv.adjust_hue(img, hue, backend='cv2')
    before, after = (
        cv2.cvtColor(x, cv2.COLOR_BGR2HSV_FULL)[0, :, 0].astype(float) for x in (img, shifted)
    )
    turn = (after - before + 128) % 256 - 128
    np.testing.assert_allclose(turn, hue * 255, atol=2.5)


@pytest.mark.parametrize(
    ('kwargs', 'name'),
    [
        (dict(kernel_size=22), 'kernel_size'),
        (dict(sigma=(2.0, 1.0)), 'sigma'),
        (dict(prob=2), 'prob'),
    ],
)
def test_bad_blur_settings_are_named(kwargs, name):
    with pytest.raises(ValueError, match=name):
        RandomGaussianBlur(**kwargs)
