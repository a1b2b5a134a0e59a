"""Search for rows of hashes that are nearly the same, without comparing all with all."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from math import comb, floor

import numpy as np

Pairs = Iterator[tuple[np.ndarray, np.ndarray]]

_CHUNK = 2**20
"""Pairs that are looked at together."""

_BITS = 64


def find_originals(
    hashes: np.ndarray, known: np.ndarray, max_distance: float, files: np.ndarray | None = None
) -> np.ndarray:
    """Find for each row the row that it is a near duplicate of, see :func:`near_pairs`.

    Rows come in order of preference. The first is kept and all that are near it are its
    duplicates; of the others the first is kept, and so on. So no two kept rows are near each other,
    and every other row is near the one that is kept in its place: in a chain where a is near b, and
    b near c, but a not near c, both a and c are kept if a comes before b. A million rows of three
    random hashes take seconds for 4 bits, half a minute for 8, and some 200 MB.

    Args:
        hashes (np.ndarray): Hashes of 64 bits of some frames each, uint64, shape (rows, frames).
        known (np.ndarray): Which of them count, bool, of the same shape.
        max_distance (float): Bits that hashes differ by, at most and on average.
        files (np.ndarray, optional): Number of the file that each row is a part of, shape (rows, ).
            Rows of one file are never near each other. Defaults to None, all are of different ones.

    Returns:
        np.ndarray: Index of the kept row, its own where a row is kept, int64, shape (rows, ).
    """
    rows, comparable = np.arange(len(hashes)), known.any(axis=1)
    if not comparable.any():
        return rows
    hashes = np.where(known, hashes, 0)
    files = rows if files is None else files
    # Rows with equal hashes are near to the same rows: one stands for all of them, but for the
    # second part of a file that of other files, and so on.
    equal = first_equal([*hashes.T, *known.T, _place_in_file(files)])
    originals = np.where(comparable, equal, rows)
    distinct = np.flatnonzero((originals == rows) & comparable)
    hashes, known, files = hashes[distinct], known[distinct], files[distinct]
    for members in _groups(near_pairs(hashes, known, max_distance), len(distinct)):
        while len(members) > 1:
            first, others = members[:1], members[1:]
            near = _are_near(hashes, known, first, others, max_distance)
            near &= files[first] != files[others]
            originals[distinct[others[near]]] = distinct[first]
            members = others[~near]
    return originals[originals]


def _place_in_file(files: np.ndarray) -> np.ndarray:
    """Count the rows of its file that come before each row, shape (rows, )."""
    order = np.argsort(files, kind='stable')
    starts, sizes = _runs([files[order]])
    places = np.empty(len(files), np.int64)
    places[order] = np.arange(len(files)) - np.repeat(starts, sizes)
    return places


def first_equal(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Find for each row of some columns the first row that is equal to it, int64."""
    order = np.lexsort(columns)  # stable
    firsts = np.empty(len(order), np.int64)
    starts, sizes = _runs([column[order] for column in columns])
    firsts[order] = np.repeat(order[starts], sizes)
    return firsts


def near_pairs(hashes: np.ndarray, known: np.ndarray, max_distance: float) -> Pairs:
    """Find the pairs of rows whose hashes differ by few bits on average.

    Frames known of both count; rows without one are not near. No pair is missed: where the mean
    over frames is at most d, that of one frame is, so it is enough to look frame by frame for
    hashes at most d apart. These agree in at least b of d + b parts, so they are neighbours when
    hashes are sorted by the right choice of b parts, see G. S. Manku, A. Jain and A. Das Sarma,
    "Detecting near-duplicates for web crawling", 2007, https://doi.org/10.1145/1242572.1242592. The
    number of parts is the one that makes for the least comparisons.

    A hash that m rows share, though they differ in other frames, costs m^2 / 2 comparisons: two
    minutes for 100,000 rows, at 20 ns each. Memory stays the same.

    Args: see :func:`find_originals`.

    Yields:
        tuple: Indices of the first and second rows of some pairs. A pair may come more than once,
        and either way round.
    """
    for frame in range(hashes.shape[1]):
        rows = np.flatnonzero(known[:, frame])
        rows = rows[np.argsort(hashes[rows, frame])]
        starts, sizes = _runs([hashes[rows, frame]])
        values = hashes[rows[starts], frame]
        for first, second in _same_or_near(values, starts, sizes, floor(max_distance)):
            first, second = rows[first], rows[second]
            near = _are_near(hashes, known, first, second, max_distance)
            yield first[near], second[near]


