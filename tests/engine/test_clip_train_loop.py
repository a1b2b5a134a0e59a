"""Epochs in clips, and settings that do not fit."""

import pytest

from tests.engine.test_hooks import run, tiny_config
from vito_mm.engine.launch import build_runner

EPOCHS = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        begin=0,
        end=10,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=290,
        begin=10,
        end=300,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]


def started(cfg):
    """A runner as it is when training begins."""
    runner = build_runner(cfg)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    return runner


@pytest.mark.parametrize(
    ('batch', 'accumulation', 'steps'), [(4096, 1, 93_750), (512, 8, 750_000), (1000, 1, 384_000)]
)
def test_an_epoch_is_a_number_of_clips(video_folder, tmp_path, batch, accumulation, steps):
    """The published 93,750 steps at batch 4096, from the same numbers at any batch size."""
    cfg = tiny_config(
        video_folder,
        tmp_path / 'run',
        **{
            'train_dataloader.batch_size': batch,
            'optim_wrapper.accumulative_counts': accumulation,
        },
    )
    cfg.param_scheduler = EPOCHS
    cfg.train_cfg = dict(type='ClipTrainLoop', max_epochs=300, clips_per_epoch=1_280_000)
    cfg.auto_scale_lr = dict(enable=True, base_batch_size=4096)
    cfg.optim_wrapper.optimizer.lr = 4.8
    runner = started(cfg)
    assert runner.max_iters == steps
    assert runner.max_epochs == pytest.approx(300)
    warm_up, cosine = runner.param_schedulers
    assert (warm_up.begin, warm_up.end) == (0, steps // 30)
    assert (cosine.begin, cosine.end, cosine.T_max) == (steps // 30, steps, steps * 29 // 30)
    # The rate belongs to an optimizer step: batch times accumulation.
    group = runner.optim_wrapper.optimizer.param_groups[0]
    assert group['initial_lr'] == pytest.approx(4.8 * batch * accumulation / 4096)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'train_dataloader.batch_size': 1}, r'train_dataloader\.batch_size is 1'),
        ({'model.micro_batch_size': 3}, r'batch_size=4 is no multiple .*micro_batch_size=3'),
        ({'train_dataloader.sampler.type': 'InfiniteSampler'}, r'train_dataloader\.sampler'),
        ({'train_cfg.clips_per_epoch': 0}, r'train_cfg\.clips_per_epoch'),
        (
            {'train_cfg.max_iters': None, 'train_cfg.max_epochs': 0.1},
            None,
        ),
        (
            {
                'train_cfg.max_iters': None,
                'train_cfg.max_epochs': 1,
                'train_cfg.clips_per_epoch': 1,
            },
            'max_epochs=1 of clips_per_epoch=1 are less than one batch of 4',
        ),
        ({'train_cfg.max_iters': None, 'train_cfg.max_epochs': None}, 'max_epochs or max_iters'),
        ({'randomness.diff_rank_seed': True}, r'randomness\.diff_rank_seed'),
        (
            {'optim_wrapper.accumulative_counts': 4, 'default_hooks.checkpoint.interval': 6},
            r'checkpoint\.interval=6 is no multiple',
        ),
        ({'optim_wrapper.type': 'OptimWrapper'}, r'optim_wrapper\.type="GuardedOptimWrapper"'),
        ({'model.head.temperature': 0}, 'temperature must be positive'),
        (
            {'model.neck.in_channels': (64, 64), 'model.projector.in_channels': 128},
            r'out_indices .*in_channels',
        ),
        ({'model.projector.in_channels': 191}, r'projector\.in_channels does not fit the 192'),
        ({'model.backbone.out_indices': (3,)}, r'backbone\.out_indices=\(3,\)'),
    ],
)
def test_settings_that_do_not_fit_are_named_before_the_first_step(
    video_folder, tmp_path, options, message
):
    cfg = tiny_config(video_folder, tmp_path / 'run')
    cfg.merge_from_dict(options)
    if message is None:
        assert started(cfg).max_iters == 32_000
        return
    with pytest.raises(ValueError, match=message):
        run(cfg)


def test_another_batch_than_the_rate_is_for_is_told(video_folder, tmp_path):
    cfg = tiny_config(video_folder, tmp_path / 'run')
    started(cfg)
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert 'is for 32 clips an optimizer step, this run has 4' in log.read_text()
