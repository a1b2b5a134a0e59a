"""k-nearest-neighbour classification of frozen features."""

import os

import torch
import torch.nn.functional as F
from torch import Tensor

from .frozen_features import checkpoint_features

_ROWS = 1024  # test images whose cosines with all training images are in memory at a time


def knn_top1(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Top-1 accuracy of a weighted nearest-neighbour vote.

    Each of the k nearest training images (by cosine) votes for its class with weight
    exp(cosine / temperature), section 3.4 of https://arxiv.org/abs/1805.01978.

    Args:
        train_features (Tensor): Shape (N, D).
        train_labels (Tensor): Class indices, shape (N, ).
        test_features (Tensor): Shape (M, D).
        test_labels (Tensor): Class indices, shape (M, ).
        k (int): Number of neighbours, at most N are used. Defaults to 20.
        temperature (float): Defaults to 0.07.

    Returns:
        float: Accuracy in percent.
    """
    num_classes = int(torch.cat([train_labels, test_labels]).max()) + 1
    train = F.normalize(train_features, dim=1)
    correct = 0
    for rows, labels in zip(test_features.split(_ROWS), test_labels.split(_ROWS), strict=True):
        cosine, nearest = (F.normalize(rows, dim=1) @ train.T).topk(min(k, len(train)), dim=1)
        votes = cosine.new_zeros(len(rows), num_classes)
        votes.scatter_add_(1, train_labels[nearest], (cosine / temperature).exp())
        correct += int((votes.argmax(dim=1) == labels).sum())
    return 100 * correct / len(test_labels)


def checkpoint_knn(
    checkpoint: str | os.PathLike | None,
    folder: str | os.PathLike,
    depth: int = 50,
    image_size: int = 224,
    k: int = 20,
    seed: int = 0,
    which: str = 'online',
    batch_size: int = 128,
    workers: int = 0,
) -> float:
    """Nearest-neighbour accuracy of a ResNet checkpoint without any training.

    Args:
        checkpoint: Checkpoint file, see :func:`vito_mm.transfer.load_backbone`, or None for random
            weights.
        folder: Folder with ``train/<class>/`` and ``val/<class>/`` images.
        depth (int): Depth of the ResNet. Defaults to 50.
        image_size (int): Side of the images in pixels. Defaults to 224.
        k (int): Number of neighbours. Defaults to 20.
        seed (int): Seed of random weights. Defaults to 0.
        which (str): ``'online'`` or ``'target'`` network. Defaults to 'online'.
        batch_size (int): Images at a time. Defaults to 128.
        workers (int): Processes that read images. Defaults to 0, this one.

    Returns:
        float: Top-1 accuracy in percent.

    Raises:
        CheckpointError: If the checkpoint does not cover the ResNet.
        ProbeError: If the folder has no such images or one cannot be read.
    """
    found = checkpoint_features(
        checkpoint, folder, depth, which, image_size, batch_size, workers, seed
    )
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    parts = (found.train, found.train_labels, found.val, found.val_labels)
    return knn_top1(*(part.to(device) for part in parts), k=k)
