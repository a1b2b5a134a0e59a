"""Every shipped config loads and builds."""

import ast

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import vito_mm  # noqa: F401  makes its configs known to MMEngine
from tests.conftest import REPO

CONFIGS = sorted(
    path.relative_to(REPO / 'configs')
    for path in (REPO / 'configs').rglob('*.py')
    if '_base_' not in path.parts
)


@pytest.mark.parametrize('path', CONFIGS, ids=str)
def test_config_loads_builds_and_fetches_nothing(path, monkeypatch):
    cfg = Config.fromfile(REPO / 'configs' / path)
    assert 'vito_mm' in cfg.custom_imports['imports']
    assert cfg.default_scope in ('mmpretrain', 'mmseg', 'mmdet')
    for scheme in ('torchvision://', 'open-mmlab://', 'http://', 'https://', 'modelzoo://'):
        assert scheme not in str(cfg.to_dict())
    for part in ('train_dataloader', 'optim_wrapper', 'train_cfg'):
        assert cfg[part]
    for layer in (nn.Conv2d, nn.Linear):  # no value is looked at
        monkeypatch.setattr(layer, 'reset_parameters', lambda self: None)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    learnt = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    if cfg.model.backbone.get('frozen'):
        assert {name.partition('.')[0] for name in learnt} == {'decode_head'}
    else:
        least = 0.5e6 if cfg.model.backbone.get('base_channels') == 16 else 1e6
        assert sum(learnt.values()) > least


def test_configs_are_data():
    """No logic: a docstring, assignments, calls of dict() and literals."""
    for path in REPO.glob('configs/**/*.py'):
        tree = ast.parse(path.read_text().replace('{{', '"').replace('}}', '"'))
        assert ast.get_docstring(tree), path
        assert all(isinstance(node, (ast.Expr, ast.Assign)) for node in tree.body), path
        calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert calls <= {'dict'}, path


def test_recipe_of_the_paper():
    """Every number of section 5 of the specification."""
    cfg = Config.fromfile(REPO / 'configs/vito/pretrain_r50.py')
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.clips_per_epoch) == (300, 1_280_000)
    assert cfg.train_dataloader.batch_size * 8 == 4096 == cfg.auto_scale_lr.base_batch_size
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer.type == 'ForeachLARS'
    assert optimizer.lr == pytest.approx(0.3 * 4096 / 256)
    assert (optimizer.weight_decay, optimizer.momentum, optimizer.eta) == (1e-6, 0.9, 1e-3)
    assert optimizer.formula == 'byol'
    warm_up, cosine = cfg.param_scheduler
    assert warm_up.type == 'WarmUpLR'
    assert (warm_up.begin, warm_up.end, warm_up.by_epoch) == (0, 10, True)
    assert (cosine.begin, cosine.end, cosine.eta_min, cosine.by_epoch) == (10, 300, 0, True)
    assert cosine.T_max == cosine.end - cosine.begin
    assert cfg.optim_wrapper.dtype == 'bfloat16'
    assert cfg.model.base_momentum == 0.99
    assert cfg.model.backbone.zero_init_residual  # haiku's bottleneck blocks, as BYOL's code has
    assert cfg.model.head.temperature == 0.1
    assert cfg.model.backbone.norm_cfg.type == cfg.model.projector.norm_cfg.type == 'SyncBN'
    assert cfg.default_hooks.target_ema.statistics == 'own'
    sample = cfg.train_dataloader.dataset.pipeline.sample
    assert (sample.num_views, sample.segment, sample.method) == (3, 2.56, 'marginal')


@pytest.mark.parametrize('path', CONFIGS, ids=str)
def test_a_config_of_another_project_gets_what_is_in_ours(path, tmp_path):
    (tmp_path / 'mine.py').write_text(f"_base_ = 'vito_mm::{path}'\nmine = 1\n")
    inherited = Config.fromfile(tmp_path / 'mine.py').to_dict()
    assert inherited.pop('mine') == 1
    assert inherited == Config.fromfile(REPO / 'configs' / path).to_dict()


def test_configs_are_found_by_their_name_alone():
    names = [path.name for path in (REPO / 'configs').rglob('*.py')]
    assert len(set(names)) == len(names)
