"""Folder of a stage: its shards, and the record of what made them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vito_mm.utils.atomic import write_json
from vito_mm.utils.file_lock import file_lock
from vito_mm.utils.hashing import sha256_of_file

from .stage import Counts, Shard, Stage, StageError
from .tables import TableError, find_files, read_kept

RECORD = 'stage.json'
"""File of a stage's folder that says what made it, and whether it is finished."""

FORMAT = 'parquet'
"""Format of all shards."""


def shard_name(number: int) -> str:
    """Return the file name of a shard, such as ``'part-000007.parquet'``."""
    return f'part-{number:06d}.{FORMAT}'


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read the record of a stage's folder; None if no stage wrote there."""
    try:
        return json.loads((folder / RECORD).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record of a stage's folder, complete or not at all."""
    write_json(folder / RECORD, record)


def finished_record(table: Path) -> dict[str, Any] | None:
    """Read the record of a table, None if no stage made it; a TableError if it is not finished."""
    record = read_record(table)
    if record is not None and not record['finished']:
        name = record['stage'] or table.name
        raise TableError(f'{table} is not finished: run stage {name!r} to its end first')
    return record


def fingerprint_of(table: Path) -> str:
    """Hash what made a stage's table, and its content: changes when the table does."""
    if (record := read_record(table)) is not None:
        facts = [record['stage'], record['identity'], record['input']]
        facts += [record['content']] if 'content' in record else []  # not in those of 0.1.0
    else:
        facts = _hashes_of(table)
    return _digest(facts)


def _hashes_of(table: Path) -> list[str]:
    return [sha256_of_file(file) for file in find_files(table)]


def _digest(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def claim(folder: Path, stage: str, identity: dict, source: str, redo: bool) -> dict[str, Any]:
    """Get the folder of a stage ready to be written, which removes what was made differently.

    Args:
        folder (Path): The folder.
        stage (str): Name of the stage.
        identity (dict): Settings that decide its result.
        source (str): Hash of the table that it is made from.
        redo (bool): Remove shards of other settings or of another table.

    Returns:
        dict: Record of the folder as it is now.

    Raises:
        StageError: If there are such shards and ``redo`` is not set, or shards of no stage.
    """
    identity = json.loads(json.dumps(identity))
    wanted = dict(stage=stage, identity=identity, input=source, format=FORMAT)
    found = read_record(folder)
    changes = _changes(found, wanted) if found is not None else []
    if found is not None and not changes:
        return found
    # Where there is no shard yet, nothing is lost.
    if changes and not redo and any(folder.glob('part-*')):
        raise StageError(
            f'{folder} was made differently: {"; ".join(changes)}. Take another folder, or '
            '--redo to make it again'
        )
    folder.mkdir(parents=True, exist_ok=True)
    clear(folder)
    write_record(folder, record := wanted | dict(finished=False))
    return record


def open_stage(stage: Stage, table: Path, folder: Path, redo: bool) -> list[Shard]:
    """Get a stage's folder ready, see :func:`claim`, and list all shards, finished ones included.

    Raises:
        TableError: If the table cannot be read, or is the output of a stage that is not finished.
    """
    finished_record(table)
    claim(folder, stage.name, stage.identity(), fingerprint_of(table), redo)
    for file in folder.glob('part-*.tmp'):  # of a job that was killed
        file.unlink()
    return [
        Shard(number, file, folder / shard_name(number))
        for number, file in enumerate(find_files(table))
    ]


def close_stage(folder: Path, counts: Counts) -> None:
    """Record that a stage is finished, with a hash of its shards.

    What a stage finds may differ though its settings do not, e.g. when a disk was away.
    """
    done = dict(finished=True, kept=counts.kept, dropped=dict(counts.dropped.most_common()))
    write_record(folder, read_record(folder) | done | dict(content=_digest(_hashes_of(folder))))


def begin_again(folders: Sequence[Path]) -> None:
    """Remove the shards of finished stages, so that they are made again with the same settings.

    Where one of the stages was begun and is not finished, which is what a command that did this
    leaves when it is stopped, nothing is removed: the same command goes on.
    """
    records = {folder: read_record(folder) for folder in folders}
    there = {folder: record for folder, record in records.items() if record is not None}
    if all(record['finished'] for record in there.values()):
        for folder in there:
            _empty(folder)


def check_columns(stage: Stage, shards: Sequence[Shard]) -> None:
    """Raise a TableError, which names the columns, if no row of a table has what a stage needs."""
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


@contextmanager
def only_job(folder: Path) -> Iterator[None]:
    """Keep a second job, which gets a StageError, away from a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)

    def busy(process: str) -> StageError:
        return StageError(
            f'another job writes {folder} (process {process}); wait for it, or choose another '
            'folder'
        )

    with file_lock(folder / 'lock', busy):
        yield


def clear(folder: Path) -> None:
    """Remove what a stage wrote; a StageError if the folder has shards that no stage wrote."""
    shards = list(folder.glob('part-*'))
    if read_record(folder) is None:
        if shards:
            raise StageError(
                f'{folder} has files that are not of the curation, such as {shards[0].name}: take '
                'another work dir, or move them away'
            )
        return
    _empty(folder)
    (folder / RECORD).unlink()


def _empty(folder: Path) -> None:
    """Remove the shards of a stage, and leave a record that says so."""
    # First, so that a kill leaves no record that what is left is complete.
    nothing = dict(stage=None, input=None, format=None, identity={}, finished=False)
    write_record(folder, nothing)
    for file in folder.glob('part-*'):
        file.unlink()


def _changes(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """List how the settings that made a folder differ from those of now."""
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
    if found.get('format') != FORMAT:
        changes.append(f'as {found.get("format")}')
    return changes
