"""Predictions of tiny models whose output is known beforehand."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from tests.helpers.answering_models import CLOCK, SOFA
from vito_mm.visualization.predictions import Samples, draw_predictions, load_samples, predict


def decode(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_a_segmenter_is_run_on_validation_images_next_to_their_truth(segmenter):
    folder, cfg = segmenter
    samples = load_samples(cfg, 'mmseg', 2)
    assert samples.meta['classes'][SOFA] == 'sofa'
    assert len(samples.images) == len(samples.truths) == 2
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        predicted = predict(cfg, folder / 'iter_2.pth', samples)
        assert DefaultScope.get_current_instance().scope_name == 'mmpretrain'
    for image, truth, labels in zip(samples.images, samples.truths, predicted, strict=True):
        assert truth.shape == labels.shape == image.shape[:2]
        assert len(np.unique(truth)) > 1
        assert (labels == SOFA).all()
    (png,) = draw_predictions(samples, dict(random=predicted))
    picture = decode(png)
    # The last of three columns has the image under the colour of the class, away from its label.
    corner = picture[-60:-20, -60:-20].astype(float)
    image = picture[-60:-20, 260:300].astype(float)
    expected = 0.8 * np.array(samples.meta['palette'][SOFA]) + 0.2 * image
    assert np.abs(corner - expected).max() < 4


def test_a_detector_is_run_on_images_that_hold_an_object(detector):
    folder, cfg = detector
    samples = load_samples(cfg, 'mmdet', 2)
    assert samples.meta['classes'][CLOCK] == 'clock'
    assert all(len(truth) and 'scores' not in truth for truth in samples.truths)
    predicted = predict(cfg, folder / 'iter_2.pth', samples)
    for image, found in zip(samples.images, predicted, strict=True):
        assert 0 < len(found) <= 30
        assert set(found.labels.tolist()) == {CLOCK}
        assert ((found.scores > 0.9) & (found.scores <= 1)).all()
        height, width = image.shape[:2]
        assert (found.bboxes >= 0).all()
        assert (found.bboxes <= torch.tensor([width, height, width, height])).all()
    (png,) = draw_predictions(samples, {'random': predicted})
    assert not np.array_equal(decode(png)[60:200, :200], decode(png)[60:200, -200:])


def test_a_checkpoint_of_another_model_is_an_error(segmenter, detector):
    samples = load_samples(segmenter[1], 'mmseg', 1)
    with pytest.raises(RuntimeError, match='not match'):
        predict(segmenter[1], detector[0] / 'iter_2.pth', samples)


def test_many_runs_are_spread_over_pictures_and_other_names_are_drawn():
    truth = np.arange(200).repeat(40).reshape(80, 100).astype(np.uint8)
    truth[:, :5] = 255
    meta = dict(classes=[f'${i}_<&>' for i in range(254)], palette=[[i, 9, 9] for i in range(254)])
    samples = Samples('mmseg', meta, [np.zeros((80, 100, 3), np.uint8)], [truth], [{}])
    pngs = draw_predictions(samples, {f'_run {i} $x$ \ud800': [truth] for i in range(6)})
    assert [decode(png).shape[1] // 320 for png in pngs] == [6, 4]


def test_boxes_lie_where_they_are_and_no_box_leaves_the_image():
    image = np.full((60, 80, 3), 128, np.uint8)
    truth = InstanceData(bboxes=torch.tensor([[20.0, 15.0, 60.0, 45.0]]), labels=torch.tensor([0]))
    none = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=int), scores=torch.zeros(0)
    )
    samples = Samples('mmdet', dict(classes=('a',), palette=[(220, 20, 60)]), [image], [truth], [])
    (png,) = draw_predictions(samples, {'x': [none]})
    plain, drawn, empty = (decode(png)[22:262, x : x + 320].astype(int) for x in (0, 324, 648))
    assert (plain == 128).all()
    assert (empty == 128).all()
    rows, columns = np.nonzero((drawn[..., 0] - drawn[..., 1]) > 50)
    assert np.abs(np.array([columns.min(), columns.max()]) - [80, 240]).max() <= 3
    assert np.abs(np.array([rows.min(), rows.max()]) - [60, 180]).max() <= 3
    beyond = InstanceData(bboxes=torch.tensor([[-9.0, -9.0, 99.0, 99.0]]), labels=truth.labels)
    (png,) = draw_predictions(samples, {'x': [beyond]})
    assert (decode(png)[102:182, 728:888] == 128).all()
