"""The grid of a transfer suite, and every input that cannot work."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from tests.conftest import REPO
from tests.helpers.demo_network import demo_checkpoint
from vito_mm.miniscenes import make_miniscenes
from vito_mm.transfer import plan as suite_plan
from vito_mm.transfer.estimate import print_plan
from vito_mm.transfer.options import (
    SuiteOptions,
    folder_name,
    label_checkpoints,
    parse_settings,
    parse_sweep,
    settings_name,
)
from vito_mm.transfer.plan import PlanError, make_plan, significant


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('miniscenes')
    return make_miniscenes(root, preset='tiny', workers=0, tasks=('voc', 'coco'), progress=False)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return Path(demo_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'iter_240.pth'))


@pytest.fixture
def options(data, tmp_path):
    """Options that work, to be changed."""

    def make(**changes) -> SuiteOptions:
        known = dict(
            checkpoints=['random'],
            tasks=['pascal', 'coco'],
            seeds=1,
            protocol='miniscenes',
            work_dir=tmp_path / 'suite',
            data=[f'pascal={data["voc"]}', f'coco={data["coco"]}'],
        )
        return SuiteOptions(**(dict(repo=REPO) | known | changes))

    return make


def own_configs(folder: Path, name: str, text: str) -> Path:
    """A folder of configs in which one of the repository's is changed.

    Args:
        folder: Gets the config.
        name: Name of the config below ``configs/miniscenes``.
        text: What it has in the place of the repository's or beside it.

    Returns:
        Path: What :attr:`SuiteOptions.repo` gets.
    """
    file = folder / 'configs' / 'miniscenes' / name
    file.parent.mkdir(parents=True)
    file.write_text(f'_base_ = {str(REPO / "configs/miniscenes" / name)!r}\n{text}\n')
    return folder


def problems(options: SuiteOptions) -> list[str]:
    with pytest.raises(PlanError) as caught:
        make_plan(options)
    return caught.value.problems


def test_the_grid(options, checkpoint):
    plan = make_plan(
        options(
            checkpoints=['random', f'vito={checkpoint}'],
            seeds=2,
            sweep=['lr=0.01,0.02;wd=0.1'],
            cfg_options=['pascal:train_cfg.max_iters=7', 'default_hooks.logger.interval=3'],
        )
    )
    assert len(plan.runs) == len({p.run.work_dir for p in plan.runs}) == 2 * 2 * 2 * 2
    assert len({p.fingerprint for p in plan.runs}) == 16
    assert [p.run.seed for p in plan.runs] == [0] * 8 + [1] * 8
    first = plan.runs[0]
    assert first.run.settings == (('lr', 0.01), ('wd', 0.1))
    assert first.name == 'pascal/random/lr0.01_wd0.1/seed0'
    assert first.settings['optim_wrapper.optimizer.lr'] == '0.01'
    assert first.settings['optim_wrapper.optimizer.weight_decay'] == '0.1'
    assert first.settings['train_cfg.max_iters'] == '7'
    assert first.settings['train_dataloader.batch_size'] == '8'
    assert first.settings['model.backbone.checkpoint'] == 'None'
    last = plan.runs[-1]
    assert last.run.task.name == 'coco'
    assert last.run.checkpoint == checkpoint
    assert last.settings['randomness.seed'] == '1'
    assert 'train_cfg.max_iters' not in last.settings
    assert last.settings['default_hooks.logger.interval'] == '3'
    assert last.max_epochs == 10


def test_the_plan_shows_the_sweep_as_it_was_read(options, capsys):
    plan = make_plan(options(tasks=['pascal'], sweep=['lr=0.01,0.02,wd=0.1']))
    assert [p.run.settings for p in plan.runs] == [
        (('lr', 0.01), ('wd', 0.1)),
        (('lr', 0.02), ('wd', 0.1)),
    ]
    print_plan(plan, {})
    assert '  sweep: lr = 0.01, 0.02; wd = 0.1\n' in capsys.readouterr().out


def test_the_total_batch_stays_the_same(options, capsys):
    more = dict(gpus_per_run=2, cfg_options=['coco:optim_wrapper.accumulative_counts=2'])
    plan = make_plan(options(**more))
    sizes = [p.settings['train_dataloader.batch_size'] for p in plan.runs]
    assert sizes == ['4', '2']
    print_plan(plan, {})
    printed = capsys.readouterr().out
    assert 'pascal: batch 8 = 2 GPUs x 4\n' in printed
    assert 'coco: batch 8 = 2 GPUs x 2 x 2 accumulated\n' in printed


def test_accumulation_keeps_the_schedule_in_steps_of_the_optimizer(options, capsys):
    """MMEngine counts micro-batches: what is in iterations gets as many more of them."""
    name = 'optim_wrapper.accumulative_counts'
    plan = make_plan(
        options(cfg_options=[f'coco:{name}=2'], sweep=['param_scheduler.1.end=150,90'])
    )
    pascal, _, coco, swept = plan.runs
    assert not any('param_scheduler.0' in key for key in pascal.settings)
    for planned, end in ((coco, 300), (swept, 180)):
        cfg = Config.fromfile(planned.config)
        words = [f'{key}={value}' for key, value in planned.settings.items()]
        cfg.merge_from_dict(parse_settings(words))
        warm_up, cosine = cfg.param_scheduler
        assert (warm_up.begin, warm_up.end) == (0, 30)
        assert (cosine.begin, cosine.T_max, cosine.end) == (30, 270, end)
        # What identifies a run is what it is started with.
        assert significant(cfg)['param_scheduler'] == planned.identity['param_scheduler']
    assert swept.run.settings == (('param_scheduler.1.end', 90),)
    print_plan(plan, {})
    printed = capsys.readouterr().out
    assert f'Note: COCO: {name}=2, and MMEngine counts every micro-batch' in printed
    assert 'is 2 times as long: param_scheduler.0.end=30, param_scheduler.1.begin=30' in printed


def test_a_schedule_that_cannot_be_stretched(options, tmp_path):
    text = "param_scheduler = (dict(type='LinearLR', by_epoch=False, end=9),)"
    repo = own_configs(tmp_path / 'repo', 'det_coco.py', text)
    setting = 'optim_wrapper.accumulative_counts=2'
    found = problems(options(repo=repo, tasks=['coco'], cfg_options=[setting]))
    assert any('Write it with square brackets' in text for text in found)


def test_a_work_dir_that_cannot_be_written(options, monkeypatch):
    monkeypatch.setattr(suite_plan.os, 'access', lambda path, mode: False)
    assert any('nothing can be written to' in text for text in problems(options()))


def test_a_work_dir_that_leads_nowhere(options, tmp_path):
    loop, dangling = tmp_path / 'loop', tmp_path / 'dangling'
    loop.symlink_to(loop)
    dangling.symlink_to(tmp_path / 'gone')
    for place in (loop, dangling, dangling / 'below'):
        (found,) = problems(options(work_dir=place))
        assert re.match(rf'--work-dir {place}: .*is no folder', found)
    (found,) = problems(options(work_dir=loop / 'below'))
    assert found.startswith(f'--work-dir {loop}/below: Too many levels of symbolic links')
    name = tmp_path / ('x' * 300)
    (found,) = problems(options(work_dir=name))
    assert found == f'--work-dir {name}: File name too long ({name}). Choose another'


@pytest.mark.skipif(os.geteuid() == 0, reason='root may enter every folder')
def test_a_work_dir_below_a_folder_that_may_not_be_entered(options, tmp_path):
    closed = tmp_path / 'closed'
    closed.mkdir(mode=0o600)
    (found,) = problems(options(work_dir=closed / 'a' / 'b'))
    assert found.startswith(f'--work-dir {closed}/a/b: Permission denied')


def test_what_a_run_is_does_not_depend_on_how_it_is_run(
    options, checkpoint, data, tmp_path, monkeypatch
):
    """But on its config, its seed and the content of its checkpoint."""
    copy = tmp_path / 'copy.pth'
    shutil.copy(checkpoint, copy)

    def fingerprint(**changes) -> str:
        changed = options(**(dict(checkpoints=[f'x={checkpoint}'], tasks=['pascal']) | changes))
        return make_plan(changed).runs[0].fingerprint

    one = fingerprint()
    assert fingerprint(gpus_per_run=2, jobs=3, work_dir=tmp_path / 'other') == one
    assert fingerprint(checkpoints=[f'x={copy}']) == one
    assert fingerprint(cfg_options=['train_dataloader.num_workers=2']) == one
    assert fingerprint(cfg_options=['train_cfg.max_iters=9']) != one
    # Nor on where the data lies: elsewhere, and named from here.
    shutil.copytree(data['voc'], tmp_path / 'moved')
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / 'moved', 'moved/', './moved'):
        assert fingerprint(data=[f'pascal={place}']) == one
    assert fingerprint(cfg_options=['randomness.deterministic=True']) != one
    whole = fingerprint(tasks=['coco'])
    assert fingerprint(tasks=['coco'], gpus_per_run=2) == whole
    parts = ['optim_wrapper.accumulative_counts=2']
    assert fingerprint(tasks=['coco'], cfg_options=parts) != whole
    assert fingerprint(checkpoints=['random']) != one
    with copy.open('ab') as file:
        file.write(b'more')
    assert fingerprint(checkpoints=[f'x={copy}']) != one


def test_all_problems_are_told_at_once(options, checkpoint):
    found = problems(
        options(
            checkpoints=[str(checkpoint), str(checkpoint)],
            tasks=['pascl', 'coco'],
            seeds=0,
            sweep=['lr'],
            gpus=[7],
        )
    )
    text = '\n'.join(found)
    for expected in (
        "did you mean 'pascal'?",
        '--seeds 0: give 1 or more',
        'write NAME=VALUE,VALUE',
        'iter_240.pth comes twice',
        f'--gpus 7: this machine shows {torch.cuda.device_count()} GPU(s)',
    ):
        assert expected in text


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        (dict(checkpoints=[]), '--checkpoints: name at least one file'),
        (dict(checkpoints=['gone.pth']), '--checkpoints gone.pth: there is no such file'),
        (dict(protocol='papers'), 'choose among paper, stock, miniscenes'),
        (dict(sweep=['optim_wrapper.optimizer.lrr=1']), r"no 'lrr' in optim_wrapper.*mean 'lr'\?"),
        (dict(sweep=['lr=0.1,abc']), '--sweep lr=abc: a finite number is needed, 0 or more'),
        (dict(sweep=['lr=nan']), '--sweep lr=nan: a finite number'),
        (dict(sweep=['wd=inf']), '--sweep wd=inf: a finite number'),
        (dict(sweep=['wd=-1']), '--sweep wd=-1: a finite number is needed, 0 or more'),
        (dict(sweep=['lr=None']), '--sweep lr=None: a finite number'),
        (dict(sweep=['lr==3']), '--sweep lr==3: write NAME=VALUE'),
        (dict(sweep=['lr=[1,2']), r'--sweep lr=\[1,2: Imbalanced brackets'),
        (dict(sweep=['train_cfg.max_iters=few']), 'max_iters=few: a finite number is needed$'),
        (dict(sweep=['lr=1'], cfg_options=['optim_wrapper.optimizer.lr=2']), 'sets it as well'),
        (dict(cfg_options=['train_cfg.max_iters']), 'is no KEY=VALUE'),
        (dict(cfg_options=['voc:a=1']), 'names no task before the colon'),
        (dict(cfg_options=['work_dir=x']), 'choose by --work-dir'),
        (dict(cfg_options=['train_dataloader.batch_size=3']), 'auto_scale_lr.base_batch_size'),
        (dict(cfg_options=['auto_scale_lr.base_batch_size=None']), 'has no auto_scale_lr.base'),
        (dict(cfg_options=['x=[1,2']), '--cfg-options: Imbalanced brackets'),
        (dict(gpus_per_run=3), 'the batch of 8 images cannot be split over --gpus-per-run 3'),
        (dict(cfg_options=['optim_wrapper.accumulative_counts=2']), 'would shorten the schedule'),
        (
            dict(tasks=['coco'], cfg_options=['optim_wrapper.accumulative_counts=3']),
            'cannot be split over --gpus-per-run 1 x 3 of optim_wrapper.accumulative_counts',
        ),
        (dict(sweep=['optim_wrapper.accumulative_counts=1']), 'accumulative_counts'),
        (dict(sweep=['randomness.seed=1']), '--sweep randomness.seed: choose by --seeds'),
        (dict(work_dir=Path(__file__)), '--work-dir .*test_plan.py is no folder'),
        (dict(work_dir=Path(__file__) / 'below'), '--work-dir .*test_plan.py is no folder'),
        (dict(jobs=0), 'must be 1 or more'),
        (dict(launcher='slurm'), '--launcher slurm needs --partition'),
        (dict(launcher='slurm', partition='x', gpus=[0]), '--gpus: under --launcher slurm'),
        (dict(partition='gpu'), '--partition means nothing without --launcher slurm'),
        (dict(srun_args='--mem=0'), '--srun-args means nothing without --launcher slurm'),
        (dict(data=['voc']), '--data voc: write TASK=FOLDER'),
        (dict(data=['pascal=/gone']), 'PASCAL VOC: there is no data folder /gone'),
        (
            dict(cfg_options=['pascal:model.decode_head.num_classes=5']),
            'model.decode_head.num_classes is 5, but PascalVOCDataset .* has 21 classes',
        ),
    ],
)
def test_one_problem_each(options, changes, expected):
    found = problems(options(**({'tasks': ['pascal']} | changes)))
    assert any(re.search(expected, problem) for problem in found), found


def test_a_checkpoint_of_another_network(options, tmp_path):
    from torchvision.models import resnet34

    file = tmp_path / 'r34.pth'
    torch.save(resnet34().state_dict(), file)
    (found,) = problems(options(checkpoints=[str(file)]))
    assert found.startswith('checkpoint r34 for PASCAL VOC, COCO: ')
    assert 'layer1.2' in found
    blank = tmp_path / 'my file.pth'
    shutil.copy(file, blank)
    assert any('a comma, a blank' in text for text in problems(options(checkpoints=[str(blank)])))


def test_missing_parts_of_a_data_set_are_named(options, data, tmp_path):
    voc, coco = tmp_path / 'voc', tmp_path / 'coco'
    shutil.copytree(data['voc'], voc)
    shutil.copytree(data['coco'], coco)
    (voc / 'ImageSets/Segmentation/val.txt').unlink()
    shutil.rmtree(voc / 'SegmentationClass')
    (coco / 'annotations/instances_val2017.json').unlink()
    shutil.rmtree(coco / 'train2017')
    (coco / 'train2017').mkdir()
    text = '\n'.join(problems(options(data=[f'pascal={voc}', f'coco={coco}/'])))
    for expected in (
        f'VOC, val: there is no list or annotation file {voc}/ImageSets/Segmentation/val.txt',
        f'there is no folder {voc}/SegmentationClass (seg_map_path)',
        f'COCO, val: there is no list or annotation file {coco}/annotations/instances_val2017.json',
        f'COCO, evaluation: there is no annotation file {coco}/annotations/instances_val2017.json',
        f'the folder {coco}/train2017/ (img) is empty',
        '--data pascal=FOLDER in the place of',
        '--cfg-options coco:KEY=VALUE',
    ):
        assert expected in text


def test_data_cannot_take_the_place_of_no_root(options, tmp_path):
    """It would do nothing, and the suite would train on whatever the config names."""
    loader = 'dict(dataset=dict(data_root=None))'
    text = f'train_dataloader = {loader}\nval_dataloader = {loader}'
    repo = own_configs(tmp_path / 'repo', 'det_coco.py', text)
    found = problems(options(repo=repo, tasks=['coco']))
    assert any(re.search('--data coco=.*: the config has no data_root', text) for text in found)


def test_gpus_are_shared_out(options, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    monkeypatch.setattr(suite_plan, 'count_cores', lambda: 8)

    def places(**changes) -> list[str]:
        plan = make_plan(options(tasks=['pascal'], **changes))
        return [place['CUDA_VISIBLE_DEVICES'] for place in plan.places]

    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    assert places() == ['0', '1', '2', '3']
    assert places(gpus_per_run=2) == ['0,1', '2,3']
    assert places(gpus=[3, 1], jobs=1) == ['3']
    assert make_plan(options(tasks=['pascal'])).threads == 2
    assert make_plan(options(tasks=['pascal'], jobs=1)).threads == 3  # not more than was allowed
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', 'GPU-a,GPU-b,6,7')
    assert places(gpus_per_run=2) == ['GPU-a,GPU-b', '6,7']
    (found,) = problems(options(tasks=['pascal'], gpus_per_run=2, jobs=3))
    assert 'needs 6 GPUs, and there are 4' in found


def test_a_disk_that_is_too_small(options, monkeypatch):
    usage = shutil.disk_usage('/')._replace(free=10_000_000)
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: usage)
    (found,) = problems(options())
    assert 'checkpoints of 2 runs need' in found
    assert '0.0 GB are free' in found


def test_a_package_that_is_not_installed(options, monkeypatch):
    from vito_mm.transfer import checks

    monkeypatch.setattr(checks.importlib.util, 'find_spec', lambda name: None)
    assert problems(options(tasks=['coco'])) == ['COCO needs mmdet: pip install "vito_mm[det]"']


def test_labels():
    assert label_checkpoints(['a.pth', 'x/a.pth', 'random', 'VITO=b.pth']) == {
        'a': Path('a.pth'),
        'x-a': Path('x/a.pth'),
        'random': None,
        'VITO': Path('b.pth'),
    }
    with pytest.raises(ValueError, match='the label x comes twice'):
        label_checkpoints(['x=a.pth', 'x=b.pth'])
    with pytest.raises(ValueError, match='means random weights'):
        label_checkpoints(['random=a.pth'])


def test_sweeps():
    assert parse_sweep(['lr=0.1,0.2', 'a.betas=(0.9,0.9),(0.9,0.99);b=x']) == {
        'lr': ['0.1', '0.2'],
        'a.betas': ['(0.9,0.9)', '(0.9,0.99)'],
        'b': ['x'],
    }
    for text in ('lr=0.1,0.2,wd=0.3', ' lr = 0.1, 0.2 , wd = 0.3 ', 'lr=0.1,0.2;wd=0.3'):
        assert parse_sweep([text]) == dict(lr=['0.1', '0.2'], wd=['0.3'])
    assert parse_sweep(['a=(1,2),b=[(3,4),5],6']) == dict(a=['(1,2)'], b=['[(3,4),5]', '6'])
    with pytest.raises(ValueError, match='is swept twice'):
        parse_sweep(['lr=0.1,lr=0.2'])
    with pytest.raises(ValueError, match='is swept twice'):
        parse_sweep(['lr=0.1', 'optim_wrapper.optimizer.lr=0.2'])
    with pytest.raises(ValueError, match='comes twice'):
        parse_sweep(['lr=0.1,1e-1'])
    with pytest.raises(ValueError, match='write NAME=VALUE'):
        parse_sweep(['lr=0.1,'])


def test_folder_names_are_safe_and_differ():
    assert folder_name('VITO-300.ep') == 'VITO-300.ep'
    names = {folder_name(text) for text in ('a b', 'a/b', 'a_b', '..', '.', 'x' * 300)}
    assert len(names) == 6
    assert all(name.strip('.') and '/' not in name and len(name) < 100 for name in names)
    assert settings_name(()) == 'default'
    assert json.dumps(settings_name((('lr', 0.01), ('wd', 5e-4)))) == '"lr0.01_wd0.0005"'
