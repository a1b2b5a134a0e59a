"""Curves and predictions, the latter from tiny models whose output is known beforehand."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from tests.conftest import REPO
from vito_mm.miniscenes import make_miniscenes
from vito_mm.transfer.report.pictures import (
    Box,
    Curve,
    Stills,
    draw_curves,
    draw_predictions,
    load_stills,
    predict,
    run_colours,
)

SOFA, CLOCK = 18, 74
"""Index of the class in VOC and in COCO that the models below always answer."""


def decode(png: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture[..., ::-1]


def make_run(config: str, root: str, answer: int, folder) -> Config:
    """A work dir with config and checkpoint of a model that answers one class wherever it looks."""
    cfg = Config.fromfile(REPO / 'configs' / 'miniscenes' / config)
    cfg.merge_from_dict({'model.backbone.checkpoint': None})
    for part in ('val', 'test'):
        cfg[f'{part}_dataloader'].dataset.data_root = f'{root}/'
    package = 'mmseg' if config.startswith('seg') else 'mmdet'
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(package):
        model = MODELS.build(cfg.model)
    head = model.decode_head.conv_seg if package == 'mmseg' else model.roi_head.bbox_head.fc_cls
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.bias[answer] = 20.0
    folder.mkdir(parents=True, exist_ok=True)
    cfg.dump(folder / config)
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'iter_2.pth')
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_2.pth'))
    return cfg


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('miniscenes')
    return make_miniscenes(root, preset='tiny', workers=0, tasks=('voc', 'coco'), progress=False)


@pytest.fixture(scope='session')
def segmenter(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('segmenter')
    return folder, make_run('seg_pascal.py', data['voc'], SOFA, folder)


@pytest.fixture(scope='session')
def detector(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('detector')
    return folder, make_run('det_coco.py', data['coco'], CLOCK, folder)


def test_a_segmenter_is_run_on_validation_images_beside_their_truth(segmenter):
    folder, cfg = segmenter
    stills = load_stills(cfg, 'mmseg', 2)
    assert stills.classes[SOFA] == 'sofa'
    assert len(stills.images) == len(stills.truths) == 2
    predicted = predict(cfg, 'mmseg', folder / 'iter_2.pth', stills)
    for image, truth, labels in zip(stills.images, stills.truths, predicted, strict=True):
        assert truth.shape == labels.shape == image.shape[:2]
        assert len(np.unique(truth)) > 1
        assert (labels == SOFA).all()
    (png,) = draw_predictions(stills, dict(random=predicted))
    picture = decode(png)
    # The last of three columns is one colour, which the truth does not have as its ground.
    assert len(np.unique(picture[60:160, -150:-100].reshape(-1, 3), axis=0)) == 1
    assert tuple(picture[100, -120]) not in {(255, 255, 255), (235, 235, 235)}


def test_a_detector_is_run_on_images_that_hold_an_object(detector):
    folder, cfg = detector
    stills = load_stills(cfg, 'mmdet', 2)
    assert stills.classes[CLOCK] == 'clock'
    assert all(truth and all(isinstance(box, Box) for box in truth) for truth in stills.truths)
    predicted = predict(cfg, 'mmdet', folder / 'iter_2.pth', stills)
    for image, boxes in zip(stills.images, predicted, strict=True):
        assert boxes
        assert {box.label for box in boxes} == {CLOCK}
        assert all(0.9 < box.score <= 1 for box in boxes)
        height, width = image.shape[:2]
        assert all(0 <= box.corners[0] <= box.corners[2] <= width for box in boxes)
        assert all(0 <= box.corners[1] <= box.corners[3] <= height for box in boxes)
    (png,) = draw_predictions(stills, {'random': predicted})
    decode(png)


def test_the_scope_of_the_registries_is_left_as_it_was(segmenter):
    folder, cfg = segmenter
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        predict(cfg, 'mmseg', folder / 'iter_2.pth', load_stills(cfg, 'mmseg', 1))
        assert DefaultScope.get_current_instance().scope_name == 'mmpretrain'


def test_a_checkpoint_of_another_model_is_an_error(segmenter, detector):
    stills = load_stills(segmenter[1], 'mmseg', 1)
    with pytest.raises(RuntimeError, match='not match'):
        predict(segmenter[1], 'mmseg', detector[0] / 'iter_2.pth', stills)


def stills_of(truth: np.ndarray, classes: tuple[str, ...]) -> Stills:
    return Stills(classes, [np.zeros((*truth.shape, 3), np.uint8)], [truth], [{}])


def test_classes_get_colours_that_differ_whatever_their_number():
    truth = np.arange(200).repeat(40).reshape(80, 100).astype(np.uint8)
    truth[:, :5] = 255
    stills = stills_of(truth, tuple(f'${i}_<&>' for i in range(254)))
    prediction = np.full_like(truth, 3)
    (png,) = draw_predictions(stills, {'_a $x$': [prediction]})
    assert decode(png).size


def test_the_class_that_covers_most_is_the_light_ground():
    truth = np.full((48, 64), 1, np.uint8)
    truth[10:20, 10:20] = 0
    (png,) = draw_predictions(stills_of(truth, ('a', 'b')), {'x': [truth]})
    assert (decode(png) == 235).all(axis=-1).mean() > 0.3


def test_many_runs_are_spread_over_pictures():
    truth = np.eye(24, dtype=np.uint8)
    stills = stills_of(truth, ('a', 'b'))
    pngs = draw_predictions(stills, {f'run {i}': [truth] for i in range(9)})
    assert len(pngs) == 3
    for png in pngs:
        decode(png)


def test_no_detection_at_all_draws_the_images():
    image = np.full((48, 64, 3), 128, np.uint8)
    truth = [Box((10, 10, 30, 30), 0)]
    stills = Stills(('a',), [image], [truth], [{}])
    assert decode(draw_predictions(stills, {'x': [[]]})[0]).size


def test_curves_of_any_length_and_number():
    long = (list(range(5000)), np.linspace(5, 1, 5000).tolist())
    diverged = ([1, 2, 3], [1.0, float('nan'), float('inf')])
    curves = [Curve('$a_', 'red', [long, long]), Curve('_b', 'blue', [diverged])]
    assert decode(draw_curves({'one': curves, 'two': curves[:1], 'three': []})).shape[1] > 500
    assert decode(draw_curves({'one': curves[1:]})).size


def test_curves_of_seeds_that_share_no_step_have_no_mean_and_no_error():
    curve = Curve('a', 'red', [([1, 3], [1.0, 2.0]), ([2, 4], [1.0, 2.0])])
    assert decode(draw_curves({'one': [curve]})).size


def test_random_weights_are_grey_and_others_differ():
    colours = run_colours(['random', 'a', 'b', 'a'])
    assert set(colours) == {'random', 'a', 'b'}
    assert len(set(colours.values())) == 3
    assert run_colours(['a', 'b'])['a'] == colours['a']
