"""The grid of a transfer suite, and every input that cannot work."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torchvision.models import resnet34

from tests.conftest import REPO
from tests.transfer.conftest import problems
from vito_mm.launch import parse_options
from vito_mm.transfer import checks, jobs, runner
from vito_mm.transfer.description import describe
from vito_mm.transfer.identity import identity_of
from vito_mm.transfer.options import (
    folder_name,
    label_checkpoints,
    parse_sweep,
    setting_words,
    settings_name,
)
from vito_mm.transfer.plan import make_plan


def own_config(folder: Path, text: str) -> Path:
    """A folder of configs in which COCO's of MiniScenes is changed by some text."""
    file = folder / 'configs' / 'miniscenes' / 'det_coco.py'
    file.parent.mkdir(parents=True)
    file.write_text(f'_base_ = {str(REPO / "configs/miniscenes/det_coco.py")!r}\n{text}\n')
    return folder


def test_the_grid(options, checkpoint):
    plan = make_plan(
        options(
            checkpoints=['random', f'vito={checkpoint}'],
            seeds=2,
            sweep=['lr=0.01,0.02,wd=0.1'],
            cfg_options=['pascal:train_cfg.max_iters=7', 'default_hooks.logger.interval=3'],
        )
    )
    assert len(plan.runs) == len({run.work_dir for run in plan.runs}) == 2 * 2 * 2 * 2
    assert len({run.fingerprint for run in plan.runs}) == 16
    assert [run.seed for run in plan.runs] == [0] * 8 + [1] * 8
    first, last = plan.runs[0], plan.runs[-1]
    assert first.settings == (('lr', 0.01), ('wd', 0.1))
    assert first.name == 'pascal/random/lr0.01_wd0.1/seed0'
    expected = {
        'optim_wrapper.optimizer.lr': '0.01',
        'optim_wrapper.optimizer.weight_decay': '0.1',
        'train_cfg.max_iters': '7',
        'train_dataloader.batch_size': '8',
        'model.backbone.checkpoint': 'None',
    }
    assert {key: first.cfg_options[key] for key in expected} == expected
    assert (last.task.name, last.checkpoint, last.max_epochs) == ('coco', checkpoint, 10)
    assert last.cfg_options['randomness.seed'] == '1'
    assert last.cfg_options['default_hooks.logger.interval'] == '3'
    assert 'train_cfg.max_iters' not in last.cfg_options
    text = '\n'.join(describe(plan, {}))
    assert '  sweep: lr = 0.01, 0.02; wd = 0.1\n' in f'{text}\n'
    assert '2 checkpoints x 2 tasks x 2 settings x 2 seeds = 16 runs' in text


def test_the_total_batch_stays_the_same(options):
    more = dict(gpus_per_run=2, cfg_options=['coco:optim_wrapper.accumulative_counts=2'])
    plan = make_plan(options(**more))
    sizes = [run.cfg_options['train_dataloader.batch_size'] for run in plan.runs]
    assert sizes == ['4', '2']
    assert {'  pascal: batch 8 = 2 GPUs x 4', '  coco: batch 8 = 2 GPUs x 2 x 2 accumulated'} <= {
        *describe(plan, {})
    }


def test_accumulation_keeps_the_schedule_in_steps_of_the_optimizer(options):
    """MMEngine counts micro-batches: a span in iterations gets as many more of them."""
    name = 'optim_wrapper.accumulative_counts'
    plan = make_plan(
        options(cfg_options=[f'coco:{name}=2'], sweep=['param_scheduler.1.end=150,90'])
    )
    pascal, _, coco, swept = plan.runs
    assert not any('param_scheduler.0' in key for key in pascal.cfg_options)
    for run, end in ((coco, 300), (swept, 180)):
        cfg = Config.fromfile(run.config_file)
        cfg.merge_from_dict(parse_options(setting_words(run.cfg_options)))
        warm_up, cosine = cfg.param_scheduler
        assert (warm_up.begin, warm_up.end) == (0, 30)
        assert (cosine.begin, cosine.T_max, cosine.end) == (30, 270, end)
        # A run is identified by the settings that it is started with.
        assert identity_of(cfg)['param_scheduler'] == run.identity['param_scheduler']
    assert swept.settings == (('param_scheduler.1.end', 90),)
    (warning,) = plan.warnings
    assert 'is 2 times as long: param_scheduler.0.end=30, param_scheduler.1.begin=30' in warning


