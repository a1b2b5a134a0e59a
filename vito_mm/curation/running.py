"""Running a stage from its table to the next, on an engine: resumed, counted, with progress."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vito_mm.utils.cores import count_cores
from vito_mm.utils.progress import Progress

from .engines import local, ray_data
from .sources import content_of, folder_of, has_relative_paths, rows_of
from .stage import Counts, Shard, Stage, StageError
from .stage_folder import (
    check_columns,
    claim,
    clear,
    close_stage,
    only_job,
    open_stage,
    read_record,
    shard_name,
    write_record,
)
from .tables import DROPPED, TableError, read_file, split, write_file

_FIRST_ROWS = 10_000
"""Rows among which every column that is needed occurs."""


@dataclass(frozen=True)
class Running:
    """Engine and resources; none of it changes what comes out.

    Attributes:
        engine (str): ``'local'`` or ``'ray'``. Defaults to 'local'.
        workers (int, optional): Processes; with Ray those of each actor. Defaults to None, which
            means the number of cores, and 1 with Ray.
        redo (bool): Make again what was made with other settings or from another table. Defaults to
            False.
        ray_address (str, optional): See :func:`.engines.ray_data.run_shards`, as for ``gpus``.
        gpus (float): Defaults to 0.
    """

    engine: str = 'local'
    workers: int | None = None
    redo: bool = False
    ray_address: str | None = None
    gpus: float = 0

    @property
    def processes(self) -> int:
        """Processes on this machine."""
        return count_cores() if self.workers is None else self.workers

    def work(self, stage: Stage, shards: Sequence[Shard]) -> Iterator[Counts]:
        """Work on shards that are not finished; gives counts of rows as they are done."""
        if self.engine == 'ray':
            return ray_data.run_shards(
                stage, shards, self.workers or 1, self.ray_address, self.gpus
            )
        return local.run_shards(stage, shards, self.processes)


def run_stage(stage: Stage, table: Path, folder: Path, running: Running) -> Counts:
    """Run a stage from a table to a folder; what an earlier call finished is not done again.

    Raises:
        StageError: If it cannot go on, or keeps no row.
        TableError: If the table lacks a column or cannot be read.
    """
    with only_job(folder):
        shards = open_stage(stage, table, folder, running.redo)
        todo = [shard for shard in shards if not shard.target.exists()]
        finished = [shard.target for shard in shards if shard not in todo]
        counts = Counts.of(row for file in finished for row in read_file(file, ['path', DROPPED]))
        if todo:
            check_columns(stage, shards)
            stage.check_settings()
            stage.survey(shards, running.processes)
            total = (read_record(table) or {}).get('kept')
            with Progress(total or counts.total, stage.name, 'dropped') as progress:
                progress.advance(counts.total, skipped=True)
                for part in running.work(stage, todo):
                    counts += part
                    progress.advance(part.total, bad=part.dropped.total())
        if todo or not read_record(folder)['finished']:
            close_stage(folder, counts)
    if not counts.kept:
        reasons = ', '.join(f'{n} {reason}' for reason, n in counts.dropped.most_common(5))
        raise StageError(
            f'stage {stage.name!r} keeps none of {counts.total} videos ({reasons or "no rows"}); '
            f'the table with all reasons is {folder}'
        )
    return counts


def import_table(
    source: Path,
    folder: Path,
    running: Running,
    rows_per_shard: int,
    needs: Sequence[str] = ('path',),
    columns: Mapping[str, str] | None = None,
) -> int:
    """Cut a table of the user into shards, once, and return its number of rows.

    Args:
        source (Path): See :func:`.sources.rows_of`.
        folder (Path): Folder of the shards.
        running (Running): Says whether to make it again.
        rows_per_shard (int): Rows of a shard.
        needs (Sequence[str]): Columns that some row must have. Defaults to path.
        columns (Mapping[str, str], optional): See :func:`.sources.rows_of`.

    Raises:
        TableError: If the table cannot be read, is empty or lacks a column.
        StageError: If the folder was made from another table, or one with relative paths in another
            folder, and ``redo`` is not set.
    """
    if folder.resolve() in (source.resolve(), *source.resolve().parents):
        raise TableError(f'{source} lies where its shards are to be written: take another work dir')
    identity = dict(rows_per_shard=rows_per_shard, columns=dict(columns or {}))
    with only_job(folder):
        found = read_record(folder) or {}
        if not found.get('finished'):  # a part of a table is of no use
            clear(folder)
        if 'folder' in found.get('identity', {}):  # only tables with relative paths have it
            identity['folder'] = folder_of(source)
        record = claim(folder, 'table', identity, content_of(source), running.redo)
        if record['finished']:
            return record['kept']
        count, names = 0, dict[str, None]()
        for number, rows in enumerate(split(rows_of(source, columns), rows_per_shard)):
            names |= dict.fromkeys(name for row in rows for name in row)
            if count >= _FIRST_ROWS and not names.keys() >= set(needs):
                break  # no need to read on
            write_file(folder / shard_name(number), rows)
            count += len(rows)
        if not names:
            raise TableError(f'{source} lists no video')
        if missing := [name for name in needs if name not in names]:
            raise TableError(
                f'{source} has no column {", ".join(map(repr, missing))}, only '
                f'{", ".join(map(repr, names))}. Columns of other names: '
                '--title-column, --path-column'
            )
        if has_relative_paths(source, columns or {}):
            identity['folder'] = folder_of(source)
            write_record(folder, record | dict(identity=identity))
        close_stage(folder, Counts(count))
    return count