def _are_near(hashes, known, first, second, max_distance: float) -> np.ndarray:
    bits = count = 0
    for frame in range(hashes.shape[1]):
        both = known[first, frame] & known[second, frame]
        differing = hashes[first, frame] ^ hashes[second, frame]
        bits = bits + _bit_count(differing) * both.astype(np.int32)
        count = count + both.astype(np.int32)
    return (bits <= max_distance * count) & (count > 0)


def _bit_count(values: np.ndarray) -> np.ndarray:
    """Number of ones in each 64-bit number; numpy has a function for it since version 2."""
    if hasattr(np, 'bitwise_count'):
        return np.bitwise_count(values)
    return np.unpackbits(values[..., None].view(np.uint8), axis=-1).sum(-1, dtype=np.uint8)


def _same_or_near(values, starts, sizes, distance: int) -> Pairs:
    """Pairs of places in sorted rows: runs of equal values, and those of values that are near."""
    yield from _within_runs(starts, sizes)
    for one, other in _near_values(values, distance):
        yield from _across_runs(starts[one], sizes[one], starts[other], sizes[other])


def _near_values(values: np.ndarray, distance: int) -> Pairs:
    """All pairs of different values at most some bits apart, each once."""
    if distance < 1 or len(values) < 2:
        return
    parts, chosen = _partition(distance, len(values))
    masks = [sum(1 << int(bit) for bit in part) for part in np.array_split(np.arange(_BITS), parts)]
    done: list[np.uint64] = []
    for choice in combinations(masks, chosen):
        mask = np.uint64(sum(choice))
        order = np.argsort(values & mask)
        ordered = values[order]
        for first, second in _within_runs(*_runs([ordered & mask])):
            differing = ordered[first] ^ ordered[second]
            near = _bit_count(differing) <= distance
            first, second, differing = first[near], second[near], differing[near]
            for earlier in done:
                new = (differing & earlier) != 0
                first, second, differing = first[new], second[new], differing[new]
            yield order[first], order[second]
        done.append(mask)


def _partition(distance: int, count: int) -> tuple[int, int]:
    """Parts of a hash, and how many of them are compared, that cost least if bits are random."""

    def cost(chosen: int) -> float:
        parts = distance + chosen
        pairs = count * count / 2 ** (_BITS * chosen / parts) / 2
        return comb(parts, chosen) * (20 * count + pairs)  # sorting, about

    chosen = min(range(1, 6), key=cost)
    return distance + chosen, chosen


def _runs(columns: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of equal rows start, and their lengths."""
    count = len(columns[0])
    changes = np.zeros(max(count - 1, 0), bool)
    for column in columns:
        changes |= column[1:] != column[:-1]
    starts = np.concatenate([np.zeros(min(count, 1), np.int64), np.flatnonzero(changes) + 1])
    return starts, np.diff(starts, append=count)


def _within_runs(starts: np.ndarray, sizes: np.ndarray) -> Pairs:
    """All pairs of places in the same run, by their difference."""
    first = np.arange(sizes.sum())
    ends = np.repeat(starts + sizes, sizes)
    difference = 1
    while len(first := first[first + difference < ends[first]]):
        yield first, first + difference
        difference += 1


def _across_runs(starts, sizes, other_starts, other_sizes) -> Pairs:
    """All pairs of a place in a run and one in the run that is paired with it."""
    ends = np.cumsum(sizes * other_sizes)
    for begin in range(0, int(ends[-1]) if len(ends) else 0, _CHUNK):
        pair = np.arange(begin, min(begin + _CHUNK, int(ends[-1])))
        run = np.searchsorted(ends, pair, side='right')
        within = pair - (ends - sizes * other_sizes)[run]
        yield (
            starts[run] + within // other_sizes[run],
            other_starts[run] + within % other_sizes[run],
        )


def _groups(pairs: Pairs, count: int) -> Iterable[np.ndarray]:
    """Rows that pairs connect, in order, one array for each group of several rows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    def labels_of(found: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        first, second = (np.concatenate(side) for side in zip(*found, strict=True))
        graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
        return connected_components(graph, directed=False)[1]

    found, size = [(np.arange(count), np.arange(count))], count
    for pair in pairs:
        found.append(pair)
        size += len(pair[0])
        if size > 2 * count + _CHUNK:  # as few pairs as connect the same rows
            found, size = [(np.arange(count), first_equal([labels_of(found)]))], count
    labels = labels_of(found)
    order = np.argsort(labels, kind='stable')
    starts, sizes = _runs([labels[order]])
    for start, end in zip(starts[sizes > 1], (starts + sizes)[sizes > 1], strict=True):
        yield order[start:end]
