"""Embeddings of videos and images."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from vito_mm.probes.encoder import Encoder, choose_device
from vito_mm.probes.sources import find_source
from vito_mm.videos import frames
from vito_mm.videos.errors import VideoReadError
from vito_mm.videos.images import IMAGE_EXTENSIONS
from vito_mm.videos.names import files_below

from .networks import backbone_view, is_checkpoint, open_network, sha256_of, width_of
from .stage import Stage, StageError
from .tables import Row, split


@dataclass
class Embed(Stage):
    """Adds ``embedding`` (list[float]) of unit length: the mean of unit vectors of some frames.

    The vector of a frame is what the network gives before its classifier, averaged over positions.
    Frames lie in the middle of equal parts of the video. They are scaled to a short side of 8/7 of
    ``size`` and the square in the middle is taken.

    Attributes:
        backbone (str): See :func:`.networks.open_network`, as for what follows.
        checkpoint (str, optional): File with the weights. Defaults to None, which is right where
            ``backbone`` is a checkpoint.
        which (str): ``'online'`` or ``'target'``. Defaults to 'online'.
        frames (int): Number of frames. Defaults to 8.
        size (int): Side in pixels of what the network gets. Defaults to 224.
        batch_size (int): Frames at a time. Defaults to 100.
        device (str, optional): PyTorch's name. Defaults to None, a GPU where there is one.
    """

    backbone: str
    checkpoint: str | None = None
    which: str = 'online'
    frames: int = 8
    size: int = 224
    batch_size: int = 100
    device: str | None = None
    name: ClassVar[str] = 'embed'
    makes: ClassVar[tuple[str, ...]] = ('embedding',)

    def identity(self) -> dict:
        """See :meth:`.stage.Stage.identity`."""
        is_file = is_checkpoint(self.backbone)
        file = self.backbone if is_file else self.checkpoint
        return dict(
            backbone='checkpoint' if is_file else find_source(self.backbone).identity,
            checkpoint=sha256_of(file) if file else None,
            which=self.which,
            size=self.size,
            frames=self.frames,
        )

    def check_settings(self) -> None:
        """Open the network on the CPU and try it."""
        width_of(self._network('cpu'))

    def prepare(self, row: Row) -> np.ndarray:
        """Decode some frames. Uses no network."""
        return frames.spread(row, self.frames, backbone_view(self.size), None).frames

    def finish(self, row: Row, prepared: np.ndarray) -> Row:
        """Embed the frames."""
        mean = unit_length(self._vectors(prepared).mean(0))
        return {**row, 'embedding': [round(value, 5) for value in mean.tolist()]}

    def embed_images(self, folder: str | os.PathLike, threads: int = 1) -> np.ndarray:
        """Embed the images of a folder and its sub-folders, read in some threads, as frames.

        Returns:
            np.ndarray: Unit vectors in the order of the paths, float32, shape (N, D).

        Raises:
            StageError: If there is no image, or one cannot be read.
        """
        view = backbone_view(self.size)

        def read(file: Path) -> np.ndarray:
            return frames.spread(dict(path=file), 1, view, None).frames[0]

        parts = []
        with ThreadPoolExecutor(threads) as pool:
            # Not all at once, which would keep them in memory.
            for some in split(find_images(folder), self.batch_size):
                try:
                    parts.append(self._vectors(np.stack(list(pool.map(read, some)))))
                except VideoReadError as error:
                    raise StageError(
                        f'reference image {error.path} cannot be read ({error.reason}): repair or '
                        'remove it'
                    ) from None
        return np.concatenate(parts)

    def _network(self, device: str) -> Encoder:
        return open_network(self.backbone, self.checkpoint, device, self.size, self.which)

    def _vectors(self, images: np.ndarray) -> np.ndarray:
        encoder = self._network(choose_device(self.device))
        return unit_length(encoder(images, batch_size=self.batch_size).cpu().numpy())


def find_images(folder: str | os.PathLike) -> list[Path]:
    """List the images of a folder and its sub-folders, sorted; StageError if there is none."""
    found = files_below(folder, IMAGE_EXTENSIONS) if os.path.isdir(folder) else ()
    files = sorted(map(Path, found))
    if not files:
        raise StageError(f'there is no image ({", ".join(IMAGE_EXTENSIONS)}) in {folder}')
    return files


def unit_length(vectors: np.ndarray | Sequence) -> np.ndarray:
    """Scale vectors of shape (..., D) to length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1).astype(lengths.dtype)
