"""Rows of the demo from frozen features, on tiny worlds."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from projects.miniscenes_study.frozen import (
    IN_CONTEXT,
    PROPAGATION,
    propagate_masks,
    segment_in_context,
)
from tests.conftest import REPO
from tests.helpers.demo_network import demo_checkpoint
from vito_mm.miniscenes.layouts import voc_palette, write_jpeg, write_labels
from vito_mm.miniscenes.sequences import write_davis_list
from vito_mm.probes.davis import find_sequences, score_sequence, summary
from vito_mm.probes.incontext import in_context_iou
from vito_mm.probes.loading import load_encoder, resnet
from vito_mm.transfer.identity import moved_data

SEED = 3


@pytest.fixture(scope='module')
def networks(tmp_path_factory):
    file = demo_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'vito.pth')
    return {'random': None, 'VITO': file}


@pytest.fixture(scope='module')
def encoders(networks):
    random = load_encoder(None, network=resnet(18, 32), seed=SEED, output_stride=8)
    return [random, load_encoder(networks['VITO'], output_stride=8)]


@pytest.fixture(scope='module')
def sequence(tmp_path_factory):
    """A square that moves over noise, in the layout of DAVIS 2017."""
    root = tmp_path_factory.mktemp('davis')
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    for kind in ('JPEGImages', 'Annotations'):
        (root / kind / '480p' / 'square').mkdir(parents=True)
    for number in range(4):
        place = np.s_[10:30, 8 * number : 8 * number + 20]
        image, mask = noise.copy(), np.zeros((48, 64), np.uint8)
        image[place], mask[place] = (200, 40, 40), 1
        write_jpeg(root / f'JPEGImages/480p/square/{number:05d}.jpg', image)
        write_labels(root / f'Annotations/480p/square/{number:05d}.png', mask, voc_palette())
    write_davis_list(root, ['square'])
    return root


def shapes(pictures):
    return [cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).shape for png in pictures]


def test_masks_are_propagated_by_each_network(sequence, networks, encoders, tmp_path):
    settings = replace(PROPAGATION, short_side=48)
    found = propagate_masks(sequence, networks, tmp_path, SEED, settings)
    (square,) = find_sequences(sequence)
    expected = [score_sequence(each, square, 'res4', settings) for each in encoders]
    assert found.scores == [summary({'square': each})['J&F'] for each in expected]
    assert found.scores[0] != found.scores[1]
    assert found.row == (found.task, found.metric, *found.scores)
    assert shapes(found.pictures) == [(3 * 120, 6 * 160, 3)]  # given, and of each network


def test_in_context_rows_are_of_each_network(miniscenes, networks, encoders, tmp_path):
    cfg = Config.fromfile(REPO / 'configs/miniscenes/seg_pascal.py')
    cfg.merge_from_dict(moved_data(cfg, str(miniscenes['pascal'])))
    settings = replace(IN_CONTEXT, size=64)
    found = segment_in_context(cfg, networks, tmp_path, SEED, settings)
    data = (cfg[f'{part}_dataloader'].dataset for part in ('train', 'val'))
    data = [*data, settings, 'res4']
    expected = [in_context_iou(each, *data, workers=0)['mIoU'] for each in encoders]
    assert found.scores == pytest.approx(expected)
    assert expected[0] != expected[1]
    assert shapes(found.pictures) == [(4 * 160, 4 * 160, 3)]  # four stills: image, truth, networks
