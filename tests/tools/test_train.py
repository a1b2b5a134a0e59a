"""The commands that users type, as they type them."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from _arguments import add_common_arguments
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from tests.conftest import REPO, with_original_mim, write_video
from tests.helpers.processes import forked, free_port, run_tool, shell, user_environment
from vito_mm.datasets import VideoDataset
from vito_mm.launch import apply_options, list_stages, load_config, parse_options
from vito_mm.videos import write_manifest

CONFIG = REPO / 'configs/vito/pretrain_r50.py'


def tiny_options(folder: Path, max_iters: int = 2) -> list[str]:
    return [
        '--cfg-options',
        f'train_dataloader.dataset.data_root={folder}',
        'train_dataloader.batch_size=2',
        'train_dataloader.num_workers=1',
        'model.backbone.depth=18',
        'model.backbone.base_channels=16',
        'model.backbone.stem_channels=16',
        'model.neck.in_channels=(64,128)',
        'model.projector.in_channels=192',
        'model.projector.hid_channels=16',
        *(
            f'train_dataloader.dataset.pipeline.augment.pipelines.{view}.crop.scale=64'
            for view in ('A1', 'A2')
        ),
        f'train_cfg.max_iters={max_iters}',
        'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.interval=2',
    ]


def test_paper_recipe_runs_on_one_cpu_and_resumes(video_folder, tmp_path):
    run = shell(
        *(sys.executable, 'tools/train.py', CONFIG, '--work-dir', tmp_path / 'run'),
        *('--videos', video_folder, *tiny_options(tmp_path / 'nowhere')),
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert 'training in float32 instead of mixed precision' in run.stderr + run.stdout
    assert 'is skipped since its requires_grad' not in run.stdout + run.stderr
    weights = torch.load(tmp_path / 'run' / 'iter_2.pth')['state_dict']
    assert 'backbone.conv1.weight' in weights

    # The old spelling of the local rank, and the latest checkpoint by itself; bfloat16 if asked.
    run = shell(
        *(sys.executable, 'tools/train.py', CONFIG, '--work-dir', tmp_path / 'run'),
        *('--resume', '--amp', '--local_rank=0', *tiny_options(video_folder, max_iters=4)),
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert 'in float32' not in run.stderr + run.stdout
    assert 'Iter(train) [3/4]' in run.stdout + run.stderr
    assert 'Iter(train) [1/4]' not in run.stdout + run.stderr
    assert (tmp_path / 'run' / 'iter_4.pth').exists()


def test_dist_train_runs_on_two_cpu_processes(video_folder, tmp_path):
    run = shell(
        *('tools/dist_train.sh', CONFIG, 2, '--work-dir', tmp_path / 'run'),
        *tiny_options(video_folder),
    )
    assert run.returncode == 0, run.stderr[-3000:]
    output = run.stdout + run.stderr
    assert 'gloo instead of NCCL' in output
    assert 'SyncBN becomes BN' in output
    assert 'Iter(train) [2/2]' in output
    assert (tmp_path / 'run' / 'iter_2.pth').exists()


@pytest.mark.slow
def test_two_machines_on_one_host(video_folder, tmp_path):
    """Two launches with NNODES=2, as on two machines."""
    place = dict(NNODES='2', MASTER_ADDR='127.0.0.1', PORT=free_port())
    command = ['tools/dist_train.sh', CONFIG, '1', '--work-dir', tmp_path / 'run']
    command = [str(part) for part in (*command, *tiny_options(video_folder))]
    nodes = [
        subprocess.Popen(
            command,
            cwd=REPO,
            env=user_environment(**place, NODE_RANK=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    outputs = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs[0][-3000:]
    assert 'Iter(train) [2/2]' in outputs[0]


def test_a_second_machine_without_address_is_told_what_is_missing():
    run = shell('tools/dist_train.sh', CONFIG, 2, NNODES='2')
    assert run.returncode == 2
    assert 'MASTER_ADDR' in run.stderr
    assert 'NODE_RANK' in run.stderr


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh'])
def test_scripts_tell_their_usage(script):
    run = shell(f'tools/{script}')
    assert run.returncode == 2
    assert run.stderr.startswith('usage: ')


def test_slurm_train_asks_srun_for_one_task_a_gpu(tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ['PATH']])
    env = {**os.environ, 'PATH': path, 'GPUS': '16', 'SRUN_ARGS': '--time=1:00 --exclusive'}
    command = ['tools/slurm_train.sh', 'part', 'job', str(CONFIG), 'wd', '--resume']
    run = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, check=True)
    words = run.stdout.split()
    assert {'--partition=part', '--job-name=job', '--ntasks=16', '--ntasks-per-node=8'} <= set(
        words
    )
    assert {'--gres=gpu:8', '--time=1:00', '--exclusive', '--kill-on-bad-exit=1'} <= set(words)
    assert words[-7:] == [
        *(str(REPO / 'tools/train.py'), str(CONFIG), '--work-dir', 'wd'),
        *('--launcher', 'slurm', '--resume'),
    ]


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh'])
def test_names_reach_the_python_process_as_they_are(tmp_path, script):
    program = tmp_path / 'a program'
    program.write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
    program.chmod(0o755)
    (tmp_path / 'srun').symlink_to(program)
    path = os.pathsep.join([str(tmp_path), os.environ['PATH']])
    env = {**os.environ, 'PATH': path, 'PYTHON': str(program)}
    names = ['-my config.py', '$(touch x) `touch x`;touch x', '*', 'a\n"b"', "it's", '=1+1']
    before = ['part', 'a job'] if script == 'slurm_train.sh' else []
    first, rest = names[: 1 if script == 'dist_train.sh' else 2], names[2:]
    gpus = [] if before else ['1']
    run = subprocess.run(
        ['bash', str(REPO / 'tools' / script), *before, *first, *gpus, *rest],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    words = run.stdout.split('\0')
    assert set(first + rest) <= set(words)
    assert sorted(os.listdir(tmp_path)) == ['a program', 'srun']


@pytest.mark.parametrize('name', ['My Videos,2', '123', '~/[clips] (1), 3', '1e3'])
def test_folders_and_files_are_taken_as_they_are_typed(name, tmp_path, monkeypatch):
    """Blanks, commas, digits and the home folder, where MMEngine makes something else of them."""
    monkeypatch.setenv('HOME', str(tmp_path))
    write_video(tmp_path / name.removeprefix('~/') / 'a.mp4', num_frames=5)
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_common_arguments(parser)
    options = [f'train_dataloader.dataset.data_root={name}', 'model.neck.in_channels=64,128']
    options += ['load_from=None', 'train_dataloader.dataset.ann_file=', 'custom_hooks.0.data=5']
    options += ['model.head.mask_same_file=False', 'model.backbone.drop_path=0.1']
    args = parser.parse_args([str(CONFIG), '--cfg-options', *options])
    values = parse_options(args.cfg_options)
    assert values['model.neck.in_channels'] == [64, 128]
    assert values['custom_hooks.0.data'] == '5'
    assert values['model.head.mask_same_file'] is False
    assert values['model.backbone.drop_path'] == 0.1
    for key in ('custom_hooks.0.data=5', 'model.backbone.drop_path=0.1'):
        args.cfg_options.remove(key)
    cfg = load_config(args)
    assert cfg.load_from is None
    dataset = cfg.train_dataloader.dataset
    found = VideoDataset(dataset.data_root, dataset.ann_file)
    assert [Path(row['path']).name for row in found.load_data_list()] == ['a.mp4']


@pytest.mark.parametrize('kind', ['folder', 'list.jsonl'])
@pytest.mark.parametrize('name', ['vito/pretrain_r50.py', 'miniscenes/pretrain_r18.py'])
def test_videos_by_a_short_option(kind, name, tmp_path):
    """In the place of the folder, and of the manifest, that the config names."""
    video = write_video(tmp_path / 'clips' / 'a.mp4', num_frames=5)
    write_manifest(tmp_path / 'list.jsonl', [dict(path='clips/a.mp4')])
    place = tmp_path / 'clips' if kind == 'folder' else tmp_path / kind
    args = argparse.Namespace(
        config=REPO / 'configs' / name,
        videos=str(place),
        **dict(work_dir=None, cfg_options=None, launcher='none', local_rank=0),
    )
    dataset = load_config(args).train_dataloader.dataset
    found = VideoDataset(dataset.data_root, dataset.ann_file)
    assert [row['path'] for row in found.load_data_list()] == [str(video)]


def test_a_blank_that_the_shell_took_apart_is_explained(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    words = ['train_dataloader.dataset.data_root=/data/My', 'Videos']
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', *words])
    error = capsys.readouterr().err
    assert '"train_dataloader.dataset.data_root=/data/My Videos"' in error


@pytest.mark.parametrize('key', ['data_root', 'ann_file'])
@pytest.mark.parametrize('text', ['/data/My Videos,2', '123'])
def test_what_mmengine_makes_of_a_folder_is_named(key, text):
    """Of a tool of another library, which parses by itself."""
    value = DictAction._parse_iterable(text)
    with pytest.raises(ValueError, match=rf'^{key} is .*a config file.*{key}="/data/My Videos,2"'):
        VideoDataset(**{key: value})


def test_home_folder_in_a_config(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    write_video(tmp_path / 'videos' / 'a.mp4', num_frames=5)
    assert len(VideoDataset('~/videos')) == 1


@with_original_mim
def test_mim_trains_our_package_by_the_name_of_a_config(video_folder, tmp_path):
    """From another folder; without data workers, videos in a folder with a blank and a comma."""
    folder = video_folder.rename(tmp_path / 'My Videos, 2')
    options = [text for text in tiny_options(folder) if 'num_workers' not in text]
    run = shell(
        *(sys.executable, '-m', 'mim', 'train', 'vito_mm', 'pretrain_r50.py', '--work-dir', 'run'),
        *(*options, 'train_dataloader.num_workers=0', 'train_dataloader.prefetch_factor=1'),
        cwd=tmp_path,
        bare=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert (tmp_path / 'run' / 'iter_2.pth').exists()


FROM_PYTHON = """
import sys
import vito_mm
from mmengine.config import Config
from vito_mm.launch import apply_options, build_runner
file, *options = sys.argv[1:]
cfg = Config.fromfile(file)
apply_options(cfg, options)
cfg.work_dir, cfg.launcher = file.replace('mine.py', 'python'), 'none'
build_runner(cfg).train()
"""


def test_a_config_elsewhere_that_is_based_on_ours_trains(video_folder, tmp_path):
    config = tmp_path / 'mine.py'
    config.write_text("_base_ = 'vito_mm::vito/pretrain_r50.py'\nmodel = dict(base_momentum=0.9)\n")
    options = tiny_options(video_folder, max_iters=1)
    tool = [REPO / 'tools/train.py', config, '--work-dir', tmp_path / 'tool', *options]
    script = tmp_path / 'script.py'
    script.write_text(FROM_PYTHON)
    for done in forked(tmp_path, tool, [script, config, *options[1:]], environments=({}, {})):
        assert done.returncode == 0, done.stderr[-3000:]
        assert 'Iter(train) [1/1]' in done.stdout + done.stderr
    losses = [
        json.loads(file.read_text().splitlines()[0])['loss']
        for file in tmp_path.glob('*/*/vis_data/scalars.json')
    ]
    assert len(losses) == 2
    assert losses[0] == losses[1]


def test_a_key_that_is_new_to_the_config_is_told(monkeypatch):
    told = []
    monkeypatch.setattr('vito_mm.launch.print_log', lambda text, **_: told.append(text))
    cfg = Config.fromfile(CONFIG)
    words = ['optim_wraper.optimizer.lr=5', 'model.backbone.stem=3', 'optim_wrapper.optimizer.lr=2']
    apply_options(cfg, [*words, 'param_scheduler.0.begin=1'])
    assert cfg.optim_wrapper.optimizer.lr == 2
    assert len(told) == 2
    assert "'optim_wraper'" in told[0]
    assert "did you mean 'optim_wrapper'" in told[0]
    assert "'stem'" in told[1]


def test_a_loop_that_others_build_needs_no_data_workers(video_folder, tmp_path):
    """MMEngine's runner, as in a notebook."""
    from tests.engine.test_hooks import tiny_config

    cfg = tiny_config(video_folder, tmp_path / 'run')
    cfg.train_dataloader.update(num_workers=0, persistent_workers=True, prefetch_factor=2)
    cfg.train_cfg.max_iters = 1
    list_stages(cfg)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 1


