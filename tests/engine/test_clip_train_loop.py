"""Epochs in clips, and settings that do not fit."""

import multiprocessing

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from tests.conftest import REPO
from tests.engine.test_hooks import run, tiny_config
from tests.engine.test_warm_up_lr import byol, rates_of
from vito_mm.engine.schedule_length import in_iterations
from vito_mm.launch import apply_options, build_runner

RECIPE = Config.fromfile(REPO / 'configs/vito/pretrain_r50.py')


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
    cfg.param_scheduler, cfg.train_cfg = RECIPE.param_scheduler, RECIPE.train_cfg
    cfg.auto_scale_lr = dict(enable=True, base_batch_size=4096)
    cfg.optim_wrapper.optimizer.lr = 4.8
    runner = started(cfg)
    assert runner.max_iters == steps
    assert runner.max_epochs == pytest.approx(300)
    warm_up, cosine = runner.param_schedulers
    # The first step of the cosine has the base rate, which warm-up sets.
    assert (warm_up.begin, warm_up.end - 1, warm_up.total_iters) == (0, steps // 30, steps // 30)
    assert (cosine.begin, cosine.end, cosine.T_max) == (steps // 30, steps, steps * 29 // 30)
    # The rate belongs to an optimizer step: batch times accumulation.
    group = runner.optim_wrapper.optimizer.param_groups[0]
    assert group['initial_lr'] == pytest.approx(4.8 * batch * accumulation / 4096)


def rates(runner) -> list[float]:
    """Learning rate of every step of a run, without its training."""
    return rates_of(runner.optim_wrapper.optimizer, runner.param_schedulers, runner.max_iters)


@pytest.mark.parametrize('max_iters', [1, 2, 16, 100, 1000])
@pytest.mark.parametrize('name', ['vito/pretrain_r50.py', 'miniscenes/pretrain_r50_study.py'])
def test_a_short_run_does_the_whole_schedule(video_folder, tmp_path, name, max_iters):
    """The formula of BYOL's code with a warm-up of a 30th, or a 20th, of the steps."""
    recipe = Config.fromfile(REPO / 'configs' / name)
    cfg = tiny_config(video_folder, tmp_path / 'run')
    cfg.param_scheduler, cfg.train_cfg = recipe.param_scheduler, recipe.train_cfg
    cfg.train_cfg.max_iters = max_iters
    base = cfg.optim_wrapper.optimizer.lr
    warm_up = round(max_iters / (30 if name.startswith('vito') else 20))
    for step, rate in enumerate(rates(started(cfg))):
        assert rate == pytest.approx(byol(step, warm_up, max_iters, base), abs=1e-9 * base), step


def test_more_steps_than_the_epochs_have_stretch_the_schedule(video_folder, tmp_path):
    cfg = tiny_config(video_folder, tmp_path / 'run')
    cfg.param_scheduler = RECIPE.param_scheduler
    cfg.train_cfg = dict(RECIPE.train_cfg, clips_per_epoch=4, max_iters=600)  # instead of 300
    for step, rate in enumerate(rates(started(cfg))):
        assert rate == pytest.approx(byol(step, 20, 600, 1e-3), abs=1e-12), step


def test_fewer_epochs_have_the_whole_schedule(video_folder, tmp_path):
    """Epochs of no whole number of steps; all of them have the schedule as it is stated."""
    for epochs, steps in ((100, 167), (300, 500)):
        cfg = tiny_config(
            video_folder, tmp_path / f'run{epochs}', **{'train_dataloader.batch_size': 6}
        )
        cfg.param_scheduler = RECIPE.param_scheduler
        cfg.train_cfg = dict(RECIPE.train_cfg, clips_per_epoch=10, max_epochs=epochs)
        runner = started(cfg)
        assert runner.max_iters == steps
        found = rates(runner)
        assert found[0] == 0
        assert max(found) == pytest.approx(1e-3, rel=1e-2)
        assert found[-1] < 1e-6
        (log,) = (tmp_path / f'run{epochs}').glob('*/*.log')
        assert ('ends after 500 iterations' in log.read_text()) == (epochs == 100)


def test_more_epochs_than_the_schedule_has_are_told(video_folder, tmp_path):
    cfg = tiny_config(video_folder, tmp_path / 'run')
    cfg.param_scheduler = RECIPE.param_scheduler
    cfg.train_cfg = dict(RECIPE.train_cfg, clips_per_epoch=4, max_epochs=600)
    assert rates(started(cfg))[300:] == pytest.approx([0] * 300, abs=1e-6)
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert 'ends after 300 iterations, this run has 600' in log.read_text()


def test_a_linear_warm_up_of_mmengine_is_shortened_too(video_folder, tmp_path):
    """0.1 to 1 in 20 of 1000 steps: 2 of 100, and none of 40, where it would end at 0.1."""
    for steps, expected in ((100, [1e-4, 1e-3, 1e-3]), (40, [1e-3])):
        cfg = tiny_config(video_folder, tmp_path / f'run{steps}', **{'train_cfg.max_iters': steps})
        found = rates(started(cfg))
        assert found[: len(expected)] == pytest.approx(expected)
        assert 0 < found[-1] < 1e-5


def test_steps_of_other_schedulers_are_shortened():
    schedulers = [
        dict(type='MultiStepLR', milestones=[60, 80], by_epoch=True, convert_to_iter_based=True),
        dict(type='StepLR', step_size=30, begin=10, end=100, by_epoch=False),
        dict(type='CosineAnnealingLR', T_max=50, begin=0, end=100, by_epoch=False),
    ]
    several, single, wave = in_iterations(schedulers, 5, 0.1)
    assert several == dict(type='MultiStepLR', milestones=[30, 40], begin=0, by_epoch=False)
    assert single == dict(type='StepLR', step_size=3, begin=1, end=10, by_epoch=False)
    assert wave['T_max'] == 5


def test_a_schedule_that_is_typed_stays_and_is_told(video_folder, tmp_path):
    cfg = tiny_config(video_folder, tmp_path / 'run')
    apply_options(cfg, ['train_cfg.max_iters=100', 'param_scheduler.1.end=2000'])
    runner = started(cfg)
    assert [scheduler.end for scheduler in runner.param_schedulers] == [20, 2000]
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert 'ends after 2000 iterations, this run has 100, and is left' in log.read_text()


def test_a_resumed_schedule_that_is_too_short_is_told(video_folder, tmp_path):
    for steps in (2, 3):
        cfg = tiny_config(video_folder, tmp_path / 'run', **{'train_cfg.max_iters': steps})
        cfg.resume = steps == 3
        run(cfg)
    log = max((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'ends after 2 iterations, this run has 3' in log


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
        (
            {'optim_wrapper.type': 'OptimWrapper'},
            r'optim_wrapper\.type="SkipNonFiniteOptimWrapper"',
        ),
        ({'model.head.temperature': 0}, 'temperature must be positive'),
        (
            {'model.neck.in_channels': (64, 64), 'model.projector.in_channels': 128},
            r'out_indices .*in_channels',
        ),
        ({'model.projector.in_channels': 191}, r'projector\.in_channels does not fit the 192'),
        ({'model.backbone.out_indices': (3,)}, r'backbone\.out_indices=\(3,\)'),
        ({'model.backbone.out_indices': (3, 4)}, r'out_indices=\(3, 4\)'),
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
    assert 'is for 32 clips per optimizer step, this run has 4' in log.read_text()


def test_random_layers_draw_the_same_after_a_restart(textured_folder, tmp_path):
    """Drop path: its numbers belong to the iteration, not to what the process drew before."""

    def state(name: str, *stops: int) -> dict:
        for stop in stops:
            cfg = tiny_config(
                textured_folder,
                tmp_path / name,
                **{'model.backbone.drop_path_rate': 0.5, 'train_cfg.max_iters': 4},
            )
            cfg.resume = stop != stops[0]
            runner = build_runner(cfg)
            if cfg.resume:
                torch.manual_seed(99)
            if stop < 4:
                runner.register_hook(Stop(stop))
            runner.train()
        return torch.load(tmp_path / name / 'iter_4.pth')['state_dict']

    first, second = state('whole', 4), state('parts', 2, 4)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize('fails', [False, True], ids=['to the end', 'by an error'])
def test_no_data_worker_outlives_the_training(textured_folder, tmp_path, fails):
    """With pinned memory Python would wait five seconds for each of them before it exits."""
    workers = {'train_dataloader.num_workers': 2, 'train_dataloader.persistent_workers': True}
    runner = build_runner(tiny_config(textured_folder, tmp_path / 'run', **workers))
    others, seen = set(multiprocessing.active_children()), []

    class Look(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
            seen.extend(set(multiprocessing.active_children()) - others)
            if fails:
                raise RuntimeError('meant')

    runner.register_hook(Look())
    if fails:
        with pytest.raises(RuntimeError, match='meant'):
            runner.train()
    else:
        runner.train()
    assert seen
    assert not set(multiprocessing.active_children()) - others


class Stop(Hook):
    """Ends a run early, with the schedule of the long one."""

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.iterations:
            runner.train_loop.stop_training = True
