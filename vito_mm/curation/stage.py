"""Stage of the curation: decides row by row what a table becomes."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from vito_mm.utils.worker_pool import WorkerLost, WorkError
from vito_mm.videos.errors import VideoReadError

from .tables import DROPPED, Row


class StageError(RuntimeError):
    """A stage cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Shard:
    """A part of a table.

    Attributes:
        number (int): Its number, from 0.
        source (Path): File with its rows.
        target (Path): File of the rows that the stage makes of them.
    """

    number: int
    source: Path
    target: Path


class Stage:
    """Work on each row of a table. Subclasses are dataclasses whose fields identify the result.

    A stage is pickled to where it runs; whatever it opens there (a model), it opens when first
    needed. A row is dropped by giving it a reason in the column ``dropped``: what comes before a
    colon has no numbers, so that reasons can be counted.

    Attributes:
        name (str): Name of the stage, of its folder and on the command line.
        needs (tuple[str, ...]): Columns that a row must have.
        makes (tuple[str, ...]): Columns that it gives to rows. Those that a row has already, of the
            user or of an earlier procedure, are taken from all rows, so that no shard has both.
        by_shard (bool): True if a complete shard is one task, since a row costs next to nothing.
            Otherwise each row is, in a process that it may break.
        time_limit (float, optional): Seconds that :meth:`prepare` may take; not part of the
            identity. Defaults to 600.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ('path',)
    makes: ClassVar[tuple[str, ...]] = ()
    by_shard: ClassVar[bool] = False
    time_limit: float | None = 600.0  # no field, as this class is no dataclass

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide the result, as JSON, with hashes in the place of files.

        By default these are the fields of the dataclass.
        """
        return dataclasses.asdict(self)

    def check_settings(self) -> None:
        """Raise for settings that would fail after hours of work.

        Raises:
            ValueError: If a setting is wrong.
            StageError: If a file is missing or does not fit.
            ImportError: If a library is not installed.
        """

    def survey(self, shards: Sequence[Shard], workers: int) -> None:
        """Read all shards of a table, in some processes, and keep what decides about its rows."""

    def prepare(self, row: Row) -> Any:
        """Do what needs a process of its own, such as decoding. An error drops the row.

        Returns:
            Any: The second argument of :meth:`finish`.
        """

    def finish(self, row: Row, prepared: Any) -> Row:
        """Do the rest of the work.

        Args:
            row (dict): The row, without the columns that the stage makes.
            prepared (Any): Result of :meth:`prepare`. If ``by_shard`` is set, the place of the row:
                number of its shard, and index among those that :func:`.tables.read_kept` gives.

        Returns:
            dict: The row of the stage's table.
        """
        raise NotImplementedError

    def result_of(self, row: Row, result: Any) -> Row:
        """Make the row of the stage's table, maybe dropped.

        Args:
            row (dict): The row.
            result (Any): See :meth:`finish`; or the error that :meth:`prepare` ended in.
        """
        reason = lacking(self, row)
        row = {name: row[name] for name in row if name not in self.makes}
        if isinstance(result, VideoReadError):
            reason = undecodable(result)
        elif isinstance(result, WorkError):
            reason = f'cannot be understood: {result}'
        elif isinstance(result, WorkerLost) and result.late:
            reason = f'over the time limit: {result}'
        elif isinstance(result, WorkerLost):
            reason = f'ends the process that reads it: {result}, twice'
        elif reason is None:
            return self.finish(row, result)
        return {**row, DROPPED: ' '.join(reason.split())}


def lacking(stage: Stage, row: Row) -> str | None:
    """Return why a row is dropped that lacks what a stage needs; None if it lacks nothing."""
    return next((f'has no {name}' for name in stage.needs if row.get(name) is None), None)


def undecodable(error: VideoReadError) -> str:
    """Return why a row is dropped whose video cannot be decoded, in one line."""
    return f'a frame cannot be decoded: {" ".join(error.reason.split())}'


@dataclass
class Counts:
    """Numbers of rows that go on, and of those dropped by the first part of the reason."""

    kept: int = 0
    dropped: Counter = field(default_factory=Counter)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> 'Counts':
        """Count rows."""
        reasons = (row.get(DROPPED) for row in rows)
        counts = Counter(None if why is None else why.split(':')[0] for why in reasons)
        return cls(counts.pop(None, 0), counts)

    def __add__(self, other: 'Counts') -> 'Counts':
        return Counts(self.kept + other.kept, self.dropped + other.dropped)

    @property
    def total(self) -> int:
        """All rows."""
        return self.kept + self.dropped.total()