def test_configs_that_lack_what_is_changed(options, tmp_path):
    text = "param_scheduler = (dict(type='LinearLR', by_epoch=False, end=9),)"
    repo = own_config(tmp_path / 'tuple', text)
    setting = 'optim_wrapper.accumulative_counts=2'
    found = problems(options(repo=repo, tasks=['coco'], cfg_options=[setting]))
    assert any('Write it with square brackets' in text for text in found)
    # The suite would train on whatever the config names.
    loader = 'dict(dataset=dict(data_root=None))'
    text = f'train_dataloader = {loader}\nval_dataloader = {loader}'
    found = problems(options(repo=own_config(tmp_path / 'no_root', text), tasks=['coco']))
    assert any(re.search('--data coco=.*: the config has no data_root', text) for text in found)


def test_a_work_dir_that_leads_nowhere(options, tmp_path, monkeypatch):
    loop, dangling = tmp_path / 'loop', tmp_path / 'dangling'
    loop.symlink_to(loop)
    dangling.symlink_to(tmp_path / 'gone')
    for place in (loop, dangling, dangling / 'below', Path(__file__), Path(__file__) / 'below'):
        (found,) = checks.work_dir_problems(place)
        assert re.match(rf'--work-dir {place}: .*is no folder', found)
    (found,) = checks.work_dir_problems(loop / 'below')
    assert found.startswith(f'--work-dir {loop}/below: Too many levels of symbolic links')
    name = tmp_path / ('x' * 300)
    (found,) = problems(options(work_dir=name))
    assert found == f'--work-dir {name}: File name too long ({name}). Choose another'
    monkeypatch.setattr(checks.os, 'access', lambda path, mode: False)
    (found,) = checks.work_dir_problems(tmp_path / 'suite')
    assert 'nothing can be written to' in found


@pytest.mark.skipif(os.geteuid() == 0, reason='root may enter every folder')
def test_a_work_dir_below_a_folder_that_may_not_be_entered(tmp_path):
    closed = tmp_path / 'closed'
    closed.mkdir(mode=0o600)
    (found,) = checks.work_dir_problems(closed / 'a' / 'b')
    assert found.startswith(f'--work-dir {closed}/a/b: Permission denied')


def test_the_identity_of_a_run(options, checkpoint, miniscenes, tmp_path, monkeypatch):
    """Config, seed and content of the checkpoint; not the machine, nor where files lie."""
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
    shutil.copytree(miniscenes['pascal'], tmp_path / 'moved')
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / 'moved', 'moved/', './moved'):
        assert fingerprint(data=[f'pascal={place}']) == one
    assert fingerprint(cfg_options=['randomness.deterministic=True']) != one
    complete = fingerprint(tasks=['coco'])
    assert fingerprint(tasks=['coco'], gpus_per_run=2) == complete
    parts = ['optim_wrapper.accumulative_counts=2']
    assert fingerprint(tasks=['coco'], cfg_options=parts) != complete
    assert fingerprint(checkpoints=['random']) != one
    with copy.open('ab') as file:
        file.write(b'more')
    assert fingerprint(checkpoints=[f'x={copy}']) != one


