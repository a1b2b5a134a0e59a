"""k-nearest-neighbour classification of frozen features."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from torch import Tensor, nn


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
    train, test = F.normalize(train_features, dim=1), F.normalize(test_features, dim=1)
    cosine, nearest = (test @ train.T).topk(min(k, len(train)), dim=1)
    votes = F.one_hot(train_labels[nearest], num_classes) * (cosine / temperature).exp()[..., None]
    return (votes.sum(dim=1).argmax(dim=1) == test_labels).float().mean().item() * 100


@torch.no_grad()
def image_folder_features(
    backbone: nn.Module, folder: str | os.PathLike, image_size: int = 224, batch_size: int = 128
) -> tuple[Tensor, Tensor]:
    """Average-pooled features of a folder of labelled images.

    Args:
        backbone (nn.Module): Network whose last feature map, shape (N, C, H, W), is pooled. It is
            put in evaluation mode.
        folder: Folder with one sub-folder of images a class.
        image_size (int): Side in pixels; the shorter side is resized to it and the centre is taken.
            Defaults to 224.
        batch_size (int): Images at a time. Defaults to 128.

    Returns:
        tuple[Tensor, Tensor]: Features, shape (N, C), and labels, shape (N, ), on the CPU.

    Raises:
        FileNotFoundError: If the folder has no classes or a class has no image.
    """
    from torchvision.datasets import ImageFolder

    device = next(backbone.parameters()).device
    backbone.eval()
    loader = torch.utils.data.DataLoader(
        ImageFolder(os.fspath(folder), transform=_evaluation_view(image_size)), batch_size
    )
    features, labels = [], []
    for images, targets in loader:
        maps = backbone(images.to(device))
        last = maps[-1] if isinstance(maps, (tuple, list)) else maps
        features.append(last.mean(dim=(2, 3)).float().cpu())
        labels.append(targets)
    return torch.cat(features), torch.cat(labels)


def checkpoint_knn(
    checkpoint: str | os.PathLike | None,
    folder: str | os.PathLike,
    depth: int = 50,
    image_size: int = 224,
    k: int = 20,
    seed: int = 0,
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

    Returns:
        float: Top-1 accuracy in percent.

    Raises:
        CheckpointError: If the checkpoint does not cover the ResNet.
        FileNotFoundError: If the folder has no such images.
    """
    from vito_mm.models.backbones import VITOResNet

    torch.manual_seed(seed)
    with _quiet_initialisation():
        backbone = VITOResNet(
            depth=depth,
            checkpoint=None if checkpoint is None else os.fspath(checkpoint),
            library='mmpretrain',
        )
        backbone.init_weights()
    if torch.cuda.is_available():
        backbone.cuda()
    train, test = (
        image_folder_features(backbone, os.path.join(folder, part), image_size)
        for part in ('train', 'val')
    )
    return knn_top1(*train, *test, k=k)


@contextmanager
def _quiet_initialisation() -> Iterator[None]:
    """MMEngine logs where every single parameter got its values."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        yield
    finally:
        logger.setLevel(level)


def _evaluation_view(image_size: int) -> Callable:
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.Resize(image_size, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(image_size),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
