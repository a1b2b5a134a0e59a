"""Videos that look like reference images, evenly over the clusters of those."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from vito_mm.probes import neighbours

from .embedding import Embed, find_images, unit_length
from .networks import sha256_of
from .stage import Shard, Stage, StageError, lacking
from .tables import DROPPED, Row, TableError, read_file, split

_ROWS = 1024
"""Videos that are compared at a time."""

_CLUSTERED = 100_000
"""Reference images that clusters are made of, at most: evenly taken from all."""


@dataclass
class SelectByEmbedding(Stage):
    """Keep the videos that are most similar to reference images, the same number from each kind.

    The embeddings of the reference are clustered by k-means. A video belongs to the cluster whose
    centre is nearest, and its similarity is the highest cosine with any reference image. Clusters
    take turns, each time with the most similar video that they have left, until there are enough:
    a cluster with fewer videos leaves the rest to the others. No label is used. Similar videos are
    kept in the order of the table.

    Columns: ``cluster`` (int) and ``similarity`` (float), of dropped videos too. The survey keeps
    12 bytes per row.

    Attributes:
        reference (str): Folder of images, searched with its sub-folders, or ``.npy`` file of their
            embeddings, shape (N, D).
        keep (int, optional): Number of videos to keep. Defaults to None: see ``fraction``.
        clusters (int): Number of clusters, at most that of reference images. Defaults to 100.
        seed (int): Seed of the clusters. Defaults to 0.
        embed (Embed, optional): Stage that made the embeddings of the videos; needed for a folder
            of images. Defaults to None.
        fraction (float, optional): Share of the videos to keep instead of a number. Defaults to
            None.
    """

    reference: str
    keep: int | None = None
    clusters: int = 100
    seed: int = 0
    embed: Embed | None = None
    fraction: float | None = None
    name: ClassVar[str] = 'select_by_embedding'
    needs: ClassVar[tuple[str, ...]] = ('path', 'embedding')
    makes: ClassVar[tuple[str, ...]] = ('cluster', 'similarity')
    by_shard: ClassVar[bool] = True

    def __post_init__(self) -> None:
        # Of the rows of each shard: cluster (int32, -1 without an embedding), similarity (float32)
        # and whether it is kept (bool). No field, which would be part of the identity.
        self._choices: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def identity(self) -> dict:
        """See :meth:`.stage.Stage.identity`."""
        settings = dict(
            reference=_content_of(self.reference),
            keep=self.keep,
            fraction=self.fraction,
            clusters=self.clusters,
            seed=self.seed,
        )
        if self._has_images and self.embed:
            settings |= self.embed.identity()
            del settings['frames']
        return settings

    def check_settings(self) -> None:
        """Check the settings, and that the reference can be read and embedded."""
        _import_kmeans()
        if (self.keep is None) == (self.fraction is None):
            raise ValueError(
                'give either the number of videos to keep (--keep) or their share (--fraction)'
            )
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise ValueError(f'--fraction {self.fraction}: give a share within (0, 1]')
        if not 0 <= self.seed < 2**32:
            raise ValueError(f'--seed {self.seed}: give 0 to {2**32 - 1}')
        if not self._has_images:
            _read_embeddings(self.reference)
        elif self.embed is None:
            raise ValueError(
                f'the images of {self.reference} need the backbone that embedded the videos '
                '(--backbone)'
            )
        else:
            find_images(self.reference)
            self.embed.check_settings()

    def survey(self, shards: Sequence[Shard], workers: int) -> None:
        """Compare all videos with the reference and choose."""
        if self._has_images:
            reference = self.embed.embed_images(self.reference, threads=workers)
        else:
            reference = unit_length(_read_embeddings(self.reference))
        centres = cluster_centres(reference, self.clusters, self.seed)
        clusters, similarities, ends, count = [], [], [], 0
        for shard in shards:
            for embeddings, there in self._embeddings(shard, reference.shape[1]):
                cluster, similarity = compare(embeddings, centres, reference)
                clusters.append(np.where(there, cluster, -1).astype(np.int32))
                similarities.append(similarity.astype(np.float32))
                count += len(there)
            ends.append(count)
        cluster = np.concatenate([np.empty(0, np.int32), *clusters])
        similarity = np.concatenate([np.empty(0, np.float32), *similarities])
        keep = self.keep
        if keep is None:
            keep = round(self.fraction * np.count_nonzero(cluster >= 0))
        results = cluster, similarity, choose(cluster, similarity, keep)
        parts = zip(*(np.split(result, ends[:-1]) for result in results), strict=True)
        self._choices = dict(zip((shard.number for shard in shards), parts, strict=True))

    def finish(self, row: Row, prepared: tuple[int, int]) -> Row:
        """Add what was found, and drop the row if it was not chosen."""
        shard, index = prepared
        cluster, similarity, kept = (values[index] for values in self._choices[shard])
        row = {**row, 'cluster': int(cluster), 'similarity': round(float(similarity), 6)}
        return row if kept else {**row, DROPPED: 'not among the nearest'}

    @property
    def device(self) -> str | None:
        """See :class:`.embedding.Embed`."""
        return self.embed and self.embed.device

    @property
    def _has_images(self) -> bool:
        return not self.reference.lower().endswith('.npy')

    def _embeddings(self, shard: Shard, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Embeddings of some rows at a time, zeros for rows without, and which rows have one."""
        rows = read_file(shard.source, ['path', 'embedding', DROPPED])
        for some in split((row for row in rows if row.get(DROPPED) is None), _ROWS):
            embeddings = np.zeros((len(some), width))
            there = np.array([lacking(self, row) is None for row in some])
            for index in np.flatnonzero(there):
                vector = np.asarray(some[index]['embedding'], np.float64)
                if vector.shape != (width,):
                    raise TableError(
                        f'{shard.source}: the embedding of {some[index]["path"]} has '
                        f'{vector.size} numbers, and those of the reference {self.reference} have '
                        f'{width}: embed both with the same backbone'
                    )
                embeddings[index] = vector
            yield unit_length(embeddings), there


