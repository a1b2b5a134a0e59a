"""Selection among the videos that a procedure found: filters, duplicates, limits of classes."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from vito_mm.utils.hashing import hash64, priority_of
from vito_mm.videos.manifest import PART, part_name
from vito_mm.videos.tables import shortened

from .duplicates import find_originals, first_equal
from .filters import Filter, is_classified, length_of
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

    **Duplicates** are files with equal ``sha256``, and videos whose ``hashes`` differ by few
    bits on average over the frames that have a hash in both. Copies that were scaled or
    compressed again are found; not those that were cut, cropped, mirrored or framed. Of
    duplicates the longest video is kept, to a tenth of a second, of equally long ones that with
    most pixels, else the first by path; a part of a video is as long as the part. Only what is near
    the one that is kept is dropped for it: see :func:`.duplicates.find_originals`. It keeps its own
    labels, whatever those of its duplicates are. Videos without any hash are compared by ``sha256``
    alone. A path that is listed again, with the same start and end, is a duplicate of itself; parts
    of one file are never duplicates of each other.

    **Classes.** A row with ``labels`` of the stage "classify", which have ``label_frames`` and
    ``label_scores`` next to them, gets one of them as ``label``, with its ``class_name``: that on
    most frames, of several that of the highest score, of several the first. Which videos of a class
    are kept follows from the seed and the file's name. A column ``labels`` without the other two is
    the user's, and says nothing here.

    The survey takes some 500 bytes per row. What it decides takes 4 bytes per row, and the paths of
    videos that have duplicates.

    Attributes:
        filters (tuple[str, ...]): Conditions that a row must pass. Defaults to none.
        max_distance (float, optional): Bits of 64 in which the frames of duplicates differ, on
            average and at most; up to 12. None or a negative number keeps duplicates. Defaults to
            6, which found all copies that were compressed again; other videos were 14 apart.
        per_class (int, optional): Videos of a class that are kept, at most. Defaults to None, all.
        seed (int): Decides which these are. Defaults to 0.
        taxonomy (str): Names of the classes, see :func:`.taxonomy.load_taxonomy`.
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
        # What the survey finds; no fields, which would be part of the identity.
        self._fates: dict[int, np.ndarray] = {}
        self._originals: list[str] = []
        self._class_names: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """See :meth:`.stage.Stage.identity`."""
        return super().identity() | dict(taxonomy=load_taxonomy(self.taxonomy).fingerprint)

    def survey(self, shards: Sequence[Shard], workers: int) -> None:
        """Decide about all rows."""
        compare = self.max_distance is not None
        survey, seen = _Survey(compare), set()
        for shard in shards:
            rows = read_kept(shard.source, [*_COLUMNS, *(each.name for each in self._filters)])
            seen.update(each for each in self._filters for row in rows if each.values_of(row))
            survey.add(shard.number, [self._filtered(row) for row in rows])
        for each in self._filters:
            if each not in seen and sum(survey.sizes.values()):
                first = next(filter(None, (read_kept(shard.source) for shard in shards)))
                raise each.unknown_in(dict.fromkeys(name for row in first for name in row))
        survey.finish()
        if compare:
            survey.drop_duplicates(self.max_distance)
        if self.per_class is not None:
            survey.limit_classes(self.per_class, self.seed)
        if (most := int(survey.columns['label'].max(initial=-1))) >= 0:
            self._class_names = load_taxonomy(self.taxonomy).names
            if most >= len(self._class_names):
                raise TableError(
                    f'the table has the label {most}, but the taxonomy {self.taxonomy!r} only '
                    f'{len(self._class_names)} classes: give that of the classifier (--taxonomy)'
                )
        self._fates, self._originals = survey.result(), survey.originals

    def finish(self, row: Row, prepared: tuple[int, int]) -> Row:
        """Add the label, or drop the row."""
        if is_classified(row):  # a label of the user has had its say before
            row = {name: row[name] for name in row if name not in ('label', 'class_name')}
        row = self._filtered(row)
        if DROPPED in row:
            return row
        if (label := label_of(row)) is not None:
            row = {**row, 'label': label, 'class_name': self._class_names[label]}
        shard, index = prepared
        fate = int(self._fates[shard][index])
        if fate == _KEPT:
            return row
        if fate == _FULL:
            reason = 'its class is full'
        elif fate == _TWICE:
            reason = 'duplicate: of itself, listed twice'
        else:
            reason = f'duplicate: of {self._originals[fate]}'
        return {**row, DROPPED: reason}

    def _filtered(self, row: Row) -> Row:
        for each in self._filters:
            row = each.apply(row)
            if DROPPED in row:
                break
        return row


def label_of(row: Row) -> int | None:
    """Choose among the ``labels`` of a row that on most ``label_frames``; None without any.

    Of several it is that with the highest of ``label_scores``, of several the first class.

    Raises:
        TableError: If they are not what the stage "classify" writes.
    """
    if not is_classified(row) or not row['labels']:
        return None
    labels, frames, scores = row['labels'], row['label_frames'], row['label_scores']
    if not all(type(label) is int and label >= 0 for label in labels):
        raise TableError(
            f'{row.get("path")}: the column "labels" has {shortened(labels)}; a list of indices is '
            'wanted, as the stage "classify" writes it: run that, or rename the column'
        )
    if not len(labels) == len(frames) == len(scores):
        raise TableError(
            f'{row.get("path")}: "labels", "label_frames" and "label_scores" differ in length'
        )
    # The highest, but of labels the lowest.
    _, _, negative = max(zip(frames, scores, (-label for label in labels), strict=True))
    return -negative


class _Survey:
    """Facts of all rows, as arrays, and what follows from them; duplicates only if compared."""

    def __init__(self, compare: bool) -> None:
        self.compare = compare
        self.sizes: dict[int, int] = {}  # of shards, rows that were dropped included
        self.paths: list[str] = []  # with their part, of rows that are left, as all that follows
        self.files: list[str] = []  # without the part
        self.columns: dict[str, Any] = dict(
            **{name: array('q') for name in ('row', 'label', 'frames')},
            **{name: array('d') for name in ('seconds', 'pixels')},
            **{name: array('Q') for name in ('sha256', 'hashes')},
            known=array('b'),
        )
        self.originals: list[str] = []

    def add(self, number: int, rows: list[Row]) -> None:
        """Add a shard."""
        first = sum(self.sizes.values())
        self.sizes[number] = len(rows)
        for place, row in enumerate(rows, start=first):
            if DROPPED in row or row.get('path') is None:
                continue
            self.paths.append(part_name(row))
            self.files.append(row['path'])
            hashes, label = _hashes_of(row) if self.compare else [], label_of(row)
            facts = dict(
                row=place,
                label=-1 if label is None else label,
                frames=len(hashes),
                # Containers round lengths: that should not decide between copies.
                seconds=round(length_of(row) or 0.0, 1),
                pixels=row.get('width', 0) * row.get('height', 0),
                sha256=_sha256_of(row) if self.compare else 0,
            )
            for name, value in facts.items():
                self.columns[name].append(value)
            self.columns['hashes'].extend(each or 0 for each in hashes)
            self.columns['known'].extend(each is not None for each in hashes)

    def finish(self) -> None:
        """Get ready to decide, after the last shard."""
        self.columns = {name: np.array(values) for name, values in self.columns.items()}
        frames = self.columns['frames']
        there = np.arange(frames.max(initial=0)) < frames[:, None]
        for name, kind in (('hashes', np.uint64), ('known', bool)):
            padded = np.zeros(there.shape, kind)
            padded[there] = self.columns[name]
            self.columns[name] = padded
        by_path = sorted(range(len(self.paths)), key=self.paths.__getitem__)
        self.by_path = np.array(by_path, np.int64)
        self.fates = np.full(len(by_path), _KEPT, np.int32)

    def drop_duplicates(self, max_distance: float) -> None:
        """Decide which rows are dropped as the duplicates of others."""
        columns = self.columns
        if self.paths and not (columns['known'].any() or columns['sha256'].any()):
            raise TableError(
                'duplicates are found by the columns "sha256" and "hashes", which no row has: run '
                'the stage "probe" before, or keep duplicates: --max-distance -1'
            )
        # Rows with the same path are neighbours in this stable order, the first of them ahead.
        paths = np.array([self.paths[i] for i in self.by_path], object)
        self.fates[self.by_path[1:][paths[1:] == paths[:-1]]] = _TWICE
        # By preference; what is left to the last key is the order of paths.
        order = self.by_path[self.fates[self.by_path] == _KEPT]
        order = order[np.lexsort([-columns['pixels'][order], -columns['seconds'][order]])]
        sha256, rows = columns['sha256'][order], np.arange(len(order))
        equal = np.where(sha256 > 0, first_equal([sha256]), rows)
        left = np.flatnonzero(equal == rows)
        hashes, known = columns['hashes'][order[left]], columns['known'][order[left]]
        numbers = {file: number for number, file in enumerate(dict.fromkeys(self.files))}
        files = np.array([numbers[self.files[i]] for i in order[left]], np.int64)
        near = rows.copy()
        near[left] = left[find_originals(hashes, known, max_distance, files)]
        kept = near[equal]
        duplicates = np.flatnonzero(kept != rows)
        named, which = np.unique(kept[duplicates], return_inverse=True)
        self.fates[order[duplicates]] = which
        self.originals = [self.paths[i] for i in order[named]]

    def limit_classes(self, per_class: int, seed: int) -> None:
        """Decide which rows are dropped since their class has enough without them."""
        left = self.by_path[self.fates[self.by_path] == _KEPT]
        labels = self.columns['label'][left]
        if (labels < 0).any():
            path = self.paths[left[int(np.argmax(labels < 0))]]
            raise TableError(
                f'--per-class needs labels, which {path} does not have: run the stage "classify" '
                'before, or leave it out'
            )
        priorities = np.array([priority_of(self.paths[i], seed) for i in left], np.uint64)
        order = np.lexsort([priorities, labels])
        place = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
        self.fates[left[order[place >= per_class]]] = _FULL

    def result(self) -> dict[int, np.ndarray]:
        """Return the fate of each row by shard: kept, full, twice, or an index of originals."""
        fates = np.full(sum(self.sizes.values()), _KEPT, np.int32)
        fates[self.columns['row']] = self.fates
        parts = np.split(fates, np.cumsum([*self.sizes.values()])[:-1])
        return dict(zip(self.sizes, parts, strict=True))


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
