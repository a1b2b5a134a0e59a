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

from .networks import backbone_view, is_checkpoint, open_backbone, sha256_of, width_of
from .probing import dropped_for
from .stage import Stage, StageError
from .tables import DROPPED, Row, split


@dataclass
class Embed(Stage):
    """Adds ``embedding`` (list[float]) of unit length: the mean of unit vectors of some frames.

    The vector of a frame is what the network gives before its classifier, averaged over positions.
    Frames lie in the middle of equal parts of the video. They are scaled to a short side of 8/7 of
    ``size`` and the square in the middle is taken.

    Attributes:
        backbone (str): A checkpoint with a ResNet of VITO or another method, see
            :func:`vito_mm.checkpoint.load_backbone`; or a config of mmpretrain or of pre-training,
            ``torchvision:NAME`` or ``timm:NAME``, see :func:`vito_mm.probes.sources.find_source`.
        checkpoint (str, optional): File with the weights, never downloaded. Defaults to None, which
            is right where ``backbone`` is a checkpoint.
        which (str): ``'online'`` or ``'target'`` network of a checkpoint of pre-training. Defaults
            to 'online'.
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
        """See :meth:`.stage.Stage.identity`: content of files rather than their paths."""
        return network_identity(self.backbone, self.checkpoint, self.which, self.size) | dict(
            frames=self.frames
        )

    def check_settings(self) -> None:
        """Open the network on the CPU and try it.

        Raises:
            ValueError: If a setting is wrong or there is no such network.
            StageError: If a checkpoint is missing or does not fit.
            ImportError: If a library is not installed.
        """
        sizes = ('frames', self.frames), ('size', self.size), ('batch-size', self.batch_size)
        for option, value in sizes:
            if value < 1:
                raise ValueError(f'--{option} {value}: give 1 or more')
        width_of(self._network('cpu'))

    def survey(self, shards, workers: int) -> None:
        """Check before any video is decoded, see :meth:`check_settings`."""
        self.check_settings()

    def prepare(self, row: Row) -> np.ndarray | VideoReadError:
        """Decode some frames, see :meth:`.stage.Stage.prepare`. Uses no network."""
        try:
            return frames.spread(row, self.frames, backbone_view(self.size), None).frames
        except VideoReadError as error:
            return error

    def finish(self, row: Row, prepared: np.ndarray | VideoReadError) -> Row:
        """Embed the frames, see :meth:`.stage.Stage.finish`."""
        if isinstance(prepared, VideoReadError):
            return {**row, DROPPED: dropped_for(prepared)}
        encoder = self._network(choose_device(self.device))
        features = encoder(prepared, batch_size=self.batch_size).cpu().numpy()
        mean = unit_length(unit_length(features).mean(0))
        return {**row, 'embedding': [round(value, 5) for value in mean.tolist()]}

    def _network(self, device: str) -> Encoder:
        return open_backbone(self.backbone, self.checkpoint, self.which, self.size, device)


def embed_images(
    folder: str | os.PathLike,
    backbone: str,
    checkpoint: str | None = None,
    which: str = 'online',
    size: int = 224,
    batch_size: int = 100,
    device: str | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Embed the images of a folder and its sub-folders as :class:`Embed` embeds frames.

    Args:
        folder (str | os.PathLike): The folder.
        backbone (str): See :class:`Embed`, as the others.
        threads (int): Threads that read images. Defaults to 1.

    Returns:
        np.ndarray: Unit vectors in the order of the paths, float32, shape (N, D).

    Raises:
        StageError: If there is no image, one cannot be read, or the checkpoint does not fit.
        ValueError: If there is no such network.
        ImportError: If a library is not installed.
    """
    files = find_images(folder)
    encoder = open_backbone(backbone, checkpoint, which, size, choose_device(device))

    def read(file: Path) -> np.ndarray:
        return frames.spread(dict(path=file), 1, encoder.view, None).frames[0]

    parts = []
    with ThreadPoolExecutor(threads) as pool:
        for some in split(files, batch_size):  # not all at once, which would keep them in memory
            try:
                views = np.stack(list(pool.map(read, some)))
            except VideoReadError as error:
                raise StageError(
                    f'reference image {error.path} cannot be read ({error.reason}): repair or '
                    'remove it'
                ) from None
            parts.append(unit_length(encoder(views, batch_size=batch_size).cpu().numpy()))
    return np.concatenate(parts)


def find_images(folder: str | os.PathLike) -> list[Path]:
    """List the images of a folder and its sub-folders, sorted; StageError if there is none."""
    files = sorted(map(Path, files_below(folder, IMAGE_EXTENSIONS)))
    if not files:
        raise StageError(f'there is no image ({", ".join(IMAGE_EXTENSIONS)}) in {folder}')
    return files


def network_identity(
    backbone: str, checkpoint: str | None, which: str, size: int
) -> dict[str, object]:
    """All that decides the embedding of an image, as JSON, with hashes in the place of files.

    Args:
        backbone (str): See :class:`Embed`, as the others.
    """
    is_file = is_checkpoint(backbone)
    file = backbone if is_file else checkpoint
    return dict(
        backbone='checkpoint' if is_file else find_source(backbone).identity,
        checkpoint=sha256_of(file) if file else None,
        which=which,
        size=size,
    )


def unit_length(vectors: np.ndarray | Sequence) -> np.ndarray:
    """Scale vectors of shape (..., D) to length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1).astype(lengths.dtype)
