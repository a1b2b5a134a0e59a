"""Batches of a data loader whose workers may die."""

import logging
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any

from mmengine.logging import print_log
from torch.utils.data import DataLoader

from vito_mm.datasets.clip_sampler import ClipSampler
from vito_mm.datasets.video_dataset import video_datasets
from vito_mm.utils.data_workers import start_workers


class WorkerRestart:
    """Endless batches; workers that were killed are started again at the first missing batch.

    A decoder may crash on a damaged file, and Linux kills workers when memory runs out. A file that
    is in flight (:class:`vito_mm.datasets.InFlightFiles`) when two workers end is put on a
    blocklist, not read any more in this run, and reported as skipped.

    Args:
        dataloader (DataLoader): With a :class:`~vito_mm.datasets.ClipSampler`, which knows where to
            go on.
        clips_per_batch (int): Clips of a batch over all ranks.
        max_restarts (int): Restarts at which the error is raised; 100 batches without one forget
            them. Defaults to 10.

    Raises:
        RuntimeError: That of the data loader, once workers have died too often.
    """

    def __init__(
        self, dataloader: DataLoader, clips_per_batch: int, max_restarts: int = 10
    ) -> None:
        self.dataloader = dataloader
        self.sampler: ClipSampler = dataloader.sampler
        self.clips_per_batch, self.max_restarts = clips_per_batch, max_restarts
        self.restarts = self.batches_since = 0
        self.deaths: Counter[str] = Counter()
        self.iterator = self._start()

    def _start(self) -> Iterator[Any]:
        others = set(multiprocessing.active_children())
        iterator = start_workers(self.dataloader)
        self.workers = set(multiprocessing.active_children()) - others
        return iterator

    def __iter__(self) -> 'WorkerRestart':
        return self

    def __next__(self) -> Any:
        while True:
            try:
                batch = next(self.iterator)
            except (RuntimeError, OSError, EOFError):
                # PyTorch reports it, unless the batch of a dead worker is being fetched: then a
                # connection breaks, perhaps a moment before the process is gone.
                ended = wait([worker.sentinel for worker in self.workers], timeout=1)
                dead = [worker.pid for worker in self.workers if worker.sentinel in ended]
                if not dead or self.restarts >= self.max_restarts:
                    raise
                self._restart(dead)
                continue
            self.sampler.start += self.clips_per_batch
            self.batches_since += 1
            if self.batches_since >= 100:
                self.restarts = 0
            return batch

    def _restart(self, pids: list[int]) -> None:
        self.restarts += 1
        self.batches_since = 0
        for dataset in video_datasets(self.dataloader.dataset):
            for path in filter(None, map(dataset.in_flight.read, pids)):
                self.deaths[path] += 1
                if self.deaths[path] >= 2:
                    dataset.blocklist.add(path)
                    _warn(f'{path} ended two data workers and is not read any more')
                else:
                    _warn(f'a data worker died while it read {path}')
        _warn(
            f'data worker {", ".join(map(str, pids))} was killed (out of memory, or a crash in a '
            f'decoder): starting the workers again at clip {self.sampler.start}, restart '
            f'{self.restarts} of at most {self.max_restarts}'
        )
        self.close()
        self.iterator = self._start()

    def close(self) -> None:
        """End the workers.

        Persistent ones of pinned memory that are still there when Python exits are waited for, five
        seconds each.
        """
        self.iterator = None
        self.dataloader._iterator = None


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