def cluster_centres(reference: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Cluster unit vectors, shape (N, D), by k-means: the same with any number of cores.

    Returns:
        np.ndarray: At most N centres as unit vectors, shape (K, D).
    """
    kmeans, limits = _import_kmeans()
    step = -(-len(reference) // _CLUSTERED)
    sample = reference[::step]
    with limits(limits=1):  # threads add up in the order in which they are done
        found = kmeans(min(clusters, len(sample)), random_state=seed, n_init=1).fit(sample)
    return unit_length(found.cluster_centers_)


def compare(
    embeddings: np.ndarray, centres: np.ndarray, reference: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest centre, and the similarity to the most similar reference image.

    Computed in double precision, so that how rows are put together changes nothing that is kept.

    Args:
        embeddings (np.ndarray): Unit vectors, shape (B, D).
        centres (np.ndarray): Unit vectors, shape (K, D).
        reference (np.ndarray): Unit vectors, shape (N, D).

    Returns:
        tuple: Index of the centre, the first of equals, shape (B, ); and the cosine, rounded to 6
        digits, shape (B, ).
    """
    embeddings = embeddings.astype(np.float64)
    cluster = (embeddings @ centres.astype(np.float64).T).round(9).argmax(1)
    similarity, _ = neighbours.nearest(*map(torch.from_numpy, (embeddings, reference)), 1)
    return cluster, similarity[:, 0].numpy().round(6)


def choose(cluster: np.ndarray, similarity: np.ndarray, keep: int) -> np.ndarray:
    """Let clusters take turns, each with its most similar row that is left.

    Args:
        cluster (np.ndarray): Cluster of each row, -1 for rows that cannot be chosen, shape (N, ).
        similarity (np.ndarray): Similarity of each row, shape (N, ).
        keep (int): Number of rows to choose; all if there are not more.

    Returns:
        np.ndarray: True for chosen rows, shape (N, ).
    """
    rows = np.flatnonzero(cluster >= 0)
    # Stable: rows that are equal stay in order.
    order = rows[np.lexsort((-similarity[rows], cluster[rows]))]
    ordered = cluster[order]
    turn = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    kept = np.zeros(len(cluster), bool)
    kept[order[np.lexsort((ordered, turn))[:keep]]] = True
    return kept


def _read_embeddings(file: str) -> np.ndarray:
    try:
        embeddings = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise StageError(f'reference {file} cannot be read as embeddings: {error}') from None
    is_table = isinstance(embeddings, np.ndarray) and embeddings.ndim == 2 and embeddings.size
    if not is_table or embeddings.dtype.kind != 'f' or not np.isfinite(embeddings).all():
        raise StageError(
            f'reference {file} holds no embeddings: an array of finite floating-point numbers of '
            'shape (N, D) is wanted'
        )
    return embeddings.astype(np.float32)


def _content_of(reference: str) -> str:
    if reference.lower().endswith('.npy'):
        return sha256_of(reference)
    files = find_images(reference)
    names = (f'{os.path.relpath(file, reference)} {file.stat().st_size}\n' for file in files)
    return hashlib.sha256(''.join(names).encode(errors='surrogateescape')).hexdigest()


def _import_kmeans() -> tuple:
    try:
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError as error:
        raise ImportError(
            'selection by embedding needs scikit-learn, which is not installed: pip install '
            '"vito_mm[curation]"'
        ) from error
    return KMeans, threadpool_limits
