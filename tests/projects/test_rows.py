"""What the rows of the study are, told from their configs."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from projects.miniscenes_study.presets import PRESETS
from projects.miniscenes_study.rows import ADAPTATION_ROWS, MAIN_ROWS, ORDERINGS, ROWS, STUDY_ROWS
from projects.miniscenes_study.runs import MODES, Study, row_config, suite_options
from tests.conftest import REPO
from vito_mm.registry import MODELS
from vito_mm.transfer.plan import make_plan
from vito_mm.transfer.tasks import RANDOM

TRAINED = [row for row in STUDY_ROWS if row != RANDOM]


def study(preset: str, **settings) -> Study:
    return Study(REPO, Path('unused'), Path('data/unused'), PRESETS[preset], **settings)


def flat(config, prefix: str = '') -> dict:
    parts = config.items() if isinstance(config, dict) else enumerate(config)
    found = {}
    for key, value in parts:
        inner = isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value)
        )
        found |= flat(value, f'{prefix}{key}.') if inner else {f'{prefix}{key}': value}
    return found


SAMPLE = 'train_dataloader.dataset.pipeline.0.'
CROPS = [
    f'train_dataloader.dataset.pipeline.2.pipelines.{view}.0.crop_ratio_range' for view in (0, 1)
]
ONE_SCALE = {
    'model.backbone.out_indices': (3,),
    'model.neck.in_channels': (256,),
    'model.projector.in_channels': 256,
}


@pytest.mark.parametrize(
    ('row', 'differs'),
    [
        ('vito', {}),
        ('average2', {'model.neck.pooling': 'average'}),
        ('attention1', ONE_SCALE),
        ('average1', ONE_SCALE | {'model.neck.pooling': 'average'}),
        (
            'moclr_crop040',
            ONE_SCALE | {'model.neck.pooling': 'average', f'{SAMPLE}method': 'single'},
        ),
        (
            'moclr',
            ONE_SCALE
            | {'model.neck.pooling': 'average', f'{SAMPLE}method': 'single'}
            | dict.fromkeys(CROPS, (0.08, 1.0)),
        ),
        ('single', {f'{SAMPLE}method': 'single'}),
        ('delta', {f'{SAMPLE}method': 'delta', f'{SAMPLE}delta': 0.75}),
        ('uniform', {f'{SAMPLE}method': 'uniform'}),
        ('segment128', {f'{SAMPLE}segment': 1.28}),
        ('segment320', {f'{SAMPLE}segment': 3.2}),
    ],
)
def test_a_row_differs_from_vito_in_what_it_says_alone(row, differs):
    vito, other = (flat(row_config(study('cpu'), name).to_dict()) for name in ('vito', row))
    assert vito['model.neck.pooling'] == 'attention'
    assert (vito[f'{SAMPLE}num_views'], vito[f'{SAMPLE}segment']) == (3, 2.56)
    assert [vito[key] for key in CROPS] == [(0.4, 1.0)] * 2
    changed = {k: other.get(k) for k in vito.keys() | other.keys() if vito.get(k) != other.get(k)}
    assert changed == differs


@pytest.mark.parametrize('preset', ['cpu', 'gpu', 'attention'])
def test_every_row_builds_the_same_backbone_and_takes_as_many_steps(preset):
    shapes, steps = set(), set()
    for row in TRAINED if preset == 'cpu' else ('vito', 'moclr', 'supervised'):
        cfg = row_config(study(preset), row)
        warm_up, decay = cfg.param_scheduler
        assert (decay.begin, decay.T_max) == (warm_up.end, cfg.train_cfg.max_iters - warm_up.end)
        steps |= {cfg.train_cfg.max_iters, decay.end}
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            backbone = MODELS.build(cfg.model).backbone
        shapes.add(tuple((k, tuple(v.shape)) for k, v in sorted(backbone.state_dict().items())))
    assert len(shapes) == len(steps) == 1


def test_adaptation_has_the_recipe_of_its_config_and_as_many_steps_as_from_scratch():
    cfgs = {row: row_config(study('adaptation'), row) for row in ADAPTATION_ROWS[1:]}
    recipe = Config.fromfile(REPO / 'configs/vito/adapt_r50.py')
    steps = {row: cfg.train_cfg.max_iters for row, cfg in cfgs.items()}
    assert steps['vito'] == steps['source'] == steps['adapted']
    assert steps['heads'] + steps['heads_first'] == steps['adapted'] > steps['heads_first']
    for row in ('adapted', 'heads', 'heads_first'):
        wrapper, scratch = cfgs[row].optim_wrapper, cfgs['vito'].optim_wrapper
        assert wrapper.optimizer == recipe.optim_wrapper.optimizer != scratch.optimizer
        assert cfgs[row].model == {**cfgs['vito'].model, 'base_momentum': 0.996}
        frozen = wrapper.paramwise_cfg.custom_keys.pop('backbone', None)
        assert (frozen == {'lr_mult': 0.0}) == (row == 'heads')
        assert wrapper.paramwise_cfg == recipe.optim_wrapper.paramwise_cfg
    source, target = (cfgs[row].train_dataloader.dataset.data_root for row in ('source', 'adapted'))
    assert source.endswith('unused_source/frames')
    assert target.endswith('unused/videos')


def test_orderings_compare_rows_that_are_there():
    assert set(MAIN_ROWS) <= set(ROWS)
    for ordering in ORDERINGS:
        assert {ordering.better, ordering.worse} <= set(ROWS)
        assert ordering.better != ordering.worse
    assert {ordering.better for ordering in ORDERINGS} | {o.worse for o in ORDERINGS} == set(ROWS)


@pytest.mark.parametrize('mode', MODES)
def test_the_transfer_takes_the_seed_of_the_pretraining(mode, tmp_path, monkeypatch):
    """The plan of the suite, as far as it gets without data."""
    from vito_mm.transfer import plan as module

    file = tmp_path / 'pretrain' / RANDOM / 'seed2' / 'random.pth'
    file.parent.mkdir(parents=True)
    cfg = row_config(study('cpu'), 'vito')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        backbone = MODELS.build(cfg.model).backbone
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in backbone.state_dict().items()}}, file)
    for check in ('data_problems', 'class_problems'):
        monkeypatch.setattr(module, check, lambda *_: [])
    monkeypatch.setattr(module, 'label_problems', lambda *_: ([], []))
    made = Study(REPO, tmp_path, tmp_path / 'data', PRESETS['cpu'], transfer_rows=[RANDOM], seeds=3)
    plan = make_plan(suite_options(made, mode, 2))
    assert len(plan.runs) == 4
    for planned in plan.runs:
        assert planned.cfg_options['randomness.seed'] == '2'
        # Where it is trained, the library's own random weights; where it is frozen, calibrated.
        assert planned.checkpoint == (file if mode == 'frozen' else None)
        frozen = planned.cfg_options.get('model.backbone.frozen_stages')
        assert frozen == ('4' if mode == 'frozen' else None)
        assert any(str(tmp_path / 'data') in value for value in planned.cfg_options.values())
