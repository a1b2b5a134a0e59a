"""A step of the curation: a table in, a table out, resumable."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from vito_mm.utils.atomic import written_aside
from vito_mm.utils.file_lock import file_lock
from vito_mm.utils.hashing import sha256_of_file
from vito_mm.utils.worker_pool import WorkerLost, WorkError

from .tables import (
    DROPPED,
    FORMATS,
    Row,
    TableError,
    find_files,
    read_file,
    read_kept,
    shard_name,
    write_file,
)

RECORD = 'stage.json'
"""File of a stage's folder that says what made it, and whether it is finished."""


class StageError(RuntimeError):
    """A stage cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Shard:
    """A part of a table.

    Attributes:
        number (int): Its number, from 0.
        source (Path): File with its rows.
        target (Path): File that gets what the stage makes of them.
    """

    number: int
    source: Path
    target: Path


class Stage:
    """What is done with each row. Subclasses are dataclasses whose fields identify the result.

    A stage is pickled to where it runs; whatever it opens there (a model), it opens when first
    needed. A row is dropped by giving it a reason in the column ``dropped``: what comes before a
    colon has no numbers, so that reasons can be counted.

    Attributes:
        name (str): Name of the stage, of its folder and on the command line.
        needs (tuple[str, ...]): Columns that a row must have.
        by_shard (bool): Whether a whole shard is one task, since a row costs next to nothing.
            Otherwise each row is, in a process that it may break.
        time_limit (float, optional): Seconds that :meth:`prepare` may take.
        makes (tuple[str, ...]): Columns that it gives to rows. Those that a row has already, of the
            user or of an earlier procedure, are taken from all rows, so that no shard has both.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ('path',)
    by_shard: ClassVar[bool] = False
    time_limit: ClassVar[float | None] = 600.0
    makes: ClassVar[tuple[str, ...]] = ()
    not_identity: ClassVar[frozenset[str]] = frozenset()

    def identity(self) -> dict[str, Any]:
        """What decides the result, as JSON.

        Returns:
            dict[str, Any]: By default the fields of the dataclass, less those in ``not_identity``.
        """
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in self.not_identity}

    def check_settings(self) -> None:
        """Raise for settings that would fail after hours of other stages' work.

        Raises:
            ValueError: Naming the setting.
        """

    def survey(self, shards: Sequence[Shard], workers: int) -> None:
        """Look at the whole table before any row is decided, and keep what that gives.

        Args:
            shards (Sequence[Shard]): All shards.
            workers (int): Processes that may be used.
        """

    def prepare(self, row: Row) -> Any:
        """The part of the work that is done in a process of its own, such as decoding.

        Args:
            row (dict): A row.

        Returns:
            Any: What :meth:`finish` gets. Errors that it raises drop the row.
        """

    def prepare_at(self, row: Row, shard: int, index: int) -> Any:
        """:meth:`prepare` of a row whose place is known: called where ``by_shard`` is set.

        Args:
            row (dict): A row.
            shard (int): Number of its shard.
            index (int): Its index among the rows of the shard, as :func:`.tables.read_kept` gives
                them.

        Returns:
            Any: What :meth:`finish` gets.
        """
        return self.prepare(row)

    def finish(self, row: Row, prepared: Any) -> Row:
        """The rest of the work.

        Args:
            row (dict): The row, without the columns that the stage makes.
            prepared (Any): What :meth:`prepare` returned.

        Returns:
            dict: The row of the stage's table.
        """
        raise NotImplementedError

    def result_of(self, row: Row, result: Any) -> Row:
        """What becomes of a row.

        Args:
            row (dict): The row.
            result (Any): What :meth:`prepare` returned, or the :class:`WorkError` or
                :class:`WorkerLost` that it ended in.

        Returns:
            dict: The row of the stage's table.
        """
        lacking_row = lacking(self, row)
        row = {name: row[name] for name in row if name not in self.makes}
        if isinstance(result, WorkError | WorkerLost):
            return self.failed(row, result)
        if lacking_row is not None:
            return row | {DROPPED: lacking_row[DROPPED]}
        return self.finish(row, result)

    def failed(self, row: Row, error: WorkError | WorkerLost) -> Row:
        """The row of one that could not be prepared.

        Args:
            row (dict): The row.
            error (WorkError | WorkerLost): What happened.

        Returns:
            dict: The row, dropped.
        """
        if isinstance(error, WorkError):
            reason = f'cannot be understood: {error}'
        elif error.late:
            reason = f'over the time limit: {error}'
        else:
            reason = f'ends the process that reads it: {error}, twice'
        return {**row, DROPPED: ' '.join(reason.split())}


