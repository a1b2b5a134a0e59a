"""An account of the videos that could not be read."""

import csv
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook

from vito_mm.registry import HOOKS


@HOOKS.register_module()
class SkippedVideosHook(Hook):
    """Count, log and list the videos that the data set passed over.

    Each video is logged once, with its reason, and written to ``skipped_videos.csv`` in the
    run's folder (``skipped_videos_rank1.csv`` and so on for further ranks). The number of draws
    that hit a bad video is logged as ``skipped_videos``.

    The samples must carry ``skipped_videos`` (see :class:`vito_mm.datasets.VideoDataset`), so it
    has to be among ``meta_keys`` of ``PackInputs``.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.num_draws = 0
        self.num_skipped = 0

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Collect what the samples of this batch report."""
        samples = data_batch['data_samples']
        self.num_draws += len(samples)
        for sample in samples:
            for path, reason in sample.get('skipped_videos', ()):
                self.num_draws += 1
                self.num_skipped += 1
                if path not in self.reasons:
                    self.reasons[path] = reason
                    runner.logger.warning(f'skipped video {path}: {reason}')
                    self._append(runner, path, reason)
        if self.num_skipped:
            runner.message_hub.update_scalar('train/skipped_videos', self.num_skipped)

    def after_train(self, runner) -> None:
        """Sum up."""
        if self.num_skipped:
            runner.logger.warning(
                f'{self.num_skipped} of {self.num_draws} draws hit one of {len(self.reasons)} '
                f'unreadable videos and were replaced; they are listed in {self._file(runner)}'
            )

    def _append(self, runner, path: str, reason: str) -> None:
        file = self._file(runner)
        is_new = not file.exists()
        with file.open('a', encoding='utf-8', newline='') as lines:
            table = csv.writer(lines)
            if is_new:
                table.writerow(['path', 'reason'])
            table.writerow([path, reason])

    @staticmethod
    def _file(runner) -> Path:
        rank = get_rank()
        return Path(runner.log_dir) / f'skipped_videos{f"_rank{rank}" if rank else ""}.csv'
