"""The segmentation and detection configs: what they build is what the checkpoint holds."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torchvision.models import resnet50

from tests.helpers.demo_network import demo_checkpoint
from vito_mm.checkpoint import CheckpointError

CONFIGS = Path(__file__).parents[2] / 'configs'
PAPER = ('seg/vito_ade20k', 'seg/vito_pascal', 'det/vito_coco', 'det/vito_lvis')
FULL = (*PAPER, *(f'{name}_stock' for name in PAPER))
SMALL = tuple(
    f'miniscenes/{name}'
    for name in ('seg_ade20k', 'seg_pascal', 'det_coco', 'det_coco_fcos', 'det_lvis')
)


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """A training checkpoint for each depth, by depth."""
    folder = tmp_path_factory.mktemp('checkpoints')
    torch.manual_seed(0)
    weights = {f'backbone.{k}': v for k, v in resnet50().state_dict().items() if k[:3] != 'fc.'}
    torch.save({'state_dict': weights, 'meta': {'iter': 1}}, folder / 'r50.pth')
    return {18: demo_checkpoint(folder / 'r18.pth'), 50: folder / 'r50.pth'}


def _load(name, checkpoint):
    """As ``--cfg-options model.backbone.checkpoint=...`` does."""
    config = Config.fromfile(CONFIGS / f'{name}.py')
    config.merge_from_dict({'model.backbone.checkpoint': checkpoint and str(checkpoint)})
    return config


def _build(config):
    with DefaultScope.overwrite_default_scope(config.default_scope):
        return MODELS.build(config.model)


@pytest.mark.parametrize('name', FULL + SMALL)
def test_starts_from_the_whole_checkpoint_and_trains_all_of_it(name, checkpoints):
    depth = 50 if name in FULL else 18
    model = _build(_load(name, checkpoints[depth]))
    model.init_weights()
    weights = torch.load(checkpoints[depth])['state_dict']
    found = model.backbone.state_dict()
    assert {f'backbone.{k}' for k in found} == set(weights)
    for key, value in found.items():
        assert torch.equal(value, weights[f'backbone.{key}']), key
    model.train()
    assert all(p.requires_grad for p in model.backbone.parameters())
    assert all(m.training for m in model.backbone.modules())


@pytest.mark.parametrize('name', FULL + SMALL)
def test_fetches_nothing_and_evaluates_on_this_numpy(name):
    text = Config.fromfile(CONFIGS / f'{name}.py').pretty_text
    for address in ('open-mmlab://', 'torchvision://', 'https://'):
        assert address not in text
    assert "type='LVISMetric'" not in text
    assert text.count("type='FasterLVISMetric'") == (2 if 'lvis' in name else 0)


@pytest.mark.parametrize('name', ['seg/vito_ade20k', 'det/vito_coco'])
def test_random_start_needs_no_file(name):
    model = _build(_load(name, None))
    model.init_weights()
    assert model.backbone.checkpoint is None


@pytest.mark.parametrize('name', ['miniscenes/seg_pascal', 'miniscenes/det_coco'])
def test_one_clear_error_each(name, checkpoints, tmp_path):
    text = tmp_path / 'notes.pth'
    text.write_text('no weights in here')
    for file, message in (
        (tmp_path / 'gone.pth', 'There is no checkpoint .*gone'),
        (text, 'notes.pth is no PyTorch checkpoint'),
        (checkpoints[50], 'Only .*backbone keys'),
    ):
        with pytest.raises(CheckpointError, match=message):
            _build(_load(name, file)).init_weights()


def test_runs_in_mmseg_without_a_process_group(checkpoints):
    """SyncBN, as in the stock configs, must not need several processes (mmseg #2513)."""
    config = _load('miniscenes/seg_pascal', checkpoints[18])
    assert config.model.backbone.norm_cfg.type == 'SyncBN'
    model = _build(config)
    model = revert_sync_batchnorm(model)  # as MMEngine's Runner does
    model.init_weights()
    weights = torch.load(checkpoints[18])['state_dict']
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, weights[f'backbone.{key}']), key
    assert len(model.extract_feat(torch.rand(2, 3, 64, 64))) == 4
