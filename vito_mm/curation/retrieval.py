"""Retrieval of videos whose titles name a class, up to a number per class."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vito_mm.utils.hashing import hash64, priority_of
from vito_mm.utils.worker_pool import WorkerLost, WorkError, run_in_workers
from vito_mm.videos.manifest import PART, part_name

from .stage import Shard, Stage, StageError, lacking
from .tables import DROPPED, Row, read_kept
from .taxonomy import Taxonomy, load_taxonomy
from .titles import TitleMatcher

_WAITING = 2**18
"""Finds that are collected before those beyond the limit are removed."""


@dataclass
class Retrieve(Stage):
    """Keeps videos whose title names a class, up to a number for each class.

    Which videos a class keeps, where it has too many, is a pseudo-random choice that depends on
    the seed, the class, the name of the file without its folder, and the title: not on the order of
    the table. Among rows that are equal in all of these the first ones win. A row stays with those
    of its classes that keep it.

    Of rows with the same path, start and end the first stays, even if its title names nothing.

    The survey reads the table twice: for the paths, then for the titles. It holds 16 bytes per row
    for the hashes of the paths, some 60 while they are sorted, and later 24 bytes for each video
    that a class keeps. Hashes have 64 bits; some two paths of a million get the same one, so that
    one of them is wrongly dropped, with probability 3e-8.

    Attributes:
        taxonomy (str): See :func:`.taxonomy.load_taxonomy`.
        classes (tuple[str, ...], optional): Queried, see :meth:`.taxonomy.Taxonomy.select`.
            Defaults to None, all.
        limit (int): Videos of a class, at most. Defaults to 5,000, as in the paper.
        seed (int): Of the choice. Defaults to 0.
    """

    name = 'retrieve'
    needs = ('path', 'title')
    by_shard = True
    makes = ('classes', 'matches')

    taxonomy: str = 'imagenet'
    classes: tuple[str, ...] | None = None
    limit: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        self._loaded: Taxonomy | None = None
        self._matcher: TitleMatcher | None = None
        self._queried: frozenset[int] = frozenset()
        self._first_places: dict[int, int] = {}  # of paths that are listed twice, by their hash
        self._last_kept: dict[int, tuple[int, int]] = {}  # of classes that have too many

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | dict(_matcher=None)

    def _load(self) -> Taxonomy:
        """Read the taxonomy once; it is then taken along to other machines."""
        if self._loaded is None:
            taxonomy = load_taxonomy(self.taxonomy)
            queried = range(len(taxonomy.names))
            if self.classes is not None:
                queried = taxonomy.select(self.classes)
            self._loaded, self._queried = taxonomy, frozenset(queried)
        return self._loaded

    def identity(self) -> dict[str, Any]:
        """See :meth:`.stage.Stage.identity`."""
        taxonomy = self._load()
        names = None if self.classes is None else [taxonomy.names[i] for i in sorted(self._queried)]
        return super().identity() | dict(taxonomy=taxonomy.fingerprint, classes=names)

    def check_settings(self) -> None:
        """Read the taxonomy and find the classes in it."""
        self._load()

    def survey(self, shards: Sequence[Shard], workers: int) -> None:
        """Find the paths that are listed twice, and where each class has enough."""
        self._first_places, self._last_kept = {}, {}
        listed = np.concatenate(list(_on_shards(self._listed, shards, workers)))
        # Shards come as they are done: by their place first.
        hashes, places = listed[np.argsort(listed[:, 1])].T
        _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
        first = first[counts > 1]
        self._first_places = dict(zip(hashes[first].tolist(), places[first].tolist(), strict=True))
        del listed, hashes, places

        kept, waiting, count = np.empty((0, 3), np.uint64), [], 0
        for found in _on_shards(self._found, shards, workers):
            waiting.append(found)
            count += len(found)
            if count > max(_WAITING, len(kept)):
                kept, waiting, count = _lowest([kept, *waiting], self.limit + 1), [], 0
        kept = _lowest([kept, *waiting], self.limit + 1)
        indices, starts, counts = np.unique(kept[:, 0], return_index=True, return_counts=True)
        for index, start, count in zip(indices.tolist(), starts, counts, strict=True):
            if count > self.limit:
                self._last_kept[index] = tuple(kept[start + self.limit - 1, 1:].tolist())

    def _rows(self, shard: Shard) -> Iterator[tuple[int, Row]]:
        """Give places and rows of a shard that have all that is needed."""
        for index, row in enumerate(read_kept(shard.source, [*self.needs, *PART])):
            if lacking(self, row) is None:
                yield _place(shard.number, index), row

    def _listed(self, shard: Shard) -> np.ndarray:
        """Return (N, 2) uint64: hash of path and part, place."""
        listed = [(hash64(part_name(row)), place) for place, row in self._rows(shard)]
        return np.array(listed, np.uint64).reshape(-1, 2)

    def _found(self, shard: Shard) -> np.ndarray:
        """Return (M, 3) uint64: class that a title names, priority, place."""
        found = [
            (index, self._priority(index, row), place)
            for place, row in self._rows(shard)
            if not self._is_repeated(row, place)
            for index, _ in self._matches(row)
        ]
        return np.array(found, np.uint64).reshape(-1, 3)

    def finish(self, row: Row, prepared: tuple[int, int]) -> Row:
        """Add the classes that keep the row, or drop it."""
        place = _place(*prepared)
        if self._is_repeated(row, place):
            return {**row, DROPPED: 'listed twice'}
        matches = self._matches(row)
        if not matches:
            oddity = ''
            if not isinstance(row['title'], str):
                oddity = ': the title is no text'
            elif not row['title'].strip():
                oddity = ': the title is empty'
            return {**row, DROPPED: f'title matches no class{oddity}'}
        kept = [
            (index, name)
            for index, name in matches
            if index not in self._last_kept
            or (self._priority(index, row), place) <= self._last_kept[index]
        ]
        if not kept:
            names = ', '.join(self._load().names[index] for index, _ in matches)
            return {**row, DROPPED: f'all its classes are full: {names}'}
        indices, names = map(list, zip(*kept, strict=True))
        return {**row, 'classes': indices, 'matches': names}

    def _is_repeated(self, row: Row, place: int) -> bool:
        return self._first_places.get(hash64(part_name(row)), place) != place

    def _matches(self, row: Row) -> list[tuple[int, str]]:
        """Find the queried classes that a row's title names."""
        if self._matcher is None:
            self._matcher = TitleMatcher(self._load())
        if not isinstance(row['title'], str):
            return []
        found = self._matcher.match(row['title'])
        return [(index, name) for index, name in found if index in self._queried]

    def _priority(self, index: int, row: Row) -> int:
        """Return the pseudo-random number of a video in a class; the lowest are kept."""
        return priority_of(row['path'], self.seed, self._load().names[index], row['title'])


def _place(shard: int, index: int) -> int:
    """Return the place of a row in the table, in the order of which rows come."""
    return shard << 32 | index


def _lowest(found: Sequence[np.ndarray], limit: int) -> np.ndarray:
    """Keep the lowest rows of each class, sorted: (K, 3) of class, priority and place."""
    table = np.concatenate(found)
    table = table[np.lexsort(table.T[::-1])]
    first = np.searchsorted(table[:, 0], table[:, 0])
    return table[np.arange(len(table)) - first < limit]


def _on_shards(
    work: Callable[[Shard], np.ndarray], shards: Sequence[Shard], workers: int
) -> Iterator[np.ndarray]:
    for shard, result in run_in_workers(work, shards, workers):
        if isinstance(result, WorkError | WorkerLost):
            raise StageError(f"stage 'retrieve' cannot survey {shard.source}: {result}")
        yield result
