"""Hooks in real runs of MMEngine's runner."""

import csv
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from tests.conftest import REPO
from vito_mm.launch import build_runner


def tiny_config(video_folder, work_dir, **options) -> Config:
    """The shipped recipe at a width and size that takes milliseconds."""
    cfg = Config.fromfile(REPO / 'configs/miniscenes/pretrain_r18.py')
    cfg.work_dir, cfg.launcher = str(work_dir), 'none'
    cfg.experiment_name = f'{work_dir.parent.name}_{work_dir.name}'
    cfg.merge_from_dict(
        {
            'model.backbone.base_channels': 16,
            'model.backbone.stem_channels': 16,
            'model.neck.in_channels': (64, 128),
            'model.projector.in_channels': 192,
            'model.projector.hid_channels': 16,
            'model.projector.out_channels': 8,
            'train_dataloader.batch_size': 4,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_dataloader.dataset.data_root': str(video_folder),
            'train_dataloader.dataset.ann_file': '',
            'train_cfg.max_iters': 4,
            'default_hooks.logger.interval': 1,
            'default_hooks.checkpoint.interval': 2,
            **options,
        }
    )
    return cfg


def run(cfg: Config) -> Runner:
    runner = build_runner(cfg)
    runner.train()
    return runner


def scalars(work_dir) -> list[dict]:
    (file,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(('accumulative_counts', 'updates'), [(1, 6), (2, 3), (3, 2)])
def test_target_moves_once_for_each_optimizer_step(
    video_folder, tmp_path, accumulative_counts, updates
):
    options = {
        'train_cfg.max_iters': 6,
        'optim_wrapper.accumulative_counts': accumulative_counts,
        'default_hooks.checkpoint.interval': 6,
    }
    runner = run(tiny_config(video_folder, tmp_path / 'run', **options))
    # The first of the counted updates is the copy before the first step.
    assert runner.model.target_net.steps.item() == 1 + updates


@pytest.mark.parametrize('micro_batch_size', [None, 2])
def test_log_and_checkpoint_hold_what_a_user_looks_for(video_folder, tmp_path, micro_batch_size):
    options = {'model.micro_batch_size': micro_batch_size}
    runner = run(tiny_config(video_folder, tmp_path / 'run', **options))
    lines = scalars(tmp_path / 'run')
    assert [line['step'] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        assert line['loss'] > 0
        for key in ('pair_nll', 'top1_acc', 'similarity_pos', 'similarity_neg', 'embedding_std'):
            assert key in line
    checkpoint = torch.load(tmp_path / 'run' / 'iter_4.pth')
    assert {'state_dict', 'optimizer', 'message_hub', 'meta'} <= set(checkpoint)
    target = checkpoint['state_dict']['target_net.module.0.conv1.weight']
    assert torch.equal(target, runner.model.target_net.module[0].conv1.weight)
    assert not torch.equal(target, checkpoint['state_dict']['backbone.conv1.weight'])
    preprocessing = checkpoint['meta']['preprocessing']
    assert preprocessing['channel_order'] == 'rgb'
    assert preprocessing['mean'] == [123.675, 116.28, 103.53]


def test_the_config_beside_the_log_makes_the_same_views(video_folder, tmp_path):
    """MMEngine sorts its keys, and with them named stages: crop would come after the jitter."""
    cfg = tiny_config(video_folder, tmp_path / 'run', **{'train_cfg.max_iters': 1})
    names = [
        dict(
            first=dict(type='RandomFlip', prob=0.5),
            a_second=dict(type='RandomResizedCrop', scale=32),
        )
    ]
    augment = next(s for s in _stages(cfg) if s['type'] == 'AugmentViews')
    augment['pipelines'] = dict(z=names[0], b=names[0])
    cfg.train_dataloader.dataset.pipeline = {
        f'{"zyxwv"[i]}_stage': stage for i, stage in enumerate(_stages(cfg))
    }
    first = run(cfg)
    saved = Config.fromfile(next((tmp_path / 'run').glob('*.py')))
    saved.work_dir = str(tmp_path / 'again')
    second = run(saved)
    orders = [
        [type(step).__name__ for step in runner.train_dataloader.dataset.pipeline.transforms]
        for runner in (first, second)
    ]
    assert orders[0] == orders[1]
    views = [
        [type(step).__name__ for step in pipeline.transforms]
        for runner in (first, second)
        for step in runner.train_dataloader.dataset.pipeline.transforms
        for pipeline in getattr(step, 'pipelines', ())
    ]
    assert views == [['RandomFlip', 'RandomResizedCrop']] * 4


def _stages(cfg: Config) -> list:
    pipeline = cfg.train_dataloader.dataset.pipeline
    return list(pipeline.values()) if isinstance(pipeline, dict) else list(pipeline)


def test_resume_goes_on_with_the_target_of_the_checkpoint(video_folder, tmp_path):
    """Fails on stock MMEngine 0.10.7 with torch >= 2.6, which refuses its own checkpoint."""
    run(tiny_config(video_folder, tmp_path / 'run'))
    saved = torch.load(tmp_path / 'run' / 'iter_4.pth')['state_dict']
    cfg = tiny_config(video_folder, tmp_path / 'run', **{'train_cfg.max_iters': 5})
    cfg.resume = True
    runner = run(cfg)
    assert runner.iter == 5
    assert runner.model.target_net.steps.item() == saved['target_net.steps'].item() + 1


def test_bad_videos_are_counted_logged_and_listed(video_folder, tmp_path):
    (video_folder / 'empty.mp4').touch()
    (video_folder / 'page.mp4').write_text('<html>404</html>')
    run(tiny_config(video_folder, tmp_path / 'run', **{'train_cfg.max_iters': 8}))
    (listed,) = (tmp_path / 'run').glob('*/skipped_videos.csv')
    with listed.open(newline='') as lines:
        rows = list(csv.DictReader(lines))
    reasons = {row['path'].rsplit('/')[-1]: row['reason'] for row in rows}
    assert set(reasons) == {'empty.mp4', 'page.mp4'}
    assert len(rows) == 2  # each once, however often it was drawn
    assert '0 bytes' in reasons['empty.mp4']
    (log,) = (tmp_path / 'run').glob('*/*.log')
    text = log.read_text()
    assert text.count('skipped video') == 2
    assert 'of 2 unreadable videos' in text
    assert scalars(tmp_path / 'run')[-1]['skipped_videos'] >= 2


def test_training_stops_when_nothing_can_be_read(tmp_path):
    folder = tmp_path / 'videos'
    folder.mkdir()
    (folder / 'empty.mp4').touch()
    with pytest.raises(RuntimeError, match=r'empty\.mp4: is empty'):
        run(tiny_config(folder, tmp_path / 'run'))


def test_weights_follow_the_data(textured_folder, tmp_path):
    """The loss falls on a handful of clips, so gradients reach the backbone through it all."""
    # A target that follows quickly, and means over enough steps that single ones do not decide.
    quick = {'train_cfg.max_iters': 60, 'model.base_momentum': 0.9}
    cfg = tiny_config(textured_folder, tmp_path / 'run', **quick)
    cfg.param_scheduler = []

    runner = build_runner(cfg)
    before = runner.model.backbone.conv1.weight.detach().clone()
    runner.train()
    assert not torch.equal(before, runner.model.backbone.conv1.weight)
    history, _ = runner.message_hub.get_scalar('train/loss').data
    assert history[-15:].mean() < history[:15].mean()
