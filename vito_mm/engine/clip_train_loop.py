"""Training counted in clips, with a data stream that goes on where it stopped."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.runner import BaseLoop, IterBasedTrainLoop
from mmengine.runner.utils import calc_dynamic_intervals
from torch.utils.data import DataLoader

from vito_mm.datasets.clip_sampler import ClipSampler
from vito_mm.engine.schedule_length import in_iterations, schedule_length
from vito_mm.engine.worker_restart import WorkerRestart
from vito_mm.launch import without_workers
from vito_mm.registry import LOOPS
from vito_mm.utils.unwrap import unwrap

CLIPS_DRAWN = 'clips_drawn'
"""Name under which the message hub, and so a checkpoint, holds the number of clips drawn."""


@LOOPS.register_module()
class ClipTrainLoop(IterBasedTrainLoop):
    """Iterations of a global batch, an epoch being a number of clips.

    Section 4.1 of https://arxiv.org/abs/2210.06433 counts 1.28 M clips as an epoch whatever the
    data set. Schedulers with ``convert_to_iter_based=True`` are given in such epochs and are exact
    for any batch size: 300 epochs at batch 4096 are 93,750 iterations. With gradient accumulation
    (``optim_wrapper.accumulative_counts``) an iteration is a micro-batch, so the same clips make
    the same number of epochs.

    A resumed run is the same run: the sampler goes on with the next draw, instead of decoding all
    earlier batches as in MMEngine, and each iteration seeds Python's, NumPy's and PyTorch's
    generators (drop path, augmentation on the device) from the run's seed, the iteration and the
    rank. Needs the sampler ``ClipSampler``. Data workers that are killed are started again, see
    :class:`vito_mm.engine.worker_restart.WorkerRestart`.

    A run that ``max_iters`` or ``max_epochs`` makes shorter than its schedule does the whole
    schedule in fewer iterations, warm-up and decay by the same factor, and says so in the log.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): Training data.
        max_epochs (float, optional): Length of the run in epochs.
        max_iters (int, optional): Length of the run in iterations, in place of ``max_epochs``. If
            both are given, the schedule of ``max_epochs`` is done in ``max_iters`` iterations, be
            they fewer or more.
        clips_per_epoch (int): Clips that count as an epoch. Defaults to 1,280,000.
        val_begin (int): First iteration after which there may be a validation. Defaults to 1.
        val_interval (int): Iterations between validations, if there is a ``val_cfg``. Defaults to
            1000.
        fit_schedule (bool): False leaves the schedule as it is stated however long the run is,
            and warns. Defaults to True.

    Raises:
        ValueError: If the settings do not fit each other; names the field of the config.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader | dict,
        max_epochs: float | None = None,
        max_iters: int | None = None,
        clips_per_epoch: int = 1_280_000,
        val_begin: int = 1,
        val_interval: int = 1000,
        fit_schedule: bool = True,
    ) -> None:
        if max_epochs is None and max_iters is None:
            raise ValueError('train_cfg needs max_epochs or max_iters')
        if clips_per_epoch < 1:
            raise ValueError(f'train_cfg.clips_per_epoch must be positive, got {clips_per_epoch}')
        BaseLoop.__init__(self, runner, without_workers(dataloader))
        wrapper = runner.optim_wrapper  # not always built yet
        self._accumulative_counts = (
            wrapper.get('accumulative_counts', 1)
            if isinstance(wrapper, dict)
            else wrapper._accumulative_counts
        )
        self.clips_per_iter = self.dataloader.batch_size * get_world_size()
        self._check_batch()
        iters_per_epoch = clips_per_epoch / self.clips_per_iter
        of_epochs = None if max_epochs is None else max_epochs * iters_per_epoch
        length = of_epochs if max_iters is None else max_iters
        max_iters = round(length)
        if max_iters < 1:
            raise ValueError(
                f'train_cfg: max_epochs={max_epochs} of clips_per_epoch={clips_per_epoch} are less '
                f'than one batch of {self.clips_per_iter} clips'
            )
        self._max_iters = max_iters
        self._max_epochs = max_iters * self.clips_per_iter / clips_per_epoch
        self._epoch = self._iter = 0
        self.stop_training = False
        self.val_begin, self.val_interval = val_begin, val_interval
        self.dynamic_milestones, self.dynamic_intervals = calc_dynamic_intervals(val_interval)
        runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)
        self._fit_schedule(iters_per_epoch, length, of_epochs, fit_schedule)
        self._count_epochs_in_clips(iters_per_epoch)
        self._scale_lr_to_clips()

    def _check_batch(self) -> None:
        batch_size = self.dataloader.batch_size
        if self.runner._randomness_cfg.get('diff_rank_seed'):
            raise ValueError(
                'randomness.diff_rank_seed=True would give each rank another stream of clips; '
                'ClipTrainLoop seeds the ranks differently by itself'
            )
        if not isinstance(self.dataloader.sampler, ClipSampler):
            raise ValueError(
                'ClipTrainLoop needs train_dataloader.sampler=dict(type="ClipSampler"), got '
                f'{type(self.dataloader.sampler).__name__}'
            )
        if self.clips_per_iter < 2:
            raise ValueError(
                'train_dataloader.batch_size is 1 on one process: a contrastive loss needs at '
                'least 2 clips in the global batch'
            )
        micro_batch_size = getattr(unwrap(self.runner.model), 'micro_batch_size', None)
        if micro_batch_size and batch_size % micro_batch_size:
            raise ValueError(
                f'train_dataloader.batch_size={batch_size} is no multiple of '
                f'model.micro_batch_size={micro_batch_size}'
            )

    def _count_epochs_in_clips(self, iters_per_epoch: float) -> None:
        """Give schedulers in epochs the length of an epoch: MMEngine knows whole ones only."""
        schedulers = self.runner.param_schedulers
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
            if isinstance(scheduler, dict) and scheduler.get('convert_to_iter_based'):
                scheduler.setdefault('epoch_length', iters_per_epoch)

    def _fit_schedule(
        self, iters_per_epoch: float, run: float, of_epochs: float | None, fit: bool
    ) -> None:
        """Do in the iterations of the run what the schedulers do in their own length."""
        schedulers = self.runner.param_schedulers
        schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
        if not all(isinstance(scheduler, dict) and 'type' in scheduler for scheduler in schedulers):
            return
        length = schedule_length(schedulers, iters_per_epoch)
        if length == run:
            return
        if length < run and length != of_epochs:
            if any(_is_decay(each) and each.get('end') for each in schedulers):
                self.runner.logger.warning(
                    f'param_scheduler ends after {length:g} iterations, this run has '
                    f'{self._max_iters}: the rest is trained at the learning rate of its end. Set '
                    'the ends of param_scheduler for this length'
                )
            return
        lengths = f'{length:g} iterations, this run has {self._max_iters}'
        if not fit:
            self.runner.logger.warning(
                f'param_scheduler ends after {lengths}, and is left as it is stated: the learning '
                'rate does not do the whole of it. Set the ends of param_scheduler for this length'
            )
            return
        self.runner.logger.warning(
            f'param_scheduler ends after {lengths}: all of it is done in these, warm-up and decay '
            'by the same factor. train_cfg.fit_schedule=False leaves it as it is stated'
        )
        factor = self._max_iters / length
        self.runner.param_schedulers = in_iterations(schedulers, iters_per_epoch, factor)

    def _scale_lr_to_clips(self) -> None:
        """See that the learning rate belongs to the clips of an optimizer step."""
        auto_scale_lr = self.runner.auto_scale_lr or {}
        base = auto_scale_lr.get('base_batch_size')
        batch = self.clips_per_iter * self._accumulative_counts
        if base and auto_scale_lr.get('enable'):
            # The runner multiplies by the batch of an iteration, not of an optimizer step.
            self.runner.auto_scale_lr = dict(
                auto_scale_lr, base_batch_size=base / self._accumulative_counts
            )
        elif base and base != batch:
            self.runner.logger.warning(
                f'the learning rate of this config is for {base} clips per optimizer step, this '
                f'run has {batch}: --auto-scale-lr (auto_scale_lr.enable=True) scales it, and '
                'auto_scale_lr.base_batch_size says so if the rate is meant as it is'
            )

    def run(self) -> torch.nn.Module:
        """Train to the end; returns the model."""
        runner, hub = self.runner, self.runner.message_hub
        sampler = self.dataloader.sampler
        sampler.seed = runner.seed  # that of the checkpoint, if the run is resumed
        sampler.start = hub.runtime_info.get(CLIPS_DRAWN, self._iter * self.clips_per_iter)
        if self._iter and sampler.start != self._iter * self.clips_per_iter:
            runner.logger.warning(
                f'{sampler.start} clips were drawn in {self._iter} iterations before, now an '
                f'iteration has {self.clips_per_iter}: the data goes on with the next clip, but '
                'the schedule counts iterations'
            )
        self._compare_with_resumed_schedule()
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        batches = WorkerRestart(self.dataloader, self.clips_per_iter)
        try:
            while self._iter < self._max_iters and not self.stop_training:
                runner.model.train()
                batch = next(batches)
                # Before the hooks that save a checkpoint.
                hub.update_info(CLIPS_DRAWN, sampler.start)
                self._seed_iteration()
                self.run_iter(batch)
                self._decide_current_val_interval()
                if (
                    runner.val_loop is not None
                    and self._iter >= self.val_begin
                    and (self._iter % self.val_interval == 0 or self._iter == self._max_iters)
                ):
                    runner.val_loop.run()
        finally:
            batches.close()
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    def _compare_with_resumed_schedule(self) -> None:
        """Warn of a checkpoint's schedule that ends before the run, as a shorter run's does."""
        schedulers = self.runner.param_schedulers
        ends = [each.end for each in schedulers] if isinstance(schedulers, list) else []
        if self._iter and ends and max(ends) < self._max_iters:
            self.runner.logger.warning(
                f'the schedule in the checkpoint that is resumed ends after {max(ends)} '
                f'iterations, this run has {self._max_iters}: the learning rate then stays as it is'
            )

    def run_iter(self, data_batch: dict) -> None:
        """Train on one batch of the data loader."""
        runner = self.runner
        runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=data_batch)
        outputs = runner.model.train_step(data_batch, optim_wrapper=runner.optim_wrapper)
        # The log takes numbers: fetch all at once, as each by itself makes a GPU wait.
        values = torch.stack([value.detach().float() for value in outputs.values()]).tolist()
        outputs = dict(zip(outputs, values, strict=True))
        runner.call_hook(
            'after_train_iter', batch_idx=self._iter, data_batch=data_batch, outputs=outputs
        )
        self._iter += 1

    def _seed_iteration(self) -> None:
        words = np.random.SeedSequence((self.runner.seed, self._iter, get_rank()))
        python, numpy, pytorch = (int(word) for word in words.generate_state(3))
        random.seed(python)
        np.random.seed(numpy)
        torch.manual_seed(pytorch)


def _is_decay(scheduler: Mapping[str, Any]) -> bool:
    """True unless it is a scheduler as warm-ups have it, after which the rate stays."""
    return not str(scheduler['type']).rpartition('.')[2].startswith(('Linear', 'Constant'))
