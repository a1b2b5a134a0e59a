"""Frozen features of labelled images."""

import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .encoder import Encoder
from .frames import ImageFiles, collect
from .image_folders import ProbeError, images_by_class
from .inputs import Preprocessing
from .labelled_images import labelled_frames
from .linear_classifier import top_accuracy


def labelled_features(
    encoder: Encoder,
    data: str | os.PathLike,
    image_size: int = 224,
    batch_size: int = 128,
    workers: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute pooled features of labelled images, to learn from and to classify.

    Args:
        encoder (Encoder): The network.
        data: See :func:`.labelled_images.labelled_frames`.
        image_size (int): Side in pixels; the shorter side is resized to it and the centre is taken.
            Defaults to 224.
        batch_size (int): Images at a time. Defaults to 128.
        workers (int): Processes that read images. Defaults to 0, this one.

    Returns:
        tuple[Tensor, Tensor, Tensor, Tensor]: Features (N, C) and labels (N, ) of ``train``, then
        of ``val``, on the device of the encoder.

    Raises:
        ProbeError: If there are no such data or an image cannot be read.
    """
    images = labelled_frames(data, image_size)
    if isinstance(encoder.preprocess, Preprocessing):
        # Accuracies stay those of earlier releases, where a rounding can decide between neighbours.
        encoder = replace(encoder, preprocess=replace(encoder.preprocess, unit_range=True))
    return (
        _features(encoder, images.train, batch_size, workers),
        images.train_labels.to(encoder.device),
        _features(encoder, images.val, batch_size, workers),
        images.val_labels.to(encoder.device),
    )


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
    resize = round(encoder.view.resize * image_size / encoder.view.crop)
    images.view = replace(encoder.view, resize=resize, crop=image_size, bicubic=True)
    logits = _features(encoder, images, batch_size, workers)
    if logits.shape[1] != len(by_class):
        raise ProbeError(
            f'the classifier has {logits.shape[1]} classes and {Path(data, "val")} has '
            f'{len(by_class)} sub-folders: take the data that the classifier is for, or train one '
            'on these (linear)'
        )
    labels = torch.tensor([label for _, label in files], device=logits.device)
    top5 = top_accuracy(logits, labels, 5) if len(by_class) > 5 else None
    return top_accuracy(logits, labels, 1), top5


def _features(encoder: Encoder, images: Dataset, batch_size: int, workers: int) -> Tensor:
    features = torch.empty(0)

    def keep(indices: list[int], frames: Tensor) -> Tensor:
        nonlocal features
        found = encoder(frames[:, 0], batch_size=batch_size).cpu()
        if not len(features):
            # In its final size at once: joining batches would need the memory twice.
            features = torch.empty(len(images), found.shape[1])
        features[indices] = found
        return found[:, :0]

    skipped = collect(images, keep, batch_size, workers).skipped
    if skipped:
        raise ProbeError(f'{skipped[0].path}: {skipped[0].reason}. Repair or remove the file')
    return features.to(encoder.device)
