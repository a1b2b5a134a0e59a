"""Pre-training from given weights: the online network has them, the target equals it at step 0."""

import argparse
import copy
import shlex
import sys

import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.hooks import Hook
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.models.backbones import ResNet, SwinTransformer
from torch import nn

from tests.conftest import REPO
from tests.end_to_end.test_config_family import run, shrink
from tests.helpers import backbones
from tests.helpers.backbones import openmmlab_features, randomised
from tests.helpers.processes import shell
from tests.tools.test_train import tiny_options
from vito_mm.checkpoint import CheckpointError, check_config, load_backbone

ALGORITHMS = {
    'VITO': 'vito/pretrain_r50.py',
    'MoCLR': 'baselines/moclr_r50_frames.py',
    'BYOL': 'baselines/byol_r50.py',
    'SimSiam': 'baselines/simsiam_r50.py',
    'MoCo v3': 'baselines/mocov3_r50.py',
    'adaptation': 'vito/adapt_r50.py',
}


@pytest.fixture(scope='module')
def source():
    """A narrow ResNet-18 with running statistics that are not the initial ones."""
    torch.manual_seed(0)
    model = ResNet(18, stem_channels=16, base_channels=16, out_indices=(0, 1, 2, 3))
    for name, buffer in model.named_buffers():
        if 'running' in name:
            buffer.uniform_(0.5, 1.5)
    model.eval()
    return model


@pytest.fixture
def resnet(source, tmp_path):
    """Its weights under torchvision's names, with a classifier."""
    file = tmp_path / 'resnet.pth'
    torch.save(dict(source.state_dict(), **{'fc.weight': torch.zeros(3, 128)}), file)
    return file


def tiny(name: str, videos, **options) -> Config:
    cfg = Config.fromfile(REPO / 'configs' / ALGORITHMS[name])
    shrink(cfg, videos, videos)
    cfg.merge_from_dict(options)
    return cfg


class Start(Hook):
    """The state of both networks with which the first iteration computes."""

    priority = 'LOWEST'

    def before_train(self, runner):
        self.model = runner.model
        self.online = nn.Sequential(
            *(
                getattr(runner.model, part)
                for part in ('backbone', 'neck', 'projector')
                if hasattr(runner.model, part)
            )
        )
        self.state = copy.deepcopy(runner.model.state_dict())
        self.before = copy.deepcopy(self.online.state_dict())
        averaged = getattr(
            runner.model, 'target_net', getattr(runner.model, 'momentum_encoder', None)
        )
        self.target = None
        if averaged is not None:
            averaged.module.register_forward_pre_hook(self.keep)

    def keep(self, module, inputs):
        if self.target is None:
            self.target = copy.deepcopy(module.state_dict())


@torch.no_grad()
def assert_starts_from(source: nn.Module, start: Start):
    images = torch.rand(2, 3, 64, 64)
    for state, prefix in ((start.state, 'backbone.'), (start.target, '0.')):
        if state is None:
            continue
        backbone = ResNet(18, stem_channels=16, base_channels=16, out_indices=(0, 1, 2, 3))
        backbone.load_state_dict(
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        )
        backbone.eval()
        for found, wanted in zip(backbone(images), source(images), strict=True):
            assert torch.equal(found, wanted)
    if start.target is not None:
        assert start.target.keys() == start.before.keys()
        for key, value in start.before.items():
            assert torch.equal(start.target[key], value), key


@pytest.mark.parametrize(
    ('name', 'way'),
    [(name, 'VITOResNet') for name in ALGORITHMS if name != 'adaptation']
    + [('VITO', 'load_from'), ('MoCo v3', 'load_from'), ('adaptation', 'load_from')]
    + [
        pytest.param(name, 'load_from', marks=pytest.mark.slow)
        for name in ('MoCLR', 'BYOL', 'SimSiam')
    ],
)
def test_starts_from_the_weights_of_a_resnet(name, way, source, resnet, videos, tmp_path):
    options = {'load_from': str(resnet)}
    if way == 'VITOResNet':
        options = {'model.backbone.type': way, 'model.backbone.checkpoint': str(resnet)}
    start = Start()
    cfg = tiny(name, videos, **options)
    check = check_config(copy.deepcopy(cfg))
    assert check.match.complete
    assert (check.checkpoint, check.note) == (str(resnet), '')
    run(cfg, tmp_path / 'run', start)
    assert_starts_from(source, start)
    assert (start.target is None) == (name == 'SimSiam')


def test_adaptation_starts_from_the_weights_of_a_swin(videos, tmp_path):
    cfg = Config.fromfile(REPO / 'configs/vito/adapt_swin_s.py')
    shrink(cfg, videos, videos)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        # Of a classifier, with the norm of the last stage alone.
        source = MODELS.build(cfg.model.backbone | dict(out_indices=(3,)))
    for value in source.parameters():
        torch.nn.init.normal_(value, std=0.5)
    weights = source.state_dict()
    torch.save({f'backbone.{k}': v for k, v in weights.items()}, tmp_path / 'swin.pth')
    cfg.load_from = str(tmp_path / 'swin.pth')
    start = Start()
    run(cfg, tmp_path / 'run', start)
    for key, value in weights.items():
        assert torch.equal(start.state[f'backbone.{key}'], value), key
        assert torch.equal(start.target[f'0.{key}'], value), key


