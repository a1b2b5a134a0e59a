"""Networks of the paper: the checkpoint decides which configs its tasks take."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.models import SwinTransformer, VisionTransformer

from tests.conftest import REPO
from tests.transfer.conftest import problems
from vito_mm.launch import parse_options
from vito_mm.transfer.options import setting_words
from vito_mm.transfer.plan import make_plan
from vito_mm.transfer.tasks import TASKS
from vito_mm.utils.atomic import write_json

SWIN = {name: task.config_for('paper', 'swin_s') for name, task in TASKS.items()}


def save(file: Path, backbone: torch.nn.Module) -> Path:
    weights = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    torch.save(dict(state_dict=weights, meta=dict(iter=1)), file)
    return file


@pytest.fixture(scope='module')
def swin(tmp_path_factory) -> Path:
    """What pre-training leaves of a Swin-S: mmpretrain's class, stages 4 and 5."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp('swin') / 'swin.pth'
    return save(file, SwinTransformer(arch='small', img_size=224, out_indices=(2, 3)))


def test_a_checkpoint_with_a_swin_takes_its_configs(options, swin):
    plan = make_plan(
        options(protocol='paper', tasks=['pascal', 'coco'], checkpoints=[str(swin), 'random'])
    )
    files = [run.config_file for run in plan.runs]
    assert files[::2] == [REPO / 'configs' / SWIN[name] for name in ('pascal', 'coco')]
    assert plan.architecture == 'swin_s'
    weights = torch.load(swin)['state_dict']
    for run in plan.runs[::2]:
        cfg = Config.fromfile(run.config_file)
        cfg.merge_from_dict(parse_options(setting_words(run.cfg_options)))
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            backbone = MODELS.build(cfg.model.backbone)
        backbone.init_weights()
        loaded = backbone.state_dict()
        # Patches are merged in another order there, which tests of strict loading look at.
        same = [name for name in loaded if 'downsample' not in name and name[:5] not in NEW]
        assert len(same) > 300
        assert all(torch.equal(loaded[name], weights[f'backbone.{name}']) for name in same)


NEW = ('norm0', 'norm1')
"""Norms of the stages of which pre-training has no outputs."""


def test_networks_are_not_mixed(options, swin, checkpoint, tmp_path):
    both = [str(swin), f'r={checkpoint}']
    (found,) = problems(options(protocol='paper', tasks=['coco'], checkpoints=both))
    assert 'swin is a Swin-S, r is a ResNet-50' in found
    (found,) = problems(options(tasks=['coco'], checkpoints=[str(swin)]))
    assert '--protocol miniscenes has no configs for a Swin-S' in found

    work_dir = tmp_path / 'suite'
    work_dir.mkdir()
    write_json(work_dir / 'suite.json', dict(protocol='paper', architecture='swin_s', runs=[]))
    plan = make_plan(options(protocol='paper', tasks=['coco']))
    assert plan.architecture == 'swin_s'  # random weights are those of the suite
    write_json(work_dir / 'suite.json', dict(protocol='paper', architecture='r50', runs=[]))
    found = problems(options(protocol='paper', tasks=['coco'], checkpoints=[str(swin)]))
    assert any('holds runs of a ResNet-50' in text for text in found)


def test_a_network_without_configs_is_told_what_to_do(options, tmp_path):
    file = save(tmp_path / 'vit.pth', VisionTransformer('deit-tiny', img_size=32, patch_size=16))
    (found,) = problems(options(tasks=['coco'], checkpoints=[str(file)]))
    assert 'configs for ResNet-50 and Swin-S' in found
    assert '--tasks NAME=CONFIG' in found
