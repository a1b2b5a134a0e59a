"""Checkpoints that are complete or not there."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook

from vito_mm.checkpoint.preprocessing import preprocessing_of
from vito_mm.registry import HOOKS
from vito_mm.utils.atomic import rename_durably, written_aside
from vito_mm.utils.text import near_text
from vito_mm.utils.unwrap import unwrap

from .probe_hook import ProbeHook

UNFINISHED = '.tmp'
"""Ending of the name of a checkpoint that is being written."""


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's hook with a safe order: write aside, rename, point to it, then remove old ones.

    A kill or a full disk at any moment leaves the checkpoint before usable, and the file
    ``last_checkpoint`` pointing to a complete one. MMEngine 0.10 writes in place, after removing.

    ``save_best`` takes the number of a :class:`.probe_hook.ProbeHook` by its name in the log, such
    as ``'knn_top1'``, too, with ``rule`` where the name does not tell that greater is better. The
    file, ``best_knn_top1_iter_N.pth``, holds the weights that were measured, of iteration 0 as
    well, and no state of the optimizer.

    Args:
        **kwargs: See :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        ValueError: At the start of training, if a checkpoint would fall between the micro-batches
            of an optimizer step, whose gradients it cannot hold; or if nothing measures what
            ``save_best`` names. That is an error when all probes have measured, at the latest.
        RuntimeError: If a checkpoint cannot be written; names the last complete one.
    """

    def before_train(self, runner) -> None:
        """Check the interval and clear what a killed run left."""
        super().before_train(runner)
        counts = runner.optim_wrapper._accumulative_counts
        if not self.by_epoch and self.interval > 0 and self.interval % counts:
            raise ValueError(
                f'default_hooks.checkpoint.interval={self.interval} is no multiple of '
                f'optim_wrapper.accumulative_counts={counts}: a run resumed from such a checkpoint '
                'would lose gradients'
            )
        if is_main_process() and self._is_local():
            for file in Path(self.out_dir).glob(f'*.pth{UNFINISHED}'):
                runner.logger.warning(f'removing {file}, left by a run that ended while saving')
                file.unlink()
        if self.save_best:
            self._prepare_best(runner)
            self._save_best_of_probes(runner, runner.iter)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Save the weights if a probe finds them the best, and then the checkpoint."""
        if self.save_best:
            self._save_best_of_probes(runner, runner.iter + 1)
        super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def _prepare_best(self, runner) -> None:
        self._probes = [hook for hook in runner.hooks if isinstance(hook, ProbeHook)]
        self._sources = {*range(len(self._probes))} | ({'val'} if runner._val_loop else set())
        self._logged: dict[int | str, Iterable[str]] = {}
        self._best_files: dict[str, set[str]] = {}
        self._is_resumed = runner.iter > 0
        if not self._sources:
            raise ValueError(
                f'default_hooks.checkpoint.save_best={self.save_best} names no metric: the run has '
                'neither probes nor validation. Add a probe, such as KNNProbeHook, to the hooks'
            )

    def _save_best_of_probes(self, runner, step: int) -> None:
        measured = [probe.measured for probe in self._probes]
        if not any(found is not None and found[0] == step for found in measured):
            return
        broadcast_object_list(measured)  # the first rank has the numbers
        known = {n: found for n, found in enumerate(measured) if found is not None}
        metrics: dict[str, float] = {}
        for source, (at, numbers) in known.items():
            self._logged[source] = numbers
            metrics |= numbers if at == step else {}
        template = 'iter_{}.pth' if self.by_epoch else self.filename_tmpl
        self._save_if_best(runner, metrics, template, step, step)

    def _save_best_checkpoint(self, runner, metrics: Mapping[str, float]) -> None:
        """Save the weights if validation finds them the best."""
        if not self.save_best:
            return
        self._logged['val'] = metrics
        step = runner.epoch if self.by_epoch else runner.iter
        is_better = self._save_if_best(runner, metrics, self.filename_tmpl, step, runner.iter)
        # As MMEngine does: the checkpoint of this step was written before validation.
        if is_better and self.last_ckpt is not None:
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._save_checkpoint_with_step(runner, step, meta)

    def _save_if_best(
        self, runner, metrics: Mapping[str, float], template: str, step: int, iteration: int
    ) -> bool:
        """Save the weights under the name of each metric that was never better."""
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, list(metrics)[:1])
        self._check_save_best()
        is_better = False
        for key, rule in zip(self.key_indicators, self.rules, strict=True):
            # MMEngine's names: those of a single metric are without it.
            ending = '' if len(self.key_indicators) == 1 else f'_{key}'
            known, value = runner.message_hub.runtime_info, metrics.get(key)
            best = known.get(f'best_score{ending}', self.init_value_map[rule])
            if value is None or not self.is_better_than[key](value, best):
                continue
            is_better = True
            file = self._path(f'best_{key}_{template.format(step)}')
            runner.message_hub.update_info(f'best_score{ending}', value)
            runner.message_hub.update_info(f'best_ckpt{ending}', file)
            if ending:
                self.best_ckpt_path_dict[key] = file
            else:
                self.best_ckpt_path = file
            meta = dict(epoch=runner.epoch, iter=iteration)
            state = dict(save_optimizer=False, save_param_scheduler=False)
            with self._writing(runner, file):
                self._write(runner, file, meta, **state, by_epoch=False)
            runner.logger.info(f'The best checkpoint with {value:0.4f} {key} is saved to {file}.')
            self._remove_other_best(key, file, f'best_{key}_{template.format("*")}')
        return is_better

    def _check_save_best(self) -> None:
        """Raise when all that measures has reported and nothing is called like a best one."""
        names = [name for part in self._logged.values() for name in part]
        unknown = [key for key in self.key_indicators if key not in names]
        if unknown and self._logged.keys() >= self._sources:
            raise ValueError(
                f'default_hooks.checkpoint.save_best={unknown[0]!r} is no metric of this run'
                f'{near_text(unknown[0], names)}: it logs {", ".join(names)}'
            )

    def _remove_other_best(self, key: str, file: str, pattern: str) -> None:
        if key not in self._best_files:
            # A run that was stopped may have found others after its last checkpoint.
            self._best_files[key] = set(glob(self._path(pattern)) if self._is_resumed else ())
        outdated = self._best_files[key] - {file}
        self._best_files[key] = {file}
        if is_main_process():
            for old in outdated:
                if self.file_backend.isfile(old):
                    self.file_backend.remove(old)

    def _path(self, name: str) -> str:
        return self.file_backend.join_path(self.out_dir, name.replace('/', '_'))

    def _is_local(self) -> bool:
        return '://' not in str(self.out_dir)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        if not self._is_local():
            meta = self._with_preprocessing(runner, meta)
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        file = self._path(self.filename_tmpl.format(step))
        outdated = self._steps_to_remove(runner, step)
        runner.message_hub.update_info('last_ckpt', file)
        state = dict(
            save_optimizer=self.save_optimizer, save_param_scheduler=self.save_param_scheduler
        )
        with self._writing(runner, file):
            self._write(runner, file, meta, **state, by_epoch=self.by_epoch, **self.args)
            if is_main_process():
                with written_aside(_pointer(runner)) as unfinished:
                    unfinished.write_text(file)
        self.last_ckpt = file
        if is_main_process():
            for old in outdated:
                Path(self._path(self.filename_tmpl.format(old))).unlink(missing_ok=True)

    def _write(self, runner, file: str, meta: dict, **settings: Any) -> None:
        """Write a checkpoint, atomically on a local disk."""
        settings |= dict(
            backend_args=self.backend_args, meta=self._with_preprocessing(runner, meta)
        )
        folder, name = os.path.split(file)
        if not self._is_local():
            runner.save_checkpoint(folder, name, self.file_client_args, **settings)
            return
        unfinished = Path(file + UNFINISHED)
        try:
            runner.save_checkpoint(folder, unfinished.name, self.file_client_args, **settings)
            if is_main_process():
                rename_durably(unfinished, Path(file))
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise

    @contextmanager
    def _writing(self, runner, file: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            pointer, previous = _pointer(runner), self.last_ckpt
            previous = previous or (pointer.read_text().strip() if pointer.is_file() else '')
            raise RuntimeError(
                f'cannot save the checkpoint {file}: {error}. '
                + (f'The last complete one is {previous}: ' if previous else 'There is none. ')
                + 'make room and go on with --resume'
            ) from error

    def _with_preprocessing(self, runner, meta: dict) -> dict:
        """Add what users of the weights have to do to their images."""
        preprocessor = getattr(unwrap(runner.model), 'data_preprocessor', None)
        preprocessing = None if preprocessor is None else preprocessing_of(preprocessor)
        return meta if preprocessing is None else dict(meta, preprocessing=preprocessing)

    def _steps_to_remove(self, runner, step: int) -> list[int]:
        """Note that there will be a checkpoint of this step; steps that are then too many."""
        if self.max_keep_ckpts <= 0 or (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            return []
        kept = [*self.keep_ckpt_ids, step]
        outdated = kept[: -self.max_keep_ckpts]
        self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        return [old for old in outdated if old != step]


def _pointer(runner) -> Path:
    """The file that names the last complete checkpoint."""
    return Path(runner.work_dir) / 'last_checkpoint'
