"""Checkpoints that are complete or not there."""

from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook

from vito_mm.checkpoint.conventions import preprocessing_of
from vito_mm.registry import HOOKS
from vito_mm.utils.atomic import rename_durably, written_aside
from vito_mm.utils.unwrap import unwrap

UNFINISHED = '.tmp'
"""Ending of the name of a checkpoint that is being written."""


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's hook with a safe order: write aside, rename, point to it, then remove old ones.

    A kill or a full disk at any moment leaves the checkpoint before usable, and the file
    ``last_checkpoint`` pointing to a complete one. MMEngine 0.10 writes in place, after removing.

    Args:
        **kwargs: See :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        ValueError: At the start of training, if a checkpoint would fall between the micro-batches
            of an optimizer step, whose gradients it cannot hold.
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

    def _is_local(self) -> bool:
        return '://' not in str(self.out_dir)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        preprocessor = getattr(unwrap(runner.model), 'data_preprocessor', None)
        preprocessing = None if preprocessor is None else preprocessing_of(preprocessor)
        if preprocessing is not None:
            # Users of the weights have to do the same to their images.
            meta = dict(meta, preprocessing=preprocessing)
        if not self._is_local():
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        folder, previous = Path(self.out_dir), self.last_ckpt
        outdated = self._steps_to_remove(runner, step)
        file = folder / self.filename_tmpl.format(step)
        runner.message_hub.update_info('last_ckpt', str(file))
        unfinished = file.with_name(file.name + UNFINISHED)
        try:
            runner.save_checkpoint(
                str(folder),
                unfinished.name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            self.last_ckpt = str(file)
            if is_main_process():
                rename_durably(unfinished, file)
                with written_aside(Path(runner.work_dir) / 'last_checkpoint') as pointer:
                    pointer.write_text(str(file))
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            pointer = Path(runner.work_dir) / 'last_checkpoint'
            previous = previous or (pointer.read_text().strip() if pointer.is_file() else '')
            raise RuntimeError(
                f'cannot save the checkpoint {file}: {error}. '
                + (f'The last complete one is {previous}: ' if previous else 'There is none. ')
                + 'make room and go on with --resume'
            ) from error
        if is_main_process():
            for old in outdated:
                (folder / self.filename_tmpl.format(old)).unlink(missing_ok=True)

    def _steps_to_remove(self, runner, step: int) -> list[int]:
        """Note that there will be a checkpoint of this step; steps that are then too many."""
        if self.max_keep_ckpts <= 0 or (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            return []
        kept = [*self.keep_ckpt_ids, step]
        outdated = kept[: -self.max_keep_ckpts]
        self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        return [old for old in outdated if old != step]
