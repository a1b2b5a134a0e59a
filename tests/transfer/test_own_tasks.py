"""Configs of users as tasks, parts of the labels, frozen backbones and layer-wise rates."""

import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope

import vito_mm  # noqa: F401  registers the data set
from tests.helpers.own_tasks import DETECTOR, PURE, SEGMENTER, write
from tests.helpers.processes import python, status_of_tool
from tests.transfer.conftest import problems
from vito_mm.checkpoint.config_parts import strictly
from vito_mm.datasets import subset_indices
from vito_mm.launch import parse_options
from vito_mm.transfer.checks import class_problems
from vito_mm.transfer.options import parse_labels, setting_words, split_tasks
from vito_mm.transfer.own_task import fit_settings, own_task
from vito_mm.transfer.plan import make_plan
from vito_mm.transfer.run import Outcome, Run, runs_in
from vito_mm.transfer.tasks import TASKS, Task
from vito_mm.transfer.variants import build_without_storage
from vito_mm.utils.atomic import write_json


@pytest.fixture(scope='session')
def own(miniscenes, tmp_path_factory) -> dict[str, Path]:
    """The two configs of users, by the names of their tasks."""
    folder = tmp_path_factory.mktemp('own')
    return dict(
        cells=write(folder, DETECTOR, miniscenes['coco']),
        areas=write(folder, SEGMENTER, miniscenes['pascal']),
    )


@pytest.fixture
def own_options(options, own) -> Callable:
    """Options of a suite of both."""

    def make(**changes):
        tasks = [f'{name}={file}' for name, file in own.items()]
        return options(**(dict(tasks=tasks, data=[]) | changes))

    return make


@functools.cache
def base_of(file: str) -> Config:
    return Config.fromfile(file)


def config_of(run: Run) -> Config:
    """The config that a run trains."""
    cfg = Config(base_of(str(run.config_file)).to_dict())
    cfg.merge_from_dict(parse_options(setting_words(run.cfg_options)))
    return cfg


def data_of(run: Run) -> list[list[str]]:
    """The images of each training set of a run, in its order."""
    cfg = config_of(run)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    dataset.full_init()
    parts = getattr(dataset, 'datasets', None) or [dataset.dataset]
    return [[part.get_data_info(i)['img_path'] for i in range(len(part))] for part in parts]


def test_configs_of_users_are_tasks_next_to_those_of_the_paper(
    options, own, checkpoint, miniscenes
):
    tasks = [f'cells={own["cells"]}', 'pascal', f'areas={own["areas"]}']
    data = [f'pascal={miniscenes["pascal"]}']
    settings = ['cells:optim_wrapper.optimizer.lr=0.5']
    plan = make_plan(
        options(
            tasks=tasks, data=data, checkpoints=[str(checkpoint), 'random'], cfg_options=settings
        )
    )
    found = {run.task.name: run for run in plan.runs if run.label == 'vito'}
    assert list(found) == ['pascal', 'cells', 'areas']
    cells, areas = found['cells'].task, found['areas'].task
    assert (cells.package, cells.metric, cells.label, cells.scale) == (
        *('mmdet', 'coco/bbox_mAP', 'box mAP', 100.0),
    )
    assert (areas.package, areas.metric, areas.also, areas.scale) == (
        'mmseg',
        'mIoU',
        ('mDice',),
        1,
    )
    assert found['areas'].name == 'areas/vito/default/seed0'
    for name, run in found.items():
        cfg = config_of(run)
        assert cfg.model.backbone.type == 'VITOResNet'
        assert cfg.model.backbone.checkpoint == str(checkpoint)
        assert cfg.randomness.seed == 0
        assert cfg.default_hooks.checkpoint.interval > 0
        assert not cfg.get('load_from')
        assert not cfg.model.get('pretrained')
        assert not cfg.model.backbone.get('init_cfg')
        assert cfg.optim_wrapper.optimizer.lr == dict(pascal=1e-3, cells=0.5, areas=0.01)[name]
    assert config_of(found['cells']).train_dataloader.batch_size == 2
    assert sum('batch over all GPUs is 2' in text for text in plan.warnings) == 2


