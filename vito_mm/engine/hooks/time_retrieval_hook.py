"""Retrieval of a frame's own video some time later."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dist import is_main_process
from torch import Tensor

from vito_mm.datasets import VideoDataset
from vito_mm.datasets.video_dataset import video_datasets
from vito_mm.probes.frames import VideoFrames, collect, gather, place_of, summarised
from vito_mm.probes.image_folders import ProbeError
from vito_mm.probes.representation import retrieval_top1
from vito_mm.registry import HOOKS
from vito_mm.utils.atomic import written_aside
from vito_mm.videos import IMAGE_EXTENSIONS, VideoReadError, part_name

from .probe_hook import EncoderProbeHook
from .rows import Rows

LAYERS = {'backbone': 'pooled', 'neck': 'neck'}
"""Layers of :class:`vito_mm.probes.encoder.Encoder` by the values of ``layer``."""


@HOOKS.register_module()
class TimeRetrievalHook(EncoderProbeHook):
    """Look for the video of a frame among frames that were taken a delay later.

    A frame is taken at a fixed time of each of N videos, and one each delay later. A frame finds
    its video if, of the N frames one delay later, the nearest (by cosine) is of its own video. No
    labels, no augmentation. The result does not depend on the number of ranks, which share videos.

    Frames are read once, before the first step, and stay in memory: N x (number of delays) x 3 x
    ``image_size ** 2`` bytes over all ranks, 231 MB with the defaults. Videos that are shorter than
    the longest delay or cannot be read are skipped and counted.

    Logs ``retrieval_800ms`` etc. in percent, and draws the curve as the picture ``time_retrieval``
    and, the newest one, as ``time_retrieval.png`` next to the log.

    Args:
        data (str, optional): Manifest or folder of videos. Defaults to those of the training.
        num_videos (int): Number of videos that are drawn. Defaults to 256.
        delays (Sequence[float]): Seconds, at least 1 ms apart. 0 compares a frame with itself: less
            than 100 % means that the network takes different frames for the same. Defaults to (0,
            0.2, 0.4, 0.8, 1.6, 2.4).
        layer (str): 'backbone' for average-pooled features, 'neck' for the attention-pooled
            embedding. Defaults to 'backbone'.
        **kwargs: See :class:`.probe_hook.EncoderProbeHook` and :class:`.probe_hook.ProbeHook`.

    Raises:
        ValueError: If a setting makes no sense, or, before the first step, if fewer than two videos
            are left; names the field.
    """

    def __init__(
        self,
        data: str | None = None,
        num_videos: int = 256,
        delays: Sequence[float] = (0.0, 0.2, 0.4, 0.8, 1.6, 2.4),
        layer: str = 'backbone',
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_videos < 2:
            raise ValueError(f'{self._field("num_videos")} must be at least 2, got {num_videos}')
        if not delays or min(delays) < 0 or len({_name(d) for d in delays}) < len(delays):
            raise ValueError(
                f'{self._field("delays")} must be different numbers of seconds, by 1 ms at least, '
                f'none negative, got {delays}'
            )
        self._check_choice('layer', layer, tuple(LAYERS))
        self.data = None if data is None else os.fspath(data)
        self.num_videos, self.delays = num_videos, tuple(sorted(float(d) for d in delays))
        self.layer = layer

    def prepare(self, runner) -> None:
        """Read the frames."""
        encoder = self.encoder(runner)
        if self.layer == 'neck' and encoder.neck is None:
            raise ValueError(f"{self._field('layer')}='neck': the model has none; take 'backbone'")
        rows = list(_draw(self._datasets(runner), self.num_videos, self.seed))
        offsets = sorted({0.0, *self.delays})
        places = [place_of(row['video_path'], self.seed) for row in rows]
        videos = VideoFrames(rows, offsets, places, self.image_size)
        videos_at_once = max(1, self.batch_size // len(offsets))
        self.batches: list[tuple[list[int], Tensor]] = []

        def keep(indices: list[int], frames: Tensor) -> Tensor:
            self.batches.append((indices, frames))
            return torch.empty(len(indices), 0)  # frames stay on the rank that read them

        counted = collect(videos, keep, videos_at_once, self.num_workers)
        if counted.skipped:
            runner.logger.warning(f'{type(self).__name__} skips {summarised(counted.skipped)}')
        if len(counted.indices) < 2:
            longest = f'the longest delay, {self.delays[-1]:g} s'
            raise ProbeError(
                f'{len(counted.indices)} of {len(rows)} videos of {self._source()} can be read '
                f'and last as long as {longest}; at least 2 are needed. Give other videos, or '
                f'shorter {self._field("delays")}'
            )
        self.column = [offsets.index(delay) for delay in self.delays]
        self.count = len(counted.indices)
        runner.logger.info(f'{type(self).__name__}: {self.count} videos of {self._source()}')

    def measure(self, runner, step: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """See :meth:`.probe_hook.ProbeHook.measure`."""
        encoder = self.encoder(runner)
        indices, features = [], []
        for part, frames in self.batches:
            indices += part
            found = encoder(frames.flatten(0, 1), LAYERS[self.layer], self.batch_size)
            features.append(found.unflatten(0, frames.shape[:2]).cpu())
        found = gather(indices, features).features
        if not found.isfinite().all():
            raise ProbeError('the features are not finite')
        if not is_main_process():
            return {}, {}
        values = [retrieval_top1(found[:, 0], found[:, column]) for column in self.column]
        numbers = dict(zip(map(_name, self.delays), values, strict=True))
        return numbers, dict(time_retrieval=self._draw(runner, step, values))

    def _draw(self, runner, step: int, values: Sequence[float]) -> np.ndarray:
        """The curve, beside those of before, which a resumed run still knows."""
        # Imported here: matplotlib is slow to import, and most runs draw nothing.
        from vito_mm.visualization.plots import draw_retrieval

        name = f'{self.prefix}time_retrieval'
        record = runner.message_hub.runtime_info.get(name)
        if record is None or record['delays'] != list(self.delays):
            record = dict(delays=list(self.delays), values={})
        record['values'][step] = list(values)
        runner.message_hub.update_info(name, record)
        picture = draw_retrieval(self.delays, record['values'], self.count)
        with written_aside(Path(runner.log_dir) / f'{name}.png') as unfinished:
            unfinished.write_bytes(cv2.imencode('.png', picture[..., ::-1])[1].tobytes())
        return picture

    def _source(self) -> str:
        return self.data or 'the training data'

    def _datasets(self, runner) -> list[VideoDataset]:
        if self.data is None:
            found = list(video_datasets(runner.train_dataloader.dataset))
        else:
            try:
                kind = 'data_root' if os.path.isdir(self.data) else 'ann_file'
                found = [VideoDataset(**{kind: self.data})]
            except (OSError, ValueError) as error:
                raise ProbeError(str(error)) from None
        if not found:
            raise ProbeError('the run trains on no VideoDataset. Give a manifest of videos')
        return found


def _name(delay: float) -> str:
    # In milliseconds: MLflow ends a run for an @, and W&B sorts by no name with a dot.
    return f'retrieval_{round(1000 * delay)}ms'


def _draw(datasets: Sequence[VideoDataset], count: int, seed: int) -> Iterator[Mapping[str, Any]]:
    """Rows of different videos or parts, drawn from all data sets together; images are none."""
    rows, seen = Rows(datasets), set()
    for number in np.random.default_rng(seed).permutation(len(rows)).tolist():
        try:
            row = rows[number]
        except VideoReadError:
            continue  # the row is no video
        part = part_name(row)
        if part in seen or row['video_path'].lower().endswith(IMAGE_EXTENSIONS):
            continue
        seen.add(part)
        yield row
        if len(seen) == count:
            return
