"""One machine: a pool of processes, each of which may die on the video it has."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain

from vito_mm.utils.worker_pool import WorkerLost, WorkError, run_in_workers
from vito_mm.videos.errors import VideoReadError

from ..stage import Counts, Shard, Stage, StageError, lacking
from ..tables import Row, read_kept, write_file

_OPEN = 32
"""Shards in work, at most: rows whose process died are tried again when no others are in work."""


def run_shards(stage: Stage, shards: Sequence[Shard], workers: int) -> Iterator[Counts]:
    """Work on shards in some processes, and write each as soon as its last row is done.

    Yields:
        Counts: Of some rows that are done, as they come.

    Raises:
        StageError: If a shard of a stage that takes complete shards ends its process twice.
    """
    if not stage.by_shard:
        left = iter(shards)
        for first in left:
            yield from _run_rows(stage, chain([first], left), workers)
        return
    with closing(run_in_workers(partial(_work_on, stage), shards, workers)) as results:
        for shard, result in results:
            if isinstance(result, WorkError | WorkerLost):
                raise StageError(f'stage {stage.name!r} fails on {shard.source}: {result}')
            yield result


def _run_rows(stage: Stage, shards: Iterator[Shard], workers: int) -> Iterator[Counts]:
    """Take shards until too many of them wait for rows whose process died."""
    opened: dict[Shard, list[Row | None]] = {}
    left: dict[Shard, int] = {}

    def tasks() -> Iterator[tuple[Shard, int, Row]]:
        for shard in shards:
            rows = read_kept(shard.source)
            if not rows:
                write_file(shard.target, [])
                continue
            opened[shard], left[shard] = [None] * len(rows), len(rows)
            for index, row in enumerate(rows):
                yield shard, index, row
            if len(opened) >= _OPEN:
                return  # what is left to be tried again is tried now

    work = partial(_prepare, stage)
    with closing(run_in_workers(work, tasks(), workers, stage.time_limit)) as results:
        for (shard, index, row), result in results:
            row = stage.result_of(row, result)
            opened[shard][index] = row
            left[shard] -= 1
            if not left[shard]:
                write_file(shard.target, opened.pop(shard))
            yield Counts.of([row])


def _prepare(stage: Stage, task: tuple[Shard, int, Row]) -> object:
    _, _, row = task
    try:
        return None if lacking(stage, row) else stage.prepare(row)
    except VideoReadError as error:
        return error


def _work_on(stage: Stage, shard: Shard) -> Counts:
    rows = enumerate(read_kept(shard.source))
    rows = [stage.result_of(row, (shard.number, index)) for index, row in rows]
    write_file(shard.target, rows)
    return Counts.of(rows)
