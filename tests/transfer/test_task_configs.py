"""The segmentation and detection configs: they start from all of a checkpoint."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torchvision.models import resnet50

from tests.conftest import REPO
from vito_mm.checkpoint import CheckpointError
from vito_mm.transfer.plan import checkpoint_bytes
from vito_mm.transfer.tasks import TASKS

FULL = [task.configs[protocol] for task in TASKS.values() for protocol in ('paper', 'stock')]
SMALL = [task.configs['miniscenes'] for task in TASKS.values()] + ['miniscenes/det_coco_fcos.py']


@pytest.fixture(scope='module')
def checkpoints(checkpoint, tmp_path_factory):
    """A training checkpoint for each depth, by depth."""
    file = tmp_path_factory.mktemp('checkpoints') / 'r50.pth'
    weights = {f'backbone.{k}': v for k, v in resnet50().state_dict().items() if k[:3] != 'fc.'}
    torch.save({'state_dict': weights, 'meta': {'iter': 1}}, file)
    return {18: checkpoint, 50: file}


def load(name, checkpoint=None):
    """As ``--cfg-options model.backbone.checkpoint=...`` does."""
    config = Config.fromfile(REPO / 'configs' / name)
    config.merge_from_dict({'model.backbone.checkpoint': checkpoint and str(checkpoint)})
    return config


def build(config, part):
    with DefaultScope.overwrite_default_scope(config.default_scope):
        return MODELS.build(part)


@pytest.mark.parametrize('name', FULL + SMALL)
def test_starts_from_the_complete_checkpoint_and_trains_all_of_it(name, checkpoints):
    file = checkpoints[50 if name in FULL else 18]
    config = load(name, file)
    backbone = build(config, config.model.backbone)
    backbone.init_weights()
    weights, found = torch.load(file)['state_dict'], backbone.state_dict()
    assert {f'backbone.{key}' for key in found} == set(weights)
    assert all(torch.equal(value, weights[f'backbone.{key}']) for key, value in found.items())
    backbone.train()
    assert all(p.requires_grad for p in backbone.parameters())
    assert all(m.training for m in backbone.modules())
    # The model around it can be built: its weights are more than the backbone's.
    training, trained = checkpoint_bytes(config)
    states = 2 if config.optim_wrapper.optimizer.type == 'AdamW' else 1
    assert training == trained * (1 + states)
    assert trained > sum(value.numel() * value.element_size() for value in found.values())


@pytest.mark.parametrize('name', FULL + SMALL)
def test_fetches_nothing_and_evaluates_on_this_numpy(name):
    text = load(name).pretty_text
    for address in ('open-mmlab://', 'torchvision://', 'https://'):
        assert address not in text
    assert "type='LVISMetric'" not in text
    assert text.count("type='FasterLVISMetric'") == (2 if 'lvis' in name else 0)


def test_one_clear_error_each_and_none_for_random_weights(checkpoints, tmp_path):
    text = tmp_path / 'notes.pth'
    text.write_text('no weights in here')
    for name in ('miniscenes/seg_pascal.py', 'miniscenes/det_coco.py'):
        config = load(name)
        build(config, config.model.backbone).init_weights()
        for file, message in (
            (tmp_path / 'gone.pth', 'There is no checkpoint .*gone'),
            (text, 'notes.pth is no PyTorch checkpoint'),
            (checkpoints[50], 'Only .*backbone keys'),
        ):
            config = load(name, file)
            with pytest.raises(CheckpointError, match=message):
                build(config, config.model.backbone).init_weights()


def test_runs_in_mmseg_without_a_process_group(checkpoints):
    """SyncBN, as in the stock configs, must not need several processes (mmseg #2513)."""
    config = load('miniscenes/seg_pascal.py', checkpoints[18])
    assert config.model.backbone.norm_cfg.type == 'SyncBN'
    model = revert_sync_batchnorm(build(config, config.model))  # as MMEngine's Runner does
    model.init_weights()
    weights = torch.load(checkpoints[18])['state_dict']
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, weights[f'backbone.{key}']), key
    assert len(model.extract_feat(torch.rand(2, 3, 64, 64))) == 4
