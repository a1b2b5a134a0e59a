"""Count and list of the videos that could not be read."""

from collections import Counter
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook

from vito_mm.registry import HOOKS
from vito_mm.utils.report import to_csv
from vito_mm.videos.errors import printable


@HOOKS.register_module()
class SkippedVideosHook(Hook):
    """Count, log and list the videos that the data set skipped.

    Each video is logged once, with its reason, and written to ``skipped_videos.csv`` in the run's
    folder (``skipped_videos_rank1.csv`` etc. of further ranks; names that a spreadsheet would take
    for a formula have an apostrophe before them). The number of draws that hit a bad video is
    logged as ``skipped_videos``. If they are more than a share of all, the run stops.

    The samples must carry ``skipped_videos`` (see :class:`vito_mm.datasets.VideoDataset`), so it
    has to be among ``meta_keys`` of ``PackInputs``.

    Args:
        max_share (float): Share of the draws of this process, within [0, 1], that may hit bad
            videos. 1 never stops. Defaults to 0.2.
        min_draws (int): Draws after which the share is looked at. Defaults to 500.

    Raises:
        ValueError: If ``max_share`` is not within [0, 1].
        RuntimeError: During training, if the share is exceeded; names it, the table and the most
            frequent reasons.
    """

    def __init__(self, max_share: float = 0.2, min_draws: int = 500) -> None:
        if not 0 <= max_share <= 1:
            raise ValueError(f'max_share must be within [0, 1], got {max_share}')
        self.max_share, self.min_draws = max_share, min_draws
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
                    runner.logger.warning(f'skipped video {printable(path)}: {reason}')
                    self._append(runner, path, reason)
        if self.num_skipped:
            runner.message_hub.update_scalar('train/skipped_videos', self.num_skipped)
        if self.num_draws >= self.min_draws:
            self._check_share(runner)

    def _check_share(self, runner) -> None:
        share = self.num_skipped / self.num_draws
        if share <= self.max_share:
            return
        common = Counter(self.reasons.values()).most_common(3)
        raise RuntimeError(
            f'{self.num_skipped} of {self.num_draws} draws ({share:.0%}) hit videos that cannot be '
            f'read, more than default_hooks.skipped_videos.max_share={self.max_share}; the '
            f'{len(self.reasons)} videos are listed in {self._file(runner)}, mostly: '
            + '; '.join(f'{count} x {reason}' for reason, count in common)
        )

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
        with file.open('a', encoding='utf-8', errors='surrogateescape', newline='') as lines:
            lines.write(to_csv([*([['path', 'reason']] if is_new else []), [path, reason]]))

    @staticmethod
    def _file(runner) -> Path:
        rank = get_rank()
        return Path(runner.log_dir) / f'skipped_videos{f"_rank{rank}" if rank else ""}.csv'
