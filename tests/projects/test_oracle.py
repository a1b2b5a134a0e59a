"""Pooling over the object's mask in pre-training, against renderings and sums over pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from mmpretrain.models import ResNet
from torch.nn.functional import interpolate

from projects.miniscenes_study.oracle import (
    OracleAugmentation,
    OracleFrames,
    OraclePreprocessor,
    OracleResNet,
)
from projects.miniscenes_study.presets import PRESETS
from projects.miniscenes_study.runs import Study, row_config
from tests.conftest import REPO
from vito_mm.checkpoint import load_backbone
from vito_mm.launch import build_runner, fit_to_machine
from vito_mm.miniscenes import get_preset, make_miniscenes
from vito_mm.miniscenes.render import render_scene
from vito_mm.miniscenes.videos import draw_scenes, draw_script

WORLD = 'attention'
SIZES = dict(depth=18, stem_channels=8, base_channels=8, out_indices=(2, 3))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('oracle')
    make_miniscenes(folder, WORLD, num_videos=2, workers=2, tasks=('videos',), progress=False)
    return folder


def test_masks_are_where_the_picture_would_be_another_without_the_object(data):
    preset = get_preset(WORLD)
    given = dict(segment=6.0, segment_start=0.0, segment_offsets=np.array([0.7, 0.1, 0.45]))
    for index in range(2):
        file = str(data / 'videos' / f'video_{index:05d}.mp4')
        found = OracleFrames(WORLD).transform(dict(given, video_path=file))
        outline = draw_script(preset, 0, index).objects[-1].outline
        for frame, time in zip(found['imgs'], found['frame_times'], strict=True):
            (scene,) = draw_scenes(preset, 0, index, np.array([round(time * 25) / 25]))
            layers = [x for x in scene.layers if not np.array_equal(x[0].outline, outline)]
            assert len(layers) == len(scene.layers) - 1
            size = (preset.video_side,) * 2
            there = render_scene(scene, size)
            without = render_scene(replace(scene, layers=tuple(layers)), size)
            assert np.abs(frame[..., 2::-1].astype(int) - there).mean() < 8  # the same moment
            changed = np.abs(there.astype(int) - without).max(axis=2) > 6
            mask = frame[..., 3] == 255
            assert mask.sum() > 100
            assert (mask & changed).sum() > 0.85 * (mask | changed).sum()


@pytest.mark.parametrize('flip', [0.0, 1.0])
def test_the_mask_is_flipped_with_the_image_and_left_alone_otherwise(flip):
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 4), np.uint8)
    found = OracleAugmentation(flip_prob=flip, jitter_prob=1, grayscale_prob=1).transform(
        dict(img=image)
    )['img']
    np.testing.assert_array_equal(found[..., 3], image[:, :: -1 if flip else 1, 3])
    assert (found[..., 0] == found[..., 1]).all()  # grey


def test_masks_pass_the_preprocessor_by():
    preprocessor = OraclePreprocessor(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=True)
    views = [torch.randint(0, 256, (2, 4, 5, 5), dtype=torch.uint8) for _ in range(2)]
    found = preprocessor(dict(inputs=views, data_samples=None), True)['inputs']
    for view, got in zip(views, found, strict=True):
        rgb = view[:, [2, 1, 0]].double()
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([1, 2, 3], [4, 5, 6]))
        torch.testing.assert_close(got[:, :3].double(), (rgb - mean) / std)
        torch.testing.assert_close(got[:, 3], view[:, 3] / 255)


def test_mean_features_are_those_over_the_object():
    torch.manual_seed(0)
    plain, oracle = ResNet(**SIZES), OracleResNet(**SIZES)
    for network in (plain, oracle):
        network.eval()  # returns None
    oracle.load_state_dict(plain.state_dict())
    images, masks = torch.randn(3, 3, 64, 64), torch.zeros(3, 1, 64, 64)
    masks[0, 0, 3:40, 8:30] = 1
    masks[1, 0, 60:, 60:] = 1  # the third has none
    with torch.no_grad():
        maps, pooled = plain(images), oracle(torch.cat([images, masks], 1))
        for each, same, found in zip(maps, oracle(images), pooled, strict=True):
            torch.testing.assert_close(same, each)
            side = each.shape[2]
            share = interpolate(masks.double(), (side, side), mode='area')
            share[2] = 1
            wanted = (each * share).sum((2, 3)) / share.sum((2, 3))
            torch.testing.assert_close(found.mean((2, 3)).double(), wanted, rtol=1e-4, atol=1e-5)


def test_the_row_trains_and_leaves_the_weights_of_a_plain_network(data, tmp_path):
    settings = {
        'train_cfg.max_iters': 2,
        'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
    }
    preset = replace(PRESETS['attention'], settings=settings)
    cfg = row_config(Study(REPO, tmp_path, data, preset), 'oracle1')
    cfg.merge_from_dict(dict(work_dir=str(tmp_path / 'run'), launcher='none'))
    fit_to_machine(cfg)
    runner = build_runner(cfg)
    runner.train()
    plain = ResNet(18, stem_channels=16, base_channels=16, strides=(1, 1, 2, 2))
    plain.eval()
    load_backbone(plain, tmp_path / 'run' / 'iter_2.pth')
    image = torch.randn(1, 3, 96, 96)
    runner.model.eval()
    found, wanted = runner.model.extract_feat(image), plain(image)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)  # another memory format