def test_parts_of_the_labels_leave_the_number_of_steps(own_options):
    plan = make_plan(own_options(labels=['100%', '90%'], seeds=2))
    assert len({run.fingerprint for run in plan.runs}) == len(plan.runs) == 2 * 2 * 2
    assert [run.task.name for run in plan.runs[:4]] == ['cells@90%', 'cells', 'areas@90%', 'areas']
    runs = {run.name: run for run in plan.runs}
    for task, counts in (('cells', [(8, 7)]), ('areas', [(8, 7), (4, 4)])):
        part = runs[f'{task}@90%/random/default/seed1']
        seeds = [value for key, value in part.cfg_options.items() if 'subset_seed' in key]
        assert set(seeds) == {'1'}
        few, every = (data_of(run) for run in (part, runs[f'{task}/random/default/seed1']))
        for chosen, complete, (total, number) in zip(few, every, counts, strict=True):
            assert len(chosen) == len(complete) == total
            assert len(set(chosen)) == number
            assert set(chosen) <= set(complete)


def test_epochs_of_other_lengths_are_noted(own_options, own, tmp_path):
    """ClassBalancedDataset counts the classes of the part that it is given."""
    text = (
        'inner = {{_base_.train_dataloader.dataset.dataset}}\n'
        'train_dataloader = dict(dataset=dict(_delete_=True, dataset=inner, '
        "type='ClassBalancedDataset', oversample_thr=1e-3))"
    )
    task = other(own['cells'], tmp_path, text)
    for tasks, labels, expected in (
        ([task], ['90%'], 1),
        ([task], ['100%'], 0),
        ([f'cells={own["cells"]}'], ['90%'], 0),
    ):
        warnings = make_plan(own_options(tasks=tasks, labels=labels)).warnings
        assert sum('ClassBalancedDataset' in text for text in warnings) == expected


def test_heads_that_are_over_other_classes_are_left_alone(own):
    """HTC segments COCO-stuff besides, and STDC's second head finds edges."""
    cfg = Config(base_of(str(own['cells'])).to_dict())
    cfg.model.roi_head = dict(semantic_head=dict(type='FusedSemanticHead', num_classes=183))
    cfg.model.auxiliary_head = [dict(type='STDCHead', num_classes=2)]
    task = Task('x', 'x', 'mmdet', 'coco/bbox_mAP', 'box mAP', 100.0)
    assert list(class_problems(cfg, task)) == []
    cfg.model.auxiliary_head.append(dict(type='FCNHead', num_classes=2))
    found = list(class_problems(cfg, task))
    assert all('model.auxiliary_head.1.num_classes is 2' in text for text in found)
    assert len(found) == 2  # training and validation


def test_a_pure_python_config_is_a_task(options, checkpoint, miniscenes, tmp_path):
    file = write(tmp_path, PURE, miniscenes['pascal'])
    changes = dict(tasks=[f'pure={file}'], data=[], labels=['95%'], layer_decay=['0.8'])
    (run,) = make_plan(options(checkpoints=[str(checkpoint)], **changes)).runs
    assert (run.task.package, run.task.metric) == ('mmseg', 'mIoU')
    cfg = config_of(run)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        assert len(DATASETS.build(cfg.train_dataloader.dataset)) == 8
        backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    weights = torch.load(checkpoint)['state_dict']
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, weights[f'backbone.{name}'])


@pytest.mark.parametrize(('count', 'fraction'), [(1000, 0.01), (1000, 0.1), (7, 0.3), (5, 0.01)])
def test_a_part_is_drawn_once_each(count, fraction):
    part = subset_indices(count, fraction, seed=3)
    assert len(set(part.tolist())) == len(part) == max(1, round(count * fraction))
    assert set(part.tolist()) <= set(range(count))
    larger = subset_indices(count, min(1, fraction * 3), seed=3)
    np.testing.assert_array_equal(larger[: len(part)], part)  # nested
    if len(part) > 5:
        assert set(part.tolist()) != set(subset_indices(count, fraction, seed=4).tolist())


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('cells=a=b', 'write NAME=CONFIG'),
        ('a:b=c.py', 'write NAME=CONFIG'),
        ('cells=', 'write NAME=CONFIG'),
        ('coco=c.py', 'coco is a task of the paper'),
    ],
)
def test_names_of_tasks(text, expected):
    with pytest.raises(ValueError, match=expected):
        split_tasks(['pascal', text])
    with pytest.raises(ValueError, match='comes twice'):
        split_tasks(['a=x.py', 'a=y.py'])
    found = split_tasks(['pascal', 'a=mmdet::x.py', 'b=~/x.py'])
    assert found == dict(pascal='', a='mmdet::x.py', b=str(Path.home() / 'x.py'))


