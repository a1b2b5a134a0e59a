"""Exact nearest neighbours by scalar product, on CPU or GPU, in bounded memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

_ROWS = 1024  # queries at a time
_ELEMENTS = 2**27  # of a block of the gallery, and of its products with the queries


def products(queries: Tensor, gallery: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the index of the first of some queries (M, D), and their products with the gallery."""
    for start in range(0, len(queries), _ROWS):
        yield start, queries[start : start + _ROWS] @ gallery.T


def nearest(queries: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the rows of a gallery with the largest scalar products: cosines of unit vectors.

    Args:
        queries (Tensor): Shape (M, D); the search runs on their device and in their precision.
        gallery (Tensor): Shape (N, D).
        k (int): Neighbours of each query, at most N are found.

    Returns:
        tuple[Tensor, Tensor]: Products, and indices of rows of the gallery (int64), both of shape
        (M, k), largest products first and of equal ones the lowest index.
    """
    step = max(_ROWS, _ELEMENTS // max(_ROWS, gallery.shape[1]))
    starts = range(0, len(gallery), step)
    found: list[list[tuple[Tensor, Tensor]]] = []
    for begin in starts:
        part = gallery[begin : begin + step].to(queries)
        found.append(
            [
                (values, indices + begin)
                for values, indices in (_largest(p, k) for _, p in products(queries, part))
            ]
        )
    blocks = [_merged(parts, k) for parts in zip(*found, strict=True)]
    if not blocks:
        shape = len(queries), min(k, len(gallery))
        return queries.new_empty(shape), queries.new_empty(shape, dtype=torch.int64)
    return tuple(map(torch.cat, zip(*blocks, strict=True)))


def _merged(parts: tuple[tuple[Tensor, Tensor], ...], k: int) -> tuple[Tensor, Tensor]:
    """The best of blocks of the gallery, which come in order."""
    if len(parts) == 1:
        return parts[0]
    values, indices = (torch.cat(side, dim=1) for side in zip(*parts, strict=True))
    values, order = values.sort(dim=1, descending=True, stable=True)
    return values[:, :k], indices.gather(1, order)[:, :k]


def _largest(products: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row; which of equal ones ``topk`` takes is not defined."""
    k = min(k, products.shape[1])
    values, indices = products.topk(k, dim=1)
    ambiguous = ((products >= values[:, -1:]).sum(dim=1) > k).nonzero().flatten()
    if len(ambiguous):
        order = products[ambiguous].argsort(dim=1, descending=True, stable=True)[:, :k]
        indices[ambiguous], values[ambiguous] = order, products[ambiguous].gather(1, order)
    indices, order = indices.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, indices.gather(1, order)