def test_a_point_keeps_its_folder_in_other_words(options):
    changes = dict(tasks=['pascal'], seeds=2)
    words = ['lr=0.01,0.02', 'wd=0.1']
    first = make_plan(options(sweep=words, **changes))
    first.options.work_dir.mkdir()
    runner._note_plan(first, 'first')
    lr, wd = 'optim_wrapper.optimizer.lr', 'optim_wrapper.optimizer.weight_decay'
    for others in (words[::-1], [f'{lr}=1e-2,2e-2', 'wd=0.1'], [f'{wd}=0.1', 'lr=0.02,0.01']):
        again = make_plan(options(sweep=others, first_seed=1, **changes)).runs
        known = {run.fingerprint: run for run in first.runs if run.seed == 1}
        kept = [run for run in again if run.seed == 1]
        assert {run.fingerprint for run in kept} == {*known}
        for run in kept:
            assert run.work_dir == known[run.fingerprint].work_dir
            assert run.settings == known[run.fingerprint].settings
        more = {run.work_dir.parent for run in again if run.seed == 2}
        assert more == {run.work_dir.parent for run in first.runs}
    (other,) = make_plan(options(sweep=['wd=0.1', 'lr=0.03'], tasks=['pascal'])).runs
    assert other.name == 'pascal/random/wd0.1_lr0.03/seed0'


def test_all_problems_are_listed_at_once(options, checkpoint):
    twice = [str(checkpoint), str(checkpoint)]
    wrong = dict(checkpoints=twice, tasks=['pascl', 'coco'], seeds=0, sweep=['lr'], gpus=[7])
    text = '\n'.join(problems(options(**wrong)))
    for expected in ("mean 'pascal'?", '--seeds 0', 'NAME=VALUE', 'comes twice', '--gpus 7'):
        assert expected in text


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        (dict(checkpoints=[]), '--checkpoints: name at least one file'),
        (dict(checkpoints=['gone.pth']), '--checkpoints gone: There is no checkpoint gone.pth in'),
        (dict(checkpoints=['https://a/b.pth']), '--checkpoints b: https://a/b.pth is an address'),
        (dict(sweep=['layer_decay=0.5,0.6'], layer_decay=['0.8']), 'layer_decay.* swept twice'),
        (dict(sweep=['layer_decay=0.5'], frozen_backbone=True), 'means nothing with --frozen-'),
        (dict(protocol='papers'), 'choose among paper, stock, miniscenes'),
        (dict(first_seed=-1), '--first-seed -1: give 0 or more'),
        (dict(sweep=['optim_wrapper.optimizer.lrr=1']), r"no 'lrr' in optim_wrapper.*mean 'lr'\?"),
        (
            dict(sweep=['optimizer.lr=1,2']),
            "no run reads 'optimizer' .did you mean 'optim_wrapper.optimizer.lr'",
        ),
        (dict(sweep=['test_cfg.type=A,B']), '--sweep test_cfg.type: the score is that of val_'),
        (dict(sweep=['lr=0.1,abc']), '--sweep lr=abc: a finite number is needed, 0 or more'),
        (dict(sweep=['wd=inf']), '--sweep wd=inf: a finite number'),
        (dict(sweep=['wd=-1']), '--sweep wd=-1: a finite number is needed, 0 or more'),
        (dict(sweep=['lr==3']), '--sweep lr==3: write NAME=VALUE'),
        (dict(sweep=['lr=[1,2']), r'--sweep lr=\[1,2: Imbalanced brackets'),
        (dict(sweep=['train_cfg.max_iters=few']), 'max_iters=few: a finite number is needed$'),
        (dict(sweep=['lr=1'], cfg_options=['optim_wrapper.optimizer.lr=2']), 'sets it as well'),
        (dict(sweep=['optim_wrapper.accumulative_counts=1']), 'accumulative_counts'),
        (dict(sweep=['randomness.seed=1']), '--sweep randomness.seed: choose by --seeds'),
        (dict(cfg_options=['train_cfg.max_iters']), 'is no KEY=VALUE'),
        (dict(cfg_options=['voc:a=1']), 'names no task before the colon'),
        (dict(cfg_options=['work_dir=x']), 'choose by --work-dir'),
        (dict(cfg_options=['train_dataloader.batch_size=3']), 'auto_scale_lr.base_batch_size'),
        (dict(cfg_options=['auto_scale_lr.base_batch_size=None']), 'has no auto_scale_lr.base'),
        (dict(cfg_options=['x=[1,2']), 'Imbalanced brackets'),
        (dict(cfg_options=['param_scheduler.9.end=1']), '--cfg-options do not fit'),
        (dict(gpus_per_run=3), 'the batch of 8 images cannot be split over --gpus-per-run 3'),
        (dict(cfg_options=['optim_wrapper.accumulative_counts=0']), 'is 0: give 1 or more'),
        (dict(cfg_options=['optim_wrapper.accumulative_counts=2']), 'would shorten the schedule'),
        (
            dict(tasks=['coco'], cfg_options=['optim_wrapper.accumulative_counts=3']),
            'cannot be split over --gpus-per-run 1 x 3 of optim_wrapper.accumulative_counts',
        ),
        (dict(jobs=0), 'must be 1 or more'),
        (dict(launcher='slurm'), '--launcher slurm needs --partition'),
        (dict(launcher='slurm', partition='x', gpus=[0]), '--gpus: under --launcher slurm'),
        (dict(partition='gpu'), '--partition means nothing without --launcher slurm'),
        (dict(srun_args='--mem=0'), '--srun-args means nothing without --launcher slurm'),
        (dict(data=['voc']), '--data voc: write TASK=FOLDER'),
        (dict(data=["pascal='/a'"]), "--data pascal='/a': MMEngine would read another path"),
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


