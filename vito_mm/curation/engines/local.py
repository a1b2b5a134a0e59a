"""One machine: a pool of processes, each of which may die on the video it has."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from vito_mm.utils.worker_pool import WorkerLost, WorkError, run_in_workers

from ..stage import Counts, Shard, Stage, StageError, lacking, write_shard
from ..tables import Row, read_kept

_OPEN = 32
"""Shards in work, at most: rows whose process died are tried again when no others are in work."""


def run_shards(stage: Stage, shards: Sequence[Shard], workers: int) -> Iterator[Counts]:
    """Work on shards and write them, each as soon as its last row is done.

    Args:
        stage (Stage): The stage, surveyed.
        shards (Sequence[Shard]): Shards that are not finished.
        workers (int): Number of processes.

    Yields:
        Counts: Of some rows that are done, as they come.

    Raises:
        StageError: If a shard of a stage that takes whole shards ends its process twice.
    """
    if stage.by_shard:
        work = partial(_whole_shard, stage)
        with closing(run_in_workers(work, shards, workers)) as results:
            for shard, result in results:
                if isinstance(result, WorkError | WorkerLost):
                    raise StageError(f'stage {stage.name!r} fails on {shard.source}: {result}')
                yield result
        return
    yield from _run_rows(stage, shards, workers)


@dataclass
class _Open:
    """A shard whose rows are in work."""

    shard: Shard
    rows: list[Row | None]
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.rows)


@dataclass(frozen=True)
class _Task:
    """A row of an open shard."""

    shard: int
    index: int
    row: Row


def _run_rows(stage: Stage, shards: Sequence[Shard], workers: int) -> Iterator[Counts]:
    left = iter(shards)
    while (first := next(left, None)) is not None:
        yield from _run_some_rows(stage, chain([first], left), workers)


def _run_some_rows(stage: Stage, shards: Iterator[Shard], workers: int) -> Iterator[Counts]:
    """Take shards until too many of them wait for rows whose process died."""
    opened: dict[int, _Open] = {}

    def tasks() -> Iterator[_Task]:
        for shard in shards:
            rows = read_kept(shard.source)
            if not rows:
                write_shard(shard, [])
                continue
            opened[shard.number] = _Open(shard, [None] * len(rows))
            for index, row in enumerate(rows):
                yield _Task(shard.number, index, row)
            if len(opened) >= _OPEN:
                return  # what is left to be tried again is tried now

    work = partial(_prepare, stage)
    with closing(run_in_workers(work, tasks(), workers, stage.time_limit)) as results:
        for task, result in results:
            row = stage.result_of(task.row, result)
            part = opened[task.shard]
            part.rows[task.index] = row
            part.left -= 1
            if not part.left:
                del opened[task.shard]
                write_shard(part.shard, part.rows)
            counts = Counts()
            counts.add(row)
            yield counts


def _prepare(stage: Stage, task: _Task) -> object:
    return None if lacking(stage, task.row) else stage.prepare(task.row)


def _whole_shard(stage: Stage, shard: Shard) -> Counts:
    rows = [
        stage.result_of(
            row, None if lacking(stage, row) else stage.prepare_at(row, shard.number, index)
        )
        for index, row in enumerate(read_kept(shard.source))
    ]
    return write_shard(shard, rows)