@dataclass
class Counts:
    """What became of the rows of a table.

    Attributes:
        kept (int): Rows that go on.
        dropped (Counter): Rows that do not, by the first part of the reason.
    """

    kept: int = 0
    dropped: Counter = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Count a row."""
        if (reason := row.get(DROPPED)) is None:
            self.kept += 1
        else:
            self.dropped[reason.split(':')[0]] += 1

    def __add__(self, other: 'Counts') -> 'Counts':
        return Counts(self.kept + other.kept, self.dropped + other.dropped)

    @property
    def total(self) -> int:
        """All rows."""
        return self.kept + self.dropped.total()


def count_file(file: Path) -> Counts:
    """Count the rows of a shard.

    Args:
        file (Path): Shard.

    Returns:
        Counts: Kept and dropped rows.
    """
    counts = Counts()
    for row in read_file(file, ['path', DROPPED]):
        counts.add(row)
    return counts


def read_record(folder: Path) -> dict[str, Any] | None:
    """What a stage's folder says about itself.

    Args:
        folder (Path): Folder.

    Returns:
        dict, optional: The record; None if no stage wrote there.
    """
    try:
        return json.loads((folder / RECORD).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None


def finished_record(table: Path) -> dict[str, Any] | None:
    """What a table says about itself, if a stage made it.

    Args:
        table (Path): Folder or file.

    Returns:
        dict, optional: The record; None if no stage wrote there.

    Raises:
        TableError: If the stage is not finished.
    """
    record = read_record(table)
    if record is not None and not record['finished']:
        name = record['stage'] or table.name
        raise TableError(f'{table} is not finished: run stage {name!r} to its end first')
    return record


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write what a stage's folder says about itself, whole or not at all.

    Args:
        folder (Path): Folder.
        record (dict): The record.
    """
    with written_aside(folder / RECORD) as unfinished:
        unfinished.write_text(json.dumps(record, indent=1) + '\n')


def fingerprint_of(table: Path) -> str:
    """Hash that tells whether a table is still the one that a stage was made from.

    Args:
        table (Path): Folder of a finished stage, or a table of the user.

    Returns:
        str: Hash of what made it; for other tables of their content.
    """
    if (record := read_record(table)) is not None:
        facts: Any = [record['stage'], record['identity'], record['input']]
    else:
        facts = []
        for file in find_files(table):
            facts.append(sha256_of_file(file))
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def open_stage(stage: Stage, table: Path, folder: Path, form: str, redo: bool) -> list[Shard]:
    """Get a stage's folder ready, and say what its shards are.

    Args:
        stage (Stage): The stage.
        table (Path): Table that it reads: a folder of shards.
        folder (Path): Folder that it writes.
        form (str): One of ``FORMATS``.
        redo (bool): Whether to remove what was made with other settings or from another table.

    Returns:
        list[Shard]: All shards, the finished ones included.

    Raises:
        StageError: If the folder holds something else and ``redo`` is not set.
        TableError: If the table cannot be read, or is the output of a stage that is not finished.
    """
    if form not in FORMATS:
        raise ValueError(f'--format {form}: choose among {", ".join(FORMATS)}')
    finished_record(table)
    wanted = dict(
        stage=stage.name,
        identity=json.loads(json.dumps(stage.identity())),
        input=fingerprint_of(table),
        format=form,
    )
    found = read_record(folder)
    changes = _changes(found, wanted) if found is not None else []
    # Where there is no shard yet, nothing is lost.
    if changes and not redo and any(folder.glob('part-*')):
        raise StageError(
            f'{folder} was made differently: {"; ".join(changes)}. Take another folder, or '
            '--redo to make it again'
        )
    folder.mkdir(parents=True, exist_ok=True)
    if found is None or changes:
        clear(folder)
        write_record(folder, wanted | dict(finished=False))
    for file in folder.glob('part-*.tmp'):  # of a job that was killed
        file.unlink()
    return [
        Shard(number, file, folder / shard_name(number, form))
        for number, file in enumerate(find_files(table))
    ]