def test_swin_from_a_file_of_timm_to_the_tasks(videos, tmp_path):
    """The online network starts from it, and mmdet's and mmseg's Swin from what training leaves."""
    sizes = dict(depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), window_size=4)
    source = randomised(backbones.timm_swin(128, embed_dim=24, **sizes))
    torch.save(source.state_dict(), tmp_path / 'timm.pth')
    cfg = Config.fromfile(REPO / 'configs/vito/pretrain_swin_s.py')
    shrink(cfg, videos, videos)
    cfg.load_from = str(tmp_path / 'timm.pth')
    cfg.train_cfg.max_iters = 2
    check = check_config(copy.deepcopy(cfg))
    assert (check.match.complete, check.match.naming) == (True, 'timm')
    start = Start()
    run(cfg, tmp_path / 'run', start)
    started = backbones.openmmlab_swin('mmdet', embed_dims=24, **sizes)
    pre = 'backbone.'
    state = {k.removeprefix(pre): v for k, v in start.state.items() if k.startswith(pre)}
    started.load_state_dict(state, strict=False)
    images = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        wanted = backbones.timm_swin_features(source, images)
    for x, y in zip(openmmlab_features(started, images), wanted, strict=True):
        torch.testing.assert_close(x / y.abs().max(), y / y.abs().max(), rtol=0, atol=1e-5)
    arch = dict(embed_dims=24, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])
    trained = SwinTransformer(arch, window_size=4, pad_small_map=True, out_indices=(0, 1, 2, 3))
    saved = torch.load(tmp_path / 'run' / 'iter_2.pth')['state_dict']
    state = {k.removeprefix(pre): v for k, v in saved.items() if k.startswith(pre)}
    assert not trained.load_state_dict(state, strict=False).unexpected_keys
    wanted = openmmlab_features(trained, images)
    for library in ('mmdet', 'mmseg'):
        model = backbones.openmmlab_swin(library, embed_dims=24, **sizes)
        match = load_backbone(model, tmp_path / 'run' / 'iter_2.pth')
        assert sorted(match.new) == [f'norm{n}.{p}' for n in (0, 1) for p in ('bias', 'weight')]
        for x, y in zip(openmmlab_features(model, images), wanted, strict=True):
            torch.testing.assert_close(x, y)


@pytest.mark.parametrize('name', ['VITO', 'BYOL'])
def test_starts_from_the_complete_model_of_another_run(name, videos, tmp_path):
    run(tiny(name, videos), tmp_path / 'first')
    file = tmp_path / 'first' / 'iter_1.pth'
    saved = torch.load(file)['state_dict']
    start = Start()
    cfg = tiny(name, videos, load_from=str(file))
    assert check_config(copy.deepcopy(cfg)).match.complete
    run(cfg, tmp_path / 'second', start)
    assert start.state.keys() == saved.keys()
    assert all(torch.equal(value, saved[key]) for key, value in start.state.items())


def test_not_all_of_the_weights_is_an_error(source, resnet, videos, tmp_path):
    run(tiny('VITO', videos), tmp_path / 'vito')
    vito = tmp_path / 'vito' / 'iter_1.pth'
    content = torch.load(vito)
    del content['state_dict']['projector.fc0.bias']
    torch.save(content, tmp_path / 'less.pth')
    shallow = {k: v for k, v in source.state_dict().items() if not k.startswith('layer4')}
    torch.save(shallow, tmp_path / 'shallow.pth')
    torch.save({'state_dict': nn.Linear(2, 2).state_dict()}, tmp_path / 'linear.pth')
    for name, file, message in (
        ('VITO', tmp_path / 'less.pth', r'1 missing: projector\.fc0\.bias'),
        ('VITO', tmp_path / 'shallow.pth', r'missing: layer4'),
        ('SimSiam', tmp_path / 'linear.pth', r'no key of a ResNet'),
        ('MoCo v3', tmp_path / 'gone.pth', r'There is no checkpoint'),
        ('BYOL', vito, r'holds another model than this BYOL'),
    ):
        cfg = tiny(name, videos, load_from=str(file))
        with pytest.raises(CheckpointError, match=message):
            check_config(copy.deepcopy(cfg))
        with pytest.raises(CheckpointError, match=message) as error:
            run(cfg, tmp_path / f'{name}_{file.stem}')

    # The remedy for the last one, as it is printed.
    options = shlex.split(str(error.value).rpartition('--cfg-options ')[2])
    start = Start()
    cfg = tiny('BYOL', videos, load_from=str(vito))
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    cfg.merge_from_dict(parser.parse_args(['--cfg-options', *options]).cfg_options)
    run(cfg, tmp_path / 'remedy', start)
    weights = torch.load(vito)['state_dict']
    for key, value in start.state.items():
        if key.startswith('backbone.'):
            assert torch.equal(value, weights[key]), key
            assert torch.equal(start.target[key.replace('backbone.', '0.')], value), key


def test_command_as_it_is_typed(resnet, videos, tmp_path):
    """tools/train.py starts from any file."""
    options = tiny_options(videos, max_iters=1)
    command = (sys.executable, 'tools/train.py', REPO / 'configs/vito/pretrain_r50.py')
    done = shell(*command, '--work-dir', tmp_path / 'run', *options, f'load_from={resnet}')
    assert done.returncode == 0, done.stderr[-3000:]
    assert f'loaded 120/120 backbone keys from {resnet}' in done.stdout + done.stderr
