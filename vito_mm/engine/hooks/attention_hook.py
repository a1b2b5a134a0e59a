"""Pictures of the attention masks while a network is trained."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook

from vito_mm.datasets.video_dataset import video_datasets
from vito_mm.probes.encoder import Encoder
from vito_mm.registry import HOOKS
from vito_mm.utils.unwrap import unwrap
from vito_mm.videos import frames, place_segment

from .rows import Rows

if TYPE_CHECKING:
    from vito_mm.videos.frames import Clip

NAME = 'attention_iter'
"""What visualizers call the picture: ``attention_iter_1000.png`` is that of iteration 1000."""


@HOOKS.register_module()
class AttentionHook(Hook):
    """Draw the attention masks of each scale, always on the same clips.

    Section 3.2 of https://arxiv.org/abs/2210.06433. One picture per checkpoint, through the run's
    visualizer: ``LocalVisBackend`` writes ``vis_data/vis_image/attention_iter_N.png``. Views of the
    online network are resized and cropped from the centre. The training does not change; the first
    process draws, the others go on. Does nothing to a model without attention pooling.

    Args:
        videos (str | Sequence[str], optional): Manifest, folder, or files to take clips from, see
            :func:`vito_mm.visualization.clips.rows_of`. Defaults to those that are trained on.
        num_clips (int): Clips to show. Defaults to 4.
        num_views (int): Frames of each, evenly spread over a segment of the video. Defaults to 3.
        segment (float): Length of the segment in seconds. Defaults to 2.56, as in training.
        size (int): Side of the views in pixels. Defaults to 224.
        interval (int, optional): Iterations between two pictures. Defaults to those between
            checkpoints. There is always one of the end of training.
        seed (int): Decides which clips. Defaults to 0.

    Raises:
        ValueError: If a number makes no sense; or at the start of training, if there are no
            ``videos`` and the model is not trained on a ``VideoDataset``.
        FileNotFoundError: At the start of training, if ``videos`` are not there.
        RuntimeError: At the start of training, if none of them can be read; names the first.
    """

    # After the checkpoint, which is more than the picture.
    priority = 'LOWEST'

    def __init__(
        self,
        videos: str | Sequence[str] | None = None,
        num_clips: int = 4,
        num_views: int = 3,
        segment: float = 2.56,
        size: int = 224,
        interval: int | None = None,
        seed: int = 0,
    ) -> None:
        numbers = dict(num_clips=num_clips, num_views=num_views, size=size, interval=interval)
        for name, number in numbers.items():
            if number is not None and number < 1:
                raise ValueError(f'AttentionHook.{name} must be at least 1, got {number}')
        if not segment > 0:
            raise ValueError(f'AttentionHook.segment must be some seconds, got {segment}')
        self.videos = videos
        self.num_clips, self.num_views = num_clips, num_views
        self.segment, self.size = segment, size
        self.interval, self.seed = interval, seed
        self.clips: list[Clip] = []
        self._checkpoint: CheckpointHook | None = None
        self._drawn_at: int | None = None

    def before_train(self, runner) -> None:
        """Read the clips, so that bad ones are reported at once."""
        if not Encoder.of_model(unwrap(runner.model)).scales():
            runner.logger.info('AttentionHook: the model has no attention pooling, nothing to draw')
            return
        checkpoints = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        self._checkpoint = checkpoints[0] if checkpoints else None
        if is_main_process():
            self.clips = self._read_clips(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Draw if it is time."""
        if self.clips and self._is_due(runner):
            self._draw(runner, runner.iter + 1)

    def after_train_epoch(self, runner) -> None:
        """Draw, if there is a checkpoint of this epoch."""
        hook = self._checkpoint
        by_epoch = self.interval is None and hook is not None and hook.by_epoch
        if self.clips and by_epoch and self.every_n_epochs(runner, hook.interval, hook.save_begin):
            self._draw(runner, runner.iter)

    def after_train(self, runner) -> None:
        """Draw the end."""
        if self.clips:
            self._draw(runner, runner.iter)

    def _is_due(self, runner) -> bool:
        if self.interval is not None:
            return self.every_n_train_iters(runner, self.interval)
        hook = self._checkpoint
        if hook is None or hook.by_epoch:
            return False
        return self.every_n_train_iters(runner, hook.interval, hook.save_begin)

    def _draw(self, runner, iteration: int) -> None:
        from vito_mm.visualization.strips import draw_strip

        if self._drawn_at == iteration:
            return
        self._drawn_at = iteration
        encoder = Encoder.of_model(unwrap(runner.model))
        title = f'Attention after {iteration} iterations, online network, {self.size} px'
        try:
            masks = [encoder.masks(clip.frames) for clip in self.clips]
            runner.visualizer.add_image(NAME, draw_strip(self.clips, masks, title), iteration)
        except (OSError, RuntimeError) as error:  # a full disk or GPU: no picture is worth a run
            runner.logger.warning(f'AttentionHook: no picture of iteration {iteration}: {error}')

    def _read_clips(self, runner) -> list['Clip']:
        from vito_mm.visualization.clips import read_some, rows_of

        rows = self._trained_on(runner) if self.videos is None else rows_of(self.videos)
        clips, errors = read_some(rows, self.num_clips, self._read, self.seed)
        for error in errors:
            runner.logger.warning(f'AttentionHook: {error}')
        if not clips:
            raise RuntimeError(
                f'AttentionHook: none of {len(errors)} videos that were tried can be read; name '
                f'others as AttentionHook.videos. {errors[0]}'
            )
        return clips

    def _read(self, row: Mapping[str, Any]) -> 'Clip':
        # The same in every run, whatever other videos there are.
        name = os.path.basename(row['path'])
        place = np.random.default_rng((self.seed, *os.fsencode(name))).uniform()
        offsets = frames.evenly(self.num_views)(0, self.segment)

        def times(start: float, end: float) -> np.ndarray:
            return start + place_segment(offsets, self.segment, place, end - start)

        view = frames.evaluation_view(self.size)
        return frames.read(row, times, view).distinct()

    @staticmethod
    def _trained_on(runner) -> Sequence[Mapping[str, Any]]:
        datasets = list(video_datasets(runner.train_dataloader.dataset))
        if not datasets:
            raise ValueError(
                'AttentionHook cannot take clips from train_dataloader.dataset, in which there is '
                'no VideoDataset: name a manifest, folder or files as AttentionHook.videos'
            )
        return Rows(datasets)