@pytest.mark.parametrize('text', ['0%', '101%', '10', 'few', '-1%', '1e1%'])
def test_parts_that_are_no_percentage(text):
    with pytest.raises(ValueError, match=f'--labels {text}'):
        parse_labels(['5%', text])
    with pytest.raises(ValueError, match='comes twice'):
        parse_labels(['5%', '5.0%'])
    assert parse_labels(['100%', '.5%', '10%']) == [0.5, 10, 100]


def other(file: Path, folder: Path, text: str) -> str:
    """A task whose config changes another."""
    made = folder / 'other.py'
    made.write_text(f'_base_ = {str(file)!r}\n{text}\n')
    return f'other={made}'


EVALUATOR = "val_evaluator = dict(_delete_=True, type='DumpDetResults', out_file_path='x.pkl')"
LOGGED = 'other:default_hooks.checkpoint.save_best=own/score'


@pytest.mark.parametrize(
    ('text', 'changes', 'expected'),
    [
        ('val_evaluator = None', {}, 'the config has no val_evaluator'),
        ("default_scope = 'mmpretrain'", {}, 'config of mmpretrain, and tasks are of mmseg or mm'),
        (EVALUATOR, {}, 'which metric of DumpDetResults .*save_best=METRIC'),
        ('train_dataloader = dict(batch_size=None)', {}, 'no batch_size'),
        (
            "visualizer = dict(type='Visualizer', vis_backends=[dict(type='WandbVisBackend')])",
            *({}, 'LocalVisBackend'),
        ),
        ('', dict(labels=['50%']), '50 % of 8 labelled images are 4, and 7 classes'),
        (
            'auto_scale_lr = dict(base_batch_size=8)',
            *(dict(labels=['90%']), '90 % of 8 labelled images are 7, less than a batch of 8'),
        ),
        ('', dict(layer_decay=['0']), '--layer-decay 0: give a number above 0'),
        ('', dict(layer_decay=['0.8'], frozen_backbone=True), 'means nothing with'),
        (
            "optim_wrapper = dict(constructor='OwnConstructor')",
            *(dict(layer_decay=['0.8']), 'OwnConstructor, which sets its own'),
        ),
        ('', dict(cfg_options=['other:load_from=x.pth']), 'load_from: it would replace'),
        ('raise KeyError(1)', {}, '--tasks other=.*KeyError'),
    ],
)
def test_one_problem_each(own_options, own, tmp_path, text, changes, expected):
    task = other(own['cells'], tmp_path, text)
    found = problems(own_options(tasks=[task], **changes))
    assert any(re.search(expected, problem) for problem in found), found


def test_a_config_that_is_not_there(own_options):
    (found,) = problems(own_options(tasks=['cells=gone.py']))
    assert 'gone.py' in found


def evaluated(**evaluator) -> Config:
    return Config(dict(model=dict(type='X'), default_scope='mmdet', val_evaluator=evaluator))


@pytest.mark.parametrize(
    ('evaluator', 'expected'),
    [
        (dict(type='CocoMetric', metric=['segm', 'bbox']), ('coco/bbox_mAP', 'coco/segm_mAP')),
        (dict(type='CocoMetric', metric='segm', prefix='p'), ('p/segm_mAP',)),
        (dict(type='mmdet.LVISMetric'), ('lvis/bbox_AP',)),
        (dict(type='FasterLVISMetric', metric=['bbox', 'segm']), ('lvis/bbox_AP', 'lvis/segm_AP')),
        (dict(type='IoUMetric'), ('mIoU',)),
        (dict(type='IoUMetric', iou_metrics=['mDice'], prefix='q'), ('q/mDice',)),
    ],
)
def test_the_metric_is_that_of_the_evaluator(evaluator, expected):
    task = own_task('x', 'x.py', evaluated(**evaluator))
    assert (task.metric, *task.also) == expected
    assert task.scale == (1.0 if evaluator['type'] == 'IoUMetric' else 100.0)


@pytest.mark.parametrize(
    ('scope', 'best', 'scale'),
    [('mmdet', 'pascal_voc/mAP', 100.0), ('mmdet', 'coco_panoptic/PQ', 1.0), ('mmseg', 'x', 1.0)],
)
def test_another_metric_is_that_of_save_best(scope, best, scale):
    cfg = evaluated(type='Other')
    cfg.merge_from_dict({'default_scope': scope, 'default_hooks.checkpoint.save_best': best})
    task = own_task('x', 'x.py', cfg)
    assert (task.metric, task.scale) == (best, scale)