def test_settings_that_may_change_nothing_are_noted(options):
    read = ('env_cfg.cudnn_benchmark=True', 'pascal:optim_wrapper.optimizer.lr=1')
    unread = ('optimizer.lr=1', 'optim_wraper.optimizer.lr=1', 'pascal:train_cfg.max_iter=9')
    assert make_plan(options(cfg_options=read)).warnings == []
    plan = make_plan(options(cfg_options=[*read, *unread]))
    assert [run.cfg_options['optimizer.lr'] for run in plan.runs] == ['1', '1']
    of_coco = [text for text in plan.warnings if text.startswith('COCO: ')]
    of_pascal = [text for text in plan.warnings if text.startswith('PASCAL VOC: ')]
    assert len(of_coco) == 2
    for notes in (of_coco, of_pascal):
        assert "no run reads 'optimizer' (did you mean 'optim_wrapper.optimizer.lr'?)" in notes[0]
        assert "no run reads 'optim_wraper' (did you mean 'optim_wrapper'?)" in notes[1]
    (note,) = of_pascal[2:]
    assert "'max_iter' is new to train_cfg (did you mean 'max_iters'" in note


def test_a_checkpoint_of_another_network(options, tmp_path):
    file = tmp_path / 'r34.pth'
    torch.save(resnet34().state_dict(), file)
    (found,) = problems(options(checkpoints=[str(file)]))
    assert found.startswith('checkpoint r34 for PASCAL VOC, COCO: ')
    assert 'layer1.2' in found