def close_stage(folder: Path, counts: Counts) -> None:
    """Note that a stage is finished.

    Args:
        folder (Path): Its folder.
        counts (Counts): What became of the rows.
    """
    record = read_record(folder) or {}
    done = dict(finished=True, kept=counts.kept, dropped=dict(counts.dropped.most_common()))
    write_record(folder, record | done)


def check_columns(stage: Stage, shards: Sequence[Shard]) -> None:
    """Raise if no row of a table has what a stage needs.

    Args:
        stage (Stage): The stage.
        shards (Sequence[Shard]): Shards of the table.

    Raises:
        TableError: Naming the columns that are missing, and those that there are.
    """
    there: dict[str, None] = {}
    for shard in shards:
        there |= dict.fromkeys(name for row in read_kept(shard.source) for name in row)
        missing = [name for name in stage.needs if name not in there]
        if there and not missing:
            return
    if there:
        raise TableError(
            f'{shards[0].source.parent}: stage {stage.name!r} needs the column '
            f'{", ".join(map(repr, missing))}, and there are only {", ".join(map(repr, there))}'
        )


def lacking(stage: Stage, row: Row) -> Row | None:
    """The row, dropped, if it lacks what the stage needs; else None.

    Args:
        stage (Stage): The stage.
        row (dict): The row.

    Returns:
        dict, optional: The dropped row.
    """
    missing = [name for name in stage.needs if row.get(name) is None]
    return {**row, DROPPED: f'has no {missing[0]}'} if missing else None


@contextmanager
def only_job(folder: Path) -> Iterator[None]:
    """Keep a second job away from a folder; the lock ends with the process.

    Args:
        folder (Path): Folder, made if need be.

    Raises:
        StageError: If another job writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def busy(process: str) -> StageError:
        return StageError(
            f'another job writes {folder} (process {process}); wait for it, or choose another '
            'folder'
        )

    with file_lock(folder / 'lock', busy):
        yield


def clear(folder: Path) -> None:
    """Remove what a stage wrote.

    Args:
        folder (Path): Its folder.

    Raises:
        StageError: If the folder has shards that no stage wrote.
    """
    shards = list(folder.glob('part-*'))
    if read_record(folder) is None:
        if shards:
            raise StageError(
                f'{folder} has files that are not of the curation, such as {shards[0].name}: take '
                'another work dir, or move them away'
            )
        return
    # First, so that a kill leaves no record that what is left is whole.
    write_record(folder, dict.fromkeys(('stage', 'input', 'format')) | _UNFINISHED)
    for file in shards:
        file.unlink()
    (folder / RECORD).unlink()


_UNFINISHED: dict[str, Any] = dict(identity={}, finished=False)


def write_shard(shard: Shard, rows: Sequence[Row]) -> Counts:
    """Write what became of a shard's rows.

    Args:
        shard (Shard): The shard.
        rows (Sequence[dict]): Its rows.

    Returns:
        Counts: Kept and dropped rows.
    """
    write_file(shard.target, rows)
    counts = Counts()
    for row in rows:
        counts.add(row)
    return counts


def _changes(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """How what made a folder differs from what would be made now."""
    if found['stage'] is None:
        return ['it was about to be made again']
    if found['stage'] != wanted['stage']:
        return [f'by stage {found["stage"]!r}']
    before, now = found['identity'], wanted['identity']
    changes = [
        f'{name} was {before.get(name)!r}, is {now.get(name)!r}'
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]
    if found['input'] != wanted['input']:
        changes.append('from another table')
    if found['format'] != wanted['format']:
        changes.append(f'as {found["format"]}')
    return changes