@pytest.mark.parametrize(
    ('tool', 'words', 'message'),
    [
        ('train.py', ['nowhere.py'], r"^there is no config file 'nowhere\.py'$"),
        ('train.py', ['pretrain_r5.py'], r"did you mean 'pretrain_r50\.py'"),
        ('train.py', ['vito_mm::vito/pretrain_r5.py'], r"mean 'vito_mm::vito/pretrain_r50\.py'"),
        ('train.py', ['mmdet::retinanet_r50_fpn_1x_coco.py'], r"mean '.*retinanet_r50_fpn"),
        ('train.py', ['nowhere::a/b.py'], r"no config 'nowhere::a/b\.py': .*nowhere"),
        ('train.py', [CONFIG, '--videos', 'nowhere'], r'^--videos nowhere: .*\.parquet'),
        (
            'browse_views.py',
            [CONFIG, '--videos', CONFIG],
            '^--videos .*no such folder, or manifest',
        ),
        (
            'train.py',
            [REPO / 'configs/miniscenes/seg_pascal.py', '--videos', REPO],
            'trains on 0 sets of videos',
        ),
        ('test.py', [CONFIG, 'any.pth'], 'no test_dataloader'),
        ('train.py', [CONFIG, '--cfg-options', 'a=[1,2'], 'Imbalanced brackets'),
        ('train.py', [CONFIG, '--cfg-options', '=1'], 'no KEY=VALUE'),
        (
            'train.py',
            [CONFIG, '--cfg-options', 'train_dataloader.batchsize=1'],
            "^train_dataloader.batchsize: .*'batch_size'",
        ),
        (
            'train.py',
            [CONFIG, '--cfg-options', 'train_dataloader.dataset.dataroot=x'],
            "^train_dataloader.dataset.dataroot: VideoDataset .*'data_root'",
        ),
        (
            'train.py',
            [
                REPO / 'configs/miniscenes/det_coco.py',
                *('--cfg-options', 'val_dataloader.dataset.anfile=x'),
            ],
            "^val_dataloader.dataset.anfile: .*'ann_file'",
        ),
    ],
)
def test_errors_of_the_command_line(tool, words, message, monkeypatch):
    with pytest.raises(SystemExit, match=message):
        run_tool(monkeypatch, tool, *words)


def test_no_videos_is_one_clear_error(tmp_path, monkeypatch):
    words = [CONFIG, '--work-dir', tmp_path / 'run', *tiny_options(tmp_path / 'nowhere')]
    with pytest.raises(Exception, match=f"there is no folder '{tmp_path}/nowhere' to take videos"):
        run_tool(monkeypatch, 'train.py', *words)


def test_a_config_may_leave_out_the_kind_of_its_optimizer_wrapper(monkeypatch, tmp_path):
    """As most of mmpretrain's: the tool comes to what is wrong with this one."""
    words = [REPO / 'configs/protocols/ucf101_r50.py', '--work-dir', tmp_path, '--cfg-options']
    with pytest.raises(SystemExit, match='RepeatDataset'):
        run_tool(monkeypatch, 'train.py', *words, 'train_dataloader.dataset.data_root=x')