@pytest.mark.parametrize(('best', 'rule'), [('rmse', 'less'), (['rmse'], ['less']), ('loss', None)])
def test_a_metric_of_which_less_is_better_is_no_score(best, rule):
    cfg = evaluated(type='Other')
    cfg.default_hooks = dict(checkpoint=dict(save_best=best, rule=rule))
    with pytest.raises(ValueError, match=r'--tasks x=x.py: .*less is better'):
        own_task('x', 'x.py', cfg)
    cfg.val_evaluator = dict(type='IoUMetric')  # which says what the score is
    assert own_task('x', 'x.py', cfg).metric == 'mIoU'


def test_the_score_of_a_finished_run_is_that_of_the_task_as_it_is_now(tmp_path):
    """The metric that `save_best` names is no part of a run: another one needs no new runs."""
    tasks = [
        Task('x', 'x', 'mmdet', f'voc/{name}', name, 100.0) for name in ('mAP', 'AP50', 'AP75')
    ]
    runs = [Run(task, 'vito', None, (), 0, tmp_path) for task in tasks]
    runs[0].note_end(Outcome(runs[0], 'finished', 40.0, {'voc/mAP': 0.4, 'voc/AP50': 0.7}), ['x'])
    outcomes = [run.status() for run in runs]
    assert [outcome.score for outcome in outcomes] == [40.0, 70.0, None]
    assert [outcome.state for outcome in outcomes] == ['finished', 'finished', 'failed']
    assert 'voc/AP75' in outcomes[2].message


def test_the_strict_backbone_takes_the_place_of_any_other():
    assert strictly('VITOResNet') == {}
    assert strictly('VITOBackbone') == {}
    for kind in ('ResNet', 'ResNetV1c', 'mmdet.ResNet'):
        assert strictly(kind) == dict(type='VITOResNet')
    for kind in ('SwinTransformer', 'mmpretrain.ConvNeXt'):
        assert strictly(kind) == dict(type='VITOBackbone', stock=kind)


def test_checkpoints_of_a_config_without_hooks_are_frequent_enough():
    cfg = evaluated(type='IoUMetric')
    cfg.merge_from_dict(
        {
            'model.backbone.type': 'SwinTransformer',
            'train_cfg.max_iters': 50,
            'train_dataloader.batch_size': 4,
            'custom_imports.imports': ['mine'],
        }
    )
    settings, remarks = fit_settings(cfg, Task('x', 'x', 'mmdet', 'mIoU', 'mIoU', 1.0))
    assert settings == {
        'model.backbone.type': 'VITOBackbone',
        'model.backbone.stock': 'SwinTransformer',
        'custom_imports.imports': '[mine,vito_mm]',
        'auto_scale_lr.base_batch_size': '4',
    }
    assert len(remarks) == 2


def test_a_frozen_backbone_and_falling_rates_are_other_runs(own_options, checkpoint):
    changes = dict(checkpoints=[str(checkpoint)])
    frozen = make_plan(own_options(frozen_backbone=True, **changes))
    assert [run.name for run in frozen.runs] == [
        *('cells@frozen/vito/default/seed0', 'areas@frozen/vito/default/seed0')
    ]
    for run in frozen.runs:
        cfg = config_of(run)
        assert cfg.model.backbone.frozen is True
    falling = make_plan(own_options(layer_decay=['0.8', '1'], sweep=['lr=0.1'], **changes))
    assert {run.settings for run in falling.runs} == {
        (('lr', 0.1), ('layer_decay', 0.8)),
        (('lr', 0.1), ('layer_decay', 1)),
    }
    cfg = config_of(falling.runs[0])
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == 0.8
    plain = make_plan(own_options(**changes))
    prints = [run.fingerprint for each in (frozen, falling, plain) for run in each.runs]
    assert len(set(prints)) == len(prints) == 8


@pytest.mark.parametrize(
    ('package', 'backbone'),
    [
        ('mmdet', dict(stock='SwinTransformer', embed_dims=16, num_heads=(1, 1, 1, 1))),
        ('mmseg', dict(stock='mmpretrain.ConvNeXt', arch='atto')),
        ('mmseg', dict(stock='UNet')),
    ],
    ids=['Swin', 'ConvNeXt', 'UNet'],
)
def test_any_backbone_can_be_frozen(package, backbone):
    cfg = Config(dict(default_scope=package))
    built = build_without_storage(cfg, dict(backbone, type='VITOBackbone', frozen=True)).train()
    assert not any(parameter.requires_grad for parameter in built.parameters())
    assert not any(module.training for module in built.modules())


