"""The segmentation and detection configs: they start from all of a checkpoint."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torchvision.models import resnet50

from tests.conftest import REPO
from vito_mm.transfer.tasks import TASKS
from vito_mm.transfer.variants import checkpoint_bytes

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
    # Nothing is fetched, and the metric is one that works with this numpy.
    for text in ('open-mmlab://', 'torchvision://', 'https://', "type='LVISMetric'"):
        assert text not in config.pretty_text
    assert config.pretty_text.count("='FasterLVISMetric'") == (2 if 'lvis' in name else 0)
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