def test_paths_may_have_blanks_and_commas(options, checkpoint, miniscenes, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    root = Path(shutil.copytree(miniscenes['pascal'], tmp_path / 'My Data, (2)'))
    file = shutil.copy(checkpoint, tmp_path / 'my file.pth')
    for place in (root, '~/My Data, (2)'):
        changes = dict(data=[f'pascal={place}'], checkpoints=[str(file)], tasks=['pascal'])
        (run,) = make_plan(options(**changes)).runs
        cfg = Config.fromfile(run.config_file)
        cfg.merge_from_dict(parse_options(setting_words(run.cfg_options)))
        assert cfg.model.backbone.checkpoint == str(file)
        assert Path(cfg.val_dataloader.dataset.data_root) == root


def test_missing_parts_of_a_data_set_are_named(options, miniscenes, tmp_path):
    voc, coco = tmp_path / 'voc', tmp_path / 'coco'
    shutil.copytree(miniscenes['pascal'], voc)
    shutil.copytree(miniscenes['coco'], coco)
    (voc / 'ImageSets/Segmentation/val.txt').unlink()
    shutil.rmtree(voc / 'SegmentationClass')
    (coco / 'annotations/instances_val2017.json').unlink()
    shutil.rmtree(coco / 'train2017')
    (coco / 'train2017').mkdir()
    text = '\n'.join(problems(options(data=[f'pascal={voc}', f'coco={coco}/'])))
    for expected in (
        f'VOC, val: .* {voc}/ImageSets/Segmentation/val.txt',
        f'there is no folder {voc}/SegmentationClass',
        f'COCO, val: .* {coco}/annotations/instances_val2017.json',
        f'COCO, evaluation: .* {coco}/annotations/instances_val2017.json',
        f'{coco}/train2017/ .*is empty',
        '--data pascal=FOLDER .*',
        '--cfg-options coco:KEY=VALUE',
    ):
        assert re.search(expected, text)


def test_gpus_are_shared_out(options, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    monkeypatch.setattr(jobs, 'count_cores', lambda: 8)

    def places(**changes) -> list[str]:
        places, _ = jobs.lay_out_places(options(**changes))
        return [place['CUDA_VISIBLE_DEVICES'] for place in places]

    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    assert places() == ['0', '1', '2', '3']
    assert places(gpus_per_run=2) == ['0,1', '2,3']
    assert places(gpus=[3, 1], jobs=1) == ['3']
    assert jobs.lay_out_places(options())[1] == 2
    assert jobs.lay_out_places(options(jobs=1))[1] == 3  # not more than was allowed
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', 'GPU-a,GPU-b,6,7')
    assert places(gpus_per_run=2) == ['GPU-a,GPU-b', '6,7']
    with pytest.raises(ValueError, match='needs 6 GPUs, and there are 4'):
        places(gpus_per_run=2, jobs=3)
    with pytest.raises(ValueError, match='one comes twice'):
        places(gpus=[1, 1])


def test_a_disk_that_is_too_small(options, monkeypatch):
    usage = shutil.disk_usage('/')._replace(free=10_000_000)
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: usage)
    (found,) = problems(options())
    assert 'checkpoints of 2 runs need' in found
    assert '0.0 GB are free' in found


def test_a_package_that_is_not_installed(options, monkeypatch):
    monkeypatch.setattr(checks.importlib.util, 'find_spec', lambda name: None)
    assert problems(options(tasks=['coco'])) == ['COCO needs mmdet: pip install "vito_mm[det]"']


def test_labels():
    assert label_checkpoints(['a.pth', 'x/a.pth', 'random', 'VITO=b.pth']) == {
        'a': Path('a.pth'),
        'x-a': Path('x/a.pth'),
        'random': None,
        'VITO': Path('b.pth'),
    }
    assert label_checkpoints(['VITO=~/b.pth']) == {'VITO': Path.home() / 'b.pth'}
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
    for words, expected in (
        (['lr=0.1,lr=0.2'], 'is swept twice'),
        (['lr=0.1', 'optim_wrapper.optimizer.lr=0.2'], 'is swept twice'),
        (['lr=0.1,1e-1'], 'comes twice'),
        (['lr=0.1,'], 'write NAME=VALUE'),
    ):
        with pytest.raises(ValueError, match=expected):
            parse_sweep(words)


def test_folder_names_are_safe_and_differ():
    assert folder_name('VITO-300.ep') == 'VITO-300.ep'
    names = {folder_name(text) for text in ('a b', 'a/b', 'a_b', '..', '.', 'x' * 300)}
    assert len(names) == 6
    assert all(name.strip('.') and '/' not in name and len(name) < 100 for name in names)
    assert settings_name(()) == 'default'
    assert settings_name((('lr', 0.01), ('wd', 5e-4))) == 'lr0.01_wd0.0005'