def test_a_suite_remembers_tasks_of_users_and_variants(tmp_path):
    own = Task('a', 'a', 'mmseg', 'mIoU', 'mIoU', 1.0, config='c.py', also=('mDice',))
    tasks = [TASKS['coco'], own, own.variant(10), TASKS['coco'].variant(1, frozen=True)]
    runs = [
        Run(task, 'x', None, (('lr', 0.1),), 0, tmp_path / 'runs' / task.name) for task in tasks
    ]
    records = [dict(folder=f'runs/{run.task.name}', **run.record()) for run in runs]
    write_json(tmp_path / 'suite.json', dict(runs=records))
    assert records[0]['task'] == 'coco'
    assert [run.task for run in runs_in(tmp_path)] == tasks
    assert [task.name for task in tasks[2:]] == ['a@10%', 'coco@frozen@1%']
    assert {task.base for task in tasks} == {'a', 'coco'}


def transfer(own, tmp_path, *words: object) -> int:
    tasks = (f'{name}={file}' for name, file in own.items())
    fixed = ('--work-dir', tmp_path / 'suite', '--seeds', 1, '--no-estimate')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'executable', str(python()))
        return status_of_tool('transfer.py', *fixed, '--tasks', *tasks, *words)


@pytest.fixture(scope='module')
def trained(own, checkpoint, tmp_path_factory) -> Path:
    """Folder of a suite of the segmenter on a part of its labels; not to be changed."""
    root = tmp_path_factory.mktemp('trained')
    one = dict(areas=own['areas'])
    assert transfer(one, root, '--checkpoints', checkpoint, '--labels', '90%') == 0
    return root / 'suite'


def test_a_config_of_a_user_is_trained_on_a_part_of_the_labels(trained, checkpoint, miniscenes):
    folder = trained / 'runs' / 'areas@90%' / 'vito' / 'default' / 'seed0'
    result = json.loads((folder / 'result.json').read_text())
    assert result['state'] == 'finished'
    assert 0 <= result['score'] == result['metrics']['mIoU'] <= 100
    assert set(torch.load(result['checkpoint'])) == {'state_dict', 'meta'}
    assert f'loaded 120/120 backbone keys from {checkpoint}' in (folder / 'console.log').read_text()
    listed = Path(miniscenes['pascal']) / 'ImageSets/Segmentation/val.txt'
    assert result['data']['text'] == f'{len(listed.read_text().split())} images'
    markdown = (trained / 'report.md').read_text()
    assert f'| vito | {result["score"]:.1f} (n = 1) |' in markdown
    assert f'| {result["metrics"]["mDice"]:.1f} |' in markdown


@pytest.mark.parametrize(
    'text',
    [
        'test_dataloader = test_evaluator = test_cfg = None',
        "test_dataloader = dict(dataset=dict(ann_file='ImageSets/Segmentation/train.txt'))",
    ],
    ids=['no test set', 'another test set'],
)
def test_a_run_that_lacks_its_last_evaluation_is_measured_on_the_validation_set(
    own_options, own, trained, tmp_path, text
):
    (run,) = make_plan(own_options(tasks=[other(own['areas'], tmp_path, text)])).runs
    run.work_dir.mkdir(parents=True)
    finished = json.loads(next(trained.glob('runs/*/*/*/*/result.json')).read_text())
    _, *words = run.command(own_options(), evaluate=Path(finished['checkpoint']))
    subprocess.run([python(), *words], check=True, capture_output=True)
    metrics, note = run.scores('', tested=True)
    assert metrics == pytest.approx(finished['metrics'])
    assert not note


@pytest.mark.slow
def test_all_variants_are_trained(own, checkpoint, tmp_path):
    words = ('--checkpoints', checkpoint, 'random')
    assert transfer(own, tmp_path, *words, '--labels', '90%', '100%') == 0
    assert transfer(own, tmp_path, *words, '--frozen-backbone') == 0
    assert transfer(own, tmp_path, *words, '--layer-decay', '0.8') == 0
    before = torch.load(checkpoint)['state_dict']
    for task in own:
        results = list((tmp_path / 'suite' / 'runs').glob(f'{task}*/vito/*/seed0/result.json'))
        assert len(results) == 4
        for file in results:
            content = json.loads(file.read_text())
            assert content['state'] == 'finished'
            after = torch.load(content['checkpoint'])['state_dict']
            same = all(torch.equal(value, after[key]) for key, value in before.items())
            assert same == ('@frozen' in str(file))
    assert 'by the part of the labels' in (tmp_path / 'suite' / 'report.md').read_text()
