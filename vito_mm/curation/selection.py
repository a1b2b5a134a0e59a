"""What is kept of the videos that a procedure found: filters, no duplicates, not too many."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from vito_mm.utils.hashing import hash64, priority_of
from vito_mm.videos.manifest import PART, part_name

from .duplicates import find_originals, first_equal
from .filters import Filter
from .stage import Shard, Stage
from .tables import DROPPED, Row, TableError, read_kept
from .taxonomy import load_taxonomy

_COLUMNS = (
    *('path', *PART, 'sha256', 'hashes', 'seconds', 'width', 'height'),
    *('labels', 'label_frames', 'label_scores'),
)
_KEPT, _FULL, _TWICE = -1, -2, -3
_MOST_BITS = 12


@dataclass
class Select(Stage):
    """Drops what does not pass filters, near duplicates, and what a class has too much of.

    In this order, so that nothing is dropped for the sake of a video that is not kept itself.

    **Filters** are conditions such as ``seconds<=600``, see :meth:`.filters.Filter.apply`.

    **Duplicates** are files with equal ``sha256``, and videos whose ``hashes`` differ by few bits
    on average over the frames that have a hash in both. Copies that were scaled or compressed again
    are found; not those that were cut, cropped, mirrored or framed. Of duplicates the longest video
    is kept, to a tenth of a second, of equally long ones that with most pixels, else the first by
    path. Only what is near
    the one that is kept is dropped for it: see :func:`.duplicates.find_originals`. It keeps its own
    labels, whatever those of its duplicates are. Videos without any hash are compared by ``sha256``
    alone. A path that is listed again, with the same start and end, is a duplicate of itself; parts
    of one file are never duplicates of each other.

    **Classes.** A row with ``labels`` gets one of them as ``label``, with its ``class_name``: that
    on most frames (``label_frames``), of several that of the highest score (``label_scores``), of
    several the first. Which videos of a class are kept follows from the seed and the file's name.

    The survey takes some 500 bytes a row. What it decides takes 4 bytes a row, and the paths of
    videos that have duplicates.

    Attributes:
        filters (tuple[str, ...]): Conditions that a row must pass. Defaults to none.
        max_distance (float, optional): Bits of 64 in which the frames of duplicates differ, on
            average and at most; up to 12. None or a negative number keeps duplicates. Defaults
            to 6, which found all of the copies that were compressed again, while unrelated videos
            were 14 apart.
        per_class (int, optional): Videos of a class that are kept, at most. Defaults to None, all.
        seed (int): Decides which these are. Defaults to 0.
        taxonomy (str): Names of the classes, see :func:`.taxonomy.load_taxonomy`. Defaults to
            'imagenet'.

    Raises:
        ValueError: If a setting is wrong.
    """

    filters: tuple[str, ...] = ()
    max_distance: float | None = 6
    per_class: int | None = None
    seed: int = 0
    taxonomy: str = 'imagenet'
    name: ClassVar[str] = 'select'
    by_shard: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._filters = [Filter.parse(text) for text in self.filters]
        if self.max_distance is not None and self.max_distance < 0:
            self.max_distance = None
        if self.max_distance is not None and not self.max_distance <= _MOST_BITS:
            raise ValueError(
                f'--max-distance {self.max_distance:g}: give up to {_MOST_BITS} bits (frames that '
                'are further apart show something else), or -1 to keep duplicates'
            )
        if self.per_class is not None and self.per_class < 1:
            raise ValueError(f'--per-class {self.per_class}: give 1 or more')
        # What the survey finds; no fields, which would be part of the identity.
        self._fates: dict[int, np.ndarray] = {}
        self._originals: list[str] = []
        self._class_names: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """See :meth:`.stage.Stage.identity`; the taxonomy by its content."""
        return super().identity() | dict(taxonomy=load_taxonomy(self.taxonomy).fingerprint)

    def survey(self, shards: Sequence[Shard], workers: int) -> None:
        """See :meth:`.stage.Stage.survey`."""
        survey = _Survey(self.max_distance is not None)
        seen: set[str] = set()
        for shard in shards:
            rows = read_kept(shard.source, [*_COLUMNS, *(each.name for each in self._filters)])
            for row in rows:
                seen.update(each.name for each in self._filters if each.values_of(row))
            survey.add(shard.number, [self._filtered(row) for row in rows])
        for each in self._filters:
            if each.name not in seen and sum(survey.sizes):
                raise each.unknown_in(_columns_of(shards))
        if self.max_distance is not None and survey.paths and not survey.can_be_compared:
            raise TableError(
                'duplicates are found by the columns "sha256" and "hashes", which no row has: run '
                'the stage "probe" before, or keep duplicates: --max-distance -1'
            )
        survey.finish()
        if self.max_distance is not None:
            survey.drop_duplicates(self.max_distance)
        if self.per_class is not None:
            survey.limit_classes(self.per_class, self.seed)
        if (survey.labels >= 0).any():
            self._class_names = load_taxonomy(self.taxonomy).names
            if (most := int(survey.labels.max())) >= len(self._class_names):
                raise TableError(
                    f'the table has the label {most}, but the taxonomy {self.taxonomy!r} only '
                    f'{len(self._class_names)} classes: give that of the classifier (--taxonomy)'
                )
        self._fates, self._originals = survey.result()

    def prepare_at(self, row: Row, shard: int, index: int) -> int:
        """See :meth:`.stage.Stage.prepare_at`."""
        return int(self._fates[shard][index])

    def finish(self, row: Row, prepared: int) -> Row:
        """See :meth:`.stage.Stage.finish`."""
        if row.get('labels') is not None:  # a label of the user has had its say before
            row = {name: row[name] for name in row if name not in ('label', 'class_name')}
        row = self._filtered(row)
        if DROPPED in row:
            return row
        if (label := label_of(row)) is not None:
            row = {**row, 'label': label, 'class_name': self._class_names[label]}
        if prepared == _KEPT:
            return row
        if prepared == _FULL:
            reason = 'its class is full'
        elif prepared == _TWICE:
            reason = 'duplicate: of itself, listed twice'
        else:
            reason = f'duplicate: of {self._originals[prepared]}'
        return {**row, DROPPED: reason}

    def _filtered(self, row: Row) -> Row:
        for each in self._filters:
            row = each.apply(row)
            if DROPPED in row:
                break
        return row


def label_of(row: Row) -> int | None:
    """The label that says most about a video.

    Args:
        row (dict): A row with ``labels``, and maybe ``label_frames`` and ``label_scores``.

    Returns:
        int, optional: That on most frames, of several that with the highest score, of several the
        first class. None if there is none.
    """
    labels = row.get('labels')
    if not labels:
        return None
    nothing = [0] * len(labels)
    frames, scores = row.get('label_frames', nothing), row.get('label_scores', nothing)
    if not len(labels) == len(frames) == len(scores):
        raise TableError(
            f'{row.get("path")}: "labels", "label_frames" and "label_scores" differ in length'
        )
    # The highest, but of labels the lowest.
    _, _, negative = max(zip(frames, scores, (-label for label in labels), strict=True))
    return -negative


class _Survey:
    """What must be known of all rows at once, as arrays.

    Args:
        compare (bool): Whether duplicates are looked for.
    """

    def __init__(self, compare: bool) -> None:
        self.compare = compare
        self.numbers: list[int] = []  # of shards
        self.sizes: list[int] = []  # of shards, rows that were dropped included
        self.paths: list[str] = []  # names of the parts of rows that are left, as all that follows
        self.files: list[str] = []  # paths without the part
        self._parts: list[dict[str, np.ndarray]] = []
        self.originals: list[str] = []

    def add(self, number: int, rows: list[Row]) -> None:
        """Add a shard."""
        first = sum(self.sizes)
        self.numbers.append(number)
        self.sizes.append(len(rows))
        left = [
            (first + index, row)
            for index, row in enumerate(rows)
            if DROPPED not in row and row.get('path') is not None
        ]
        self.paths += [part_name(row) for _, row in left]
        self.files += [row['path'] for _, row in left]
        hashes = [_hashes_of(row) if self.compare else [] for _, row in left]
        digests = [_sha256_of(row) if self.compare else 0 for _, row in left]
        frames = max(map(len, hashes), default=0)
        labels = [label_of(row) for _, row in left]
        self._parts.append(
            dict(
                row=np.array([place for place, _ in left], np.int64),
                hashes=_filled([[h or 0 for h in group] for group in hashes], frames, np.uint64),
                known=_filled([[h is not None for h in group] for group in hashes], frames, bool),
                sha256=np.array(digests, np.uint64),
                # Containers round lengths: that should not decide between copies.
                seconds=np.array([round(row.get('seconds', 0.0), 1) for _, row in left]),
                pixels=np.array(
                    [float(row.get('width', 0) * row.get('height', 0)) for _, row in left]
                ),
                labels=np.array([-1 if label is None else label for label in labels], np.int64),
            )
        )

    @property
    def can_be_compared(self) -> bool:
        """Whether any row can be the duplicate of another."""
        return any(part['known'].any() or part['sha256'].any() for part in self._parts)

    def finish(self) -> None:
        """Get ready to decide, after the last shard."""
        frames = max((part['hashes'].shape[1] for part in self._parts), default=0)
        for part in self._parts:
            for name in ('hashes', 'known'):
                missing = frames - part[name].shape[1]
                part[name] = np.pad(part[name], ((0, 0), (0, missing)))
        columns = {
            name: np.concatenate([part[name] for part in self._parts])
            for name in (self._parts[0] if self._parts else ())
        }
        self._parts = []
        self.row, self.labels = columns['row'], columns['labels']
        self.columns = columns
        self.by_path = np.array(
            sorted(range(len(self.paths)), key=self.paths.__getitem__), np.int64
        )
        self.fates = np.full(len(self.paths), _KEPT, np.int32)

    def drop_duplicates(self, max_distance: float) -> None:
        """Decide what is dropped as the duplicate of another row."""
        # Rows with the same path are neighbours in this stable order, the first of them ahead.
        paths = np.array([self.paths[i] for i in self.by_path], object)
        again = self.by_path[1:][paths[1:] == paths[:-1]]
        self.fates[again] = _TWICE
        # By preference; what is left to the last key is the order of paths.
        order = self.by_path[self.fates[self.by_path] == _KEPT]
        columns = {name: self.columns[name][order] for name in self.columns}
        order = order[np.lexsort([-columns['pixels'], -columns['seconds']])]
        columns = {name: self.columns[name][order] for name in self.columns}
        rows = np.arange(len(order))
        equal = np.where(columns['sha256'] > 0, first_equal([columns['sha256']]), rows)
        left = np.flatnonzero(equal == rows)
        numbers = {file: number for number, file in enumerate(dict.fromkeys(self.files))}
        files = np.array([numbers[self.files[i]] for i in order[left]], np.int64)
        originals = find_originals(
            columns['hashes'][left], columns['known'][left], max_distance, files
        )
        near = rows.copy()
        near[left] = left[originals]
        kept = near[equal]
        duplicates = np.flatnonzero(kept != rows)
        named, which = np.unique(kept[duplicates], return_inverse=True)
        self.fates[order[duplicates]] = which
        self.originals = [self.paths[i] for i in order[named]]

    def limit_classes(self, per_class: int, seed: int) -> None:
        """Decide what is dropped since its class has enough without it."""
        left = self.by_path[self.fates[self.by_path] == _KEPT]
        labels = self.labels[left]
        if (labels < 0).any():
            path = self.paths[left[int(np.argmax(labels < 0))]]
            raise TableError(
                f'--per-class needs labels, which {path} does not have: run the stage "classify" '
                'before, or leave it out'
            )
        priorities = np.array([priority_of(self.paths[i], seed) for i in left], np.uint64)
        order = np.lexsort([priorities, labels])
        _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
        place = np.arange(len(order)) - np.repeat(starts, sizes)
        self.fates[left[order[place >= per_class]]] = _FULL

    def result(self) -> tuple[dict[int, np.ndarray], list[str]]:
        """What becomes of each row of each shard, and the paths that this refers to."""
        fates = np.full(sum(self.sizes), _KEPT, np.int32)
        fates[self.row] = self.fates
        parts = np.split(fates, np.cumsum(self.sizes)[:-1])
        return dict(zip(self.numbers, parts, strict=True)), self.originals


def _hashes_of(row: Row) -> list[int | None]:
    try:
        return [int(text, 16) if text else None for text in row.get('hashes') or ()]
    except (TypeError, ValueError):
        raise TableError(
            f'{row["path"]}: the column "hashes" has {row["hashes"]!r}, not hexadecimal numbers'
        ) from None


def _sha256_of(row: Row) -> int:
    """64 bits of it and of the part, of which two of a million are equal once in 40 million tables.

    Zero where it is not known.
    """
    try:
        number = int((row.get('sha256') or '0')[:16], 16)
    except (TypeError, ValueError):
        raise TableError(
            f'{row["path"]}: the column "sha256" has {row["sha256"]!r}, not a hexadecimal number'
        ) from None
    part = part_name({**row, 'path': ''})
    return hash64(str(number), part) if number and part else number


def _filled(rows: list[list[Any]], width: int, kind: type) -> np.ndarray:
    filled = [row + [0] * (width - len(row)) for row in rows]
    return np.array(filled, kind).reshape(len(rows), width)


def _columns_of(shards: Sequence[Shard]) -> list[str]:
    """Columns of the first shard with rows; only for an error."""
    for shard in shards:
        if rows := read_kept(shard.source):
            return list(dict.fromkeys(name for row in rows for name in row))
    return []
