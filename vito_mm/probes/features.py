"""Frozen features of labelled images."""

import json
import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from vito_mm.utils.atomic import write_json
from vito_mm.utils.progress import Progress
from vito_mm.videos.frames import View

from .encoder import Encoder
from .frames import ImageFiles, collect
from .image_folders import ProbeError, images_by_class
from .inputs import Preprocessing
from .labelled_images import labelled_frames
from .linear_classifier import top_accuracy

_SYNC_EVERY = 50
"""Batches after which features in a file are known to have reached the disk."""


def labelled_features(
    encoder: Encoder,
    data: str | os.PathLike,
    image_size: int = 224,
    batch_size: int = 128,
    workers: int = 0,
    folder: Path | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute pooled features of labelled images, to learn from and to classify.

    Args:
        encoder (Encoder): The network.
        data: See :func:`.labelled_images.labelled_frames`.
        image_size (int): Side in pixels; the shorter side is resized to it and the centre is taken.
            Defaults to 224.
        batch_size (int): Images at a time. Defaults to 128.
        workers (int): Processes that read images. Defaults to 0, this one.
        folder (Path, optional): Existing folder for the features, which are then on the CPU, in
            files that are mapped into memory and need none of it to speak of: float32, row by row,
            in ``train.bin`` and ``val.bin``. A later call with the same arguments goes on from
            there. Defaults to None.

    Returns:
        tuple[Tensor, Tensor, Tensor, Tensor]: Features (N, C) and labels (N, ) of ``train``, then
        of ``val``, on the device of the encoder.

    Raises:
        ProbeError: If there are no such data or an image cannot be read.
    """
    images = labelled_frames(data, image_size)
    encoder = exactly_normalised(encoder)
    place = encoder.device if folder is None else torch.device('cpu')
    files = [folder and folder / f'{part}.bin' for part in ('train', 'val')]
    return (
        _features(encoder, images.train, batch_size, workers, files[0]).to(place),
        images.train_labels.to(place),
        _features(encoder, images.val, batch_size, workers, files[1]).to(place),
        images.val_labels.to(place),
    )


def exactly_normalised(encoder: Encoder) -> Encoder:
    """Let an encoder round as torchvision's transforms do.

    Accuracies stay those of earlier releases, where a rounding can decide between neighbours.
    """
    if not isinstance(encoder.preprocess, Preprocessing):
        return encoder
    return replace(encoder, preprocess=replace(encoder.preprocess, unit_range=True))


def classifier_accuracy(
    encoder: Encoder,
    data: str | os.PathLike,
    image_size: int = 224,
    batch_size: int = 128,
    workers: int = 0,
) -> tuple[float, float | None]:
    """Classify labelled images by a network's own classifier, without training.

    Args:
        encoder (Encoder): Network whose outputs are logits.
        data: Folder with ``val/<class>/`` images. The classes in the order of their names are those
            of the classifier in its order: of ImageNet by their WordNet numbers.
        image_size (int): Side in pixels; images are cut as by the encoder's view, in proportion.
            Defaults to 224.
        batch_size (int): Images at a time. Defaults to 128.
        workers (int): Processes that read images. Defaults to 0, this one.

    Returns:
        tuple[float, float | None]: Top-1 and top-5 accuracy in percent; the latter None of five
        classes or less.

    Raises:
        ProbeError: If there are no such data, an image cannot be read, or the classifier has
            another number of classes.
    """
    by_class = images_by_class(Path(data, 'val'))
    files = [(file, label) for label, files in enumerate(by_class.values()) for file in files]
    images = ImageFiles([file for file, _ in files], image_size)
    images.view = classifier_view(encoder, image_size)
    logits = _features(encoder, images, batch_size, workers).to(encoder.device)
    if logits.shape[1] != len(by_class):
        raise ProbeError(
            f'the classifier has {logits.shape[1]} classes and {Path(data, "val")} has '
            f'{len(by_class)} sub-folders: take the data that the classifier is for, or train one '
            'on these (linear)'
        )
    labels = torch.tensor([label for _, label in files], device=logits.device)
    top5 = top_accuracy(logits, labels, 5) if len(by_class) > 5 else None
    return top_accuracy(logits, labels, 1), top5


def classifier_view(encoder: Encoder, image_size: int) -> View:
    """The encoder's view, in proportion, for images of a side in pixels."""
    resize = round(encoder.view.resize * image_size / encoder.view.crop)
    return replace(encoder.view, resize=resize, crop=image_size, bicubic=True)


def _features(
    encoder: Encoder, images: Dataset, batch_size: int, workers: int, file: Path | None = None
) -> Tensor:
    features, done, batches = torch.empty(0), 0, 0
    progress = file and file.with_suffix('.json')
    if progress and progress.is_file():
        known = json.loads(progress.read_text())
        features, done = _mapped(file, len(images), known['width']), known['rows']

    def sync() -> None:
        with file.open('rb+') as content:
            os.fsync(content)
        write_json(progress, dict(rows=done, width=features.shape[1]))

    def keep(indices: list[int], frames: Tensor) -> Tensor:
        nonlocal features, done, batches
        found = encoder(frames[:, 0], batch_size=batch_size).cpu()
        if not len(features):
            # In its final size at once: joining batches would need the memory twice.
            shape = len(images), found.shape[1]
            features = torch.empty(shape) if file is None else _mapped(file, *shape)
        features[indices] = found
        if indices == list(range(done, done + len(indices))):  # none before was skipped
            done += len(indices)
        batches += 1
        bar.advance(len(indices))
        if file and batches % _SYNC_EVERY == 0:
            sync()
        return found[:, :0]

    left = Subset(images, range(done, len(images))) if done else images
    with Progress(len(images), 'features', None, 'images') as bar:
        bar.advance(done, skipped=True)
        skipped = collect(left, keep, batch_size, workers).skipped
    if file and len(features):
        sync()
    if skipped:
        raise ProbeError(f'{skipped[0].path}: {skipped[0].reason}. Repair or remove the file')
    return features


def _mapped(file: Path, rows: int, width: int) -> Tensor:
    """The content of a file, which is made if needed, as a tensor that writes to it."""
    return torch.from_file(os.fspath(file), shared=True, size=rows * width).view(rows, width)
