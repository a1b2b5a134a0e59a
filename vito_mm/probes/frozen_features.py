"""Features of a frozen ResNet, and the folders of labelled images that are probed with them."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from vito_mm.utils.quiet import quiet_logger
from vito_mm.videos.errors import VideoReadError
from vito_mm.videos.images import read_rgb
from vito_mm.videos.names import files_below, is_hidden


class ProbeError(Exception):
    """A probe cannot be made; the message names the file, folder or option and what to do."""


@dataclass(frozen=True)
class LabelledImages:
    """A folder with one sub-folder of images a class.

    Attributes:
        folder (Path): The folder.
        classes (tuple[str, ...]): Names of the sub-folders, sorted.
        files (tuple[Path, ...]): Images, class by class.
        labels (Tensor): Index of the class of each image, shape (N, ), int64.
    """

    folder: Path
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: Tensor


@dataclass(frozen=True)
class FrozenFeatures:
    """What a frozen network makes of two folders of images.

    Attributes:
        train (Tensor): Features of the images to learn from, shape (N, C), float32, on the CPU.
        train_labels (Tensor): Index of the class of each, shape (N, ), int64.
        val (Tensor): Features of the images to be told, shape (M, C).
        val_labels (Tensor): Shape (M, ).
        classes (tuple[str, ...]): Names of the classes.
    """

    train: Tensor
    train_labels: Tensor
    val: Tensor
    val_labels: Tensor
    classes: tuple[str, ...]

    def on_device(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four tensors in the order above, on a GPU where there is one."""
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        parts = (self.train, self.train_labels, self.val, self.val_labels)
        return tuple(part.to(device) for part in parts)


def checkpoint_features(
    checkpoint: str | os.PathLike | None,
    folder: str | os.PathLike,
    depth: int = 50,
    which: str = 'online',
    image_size: int = 224,
    batch_size: int = 128,
    workers: int = 0,
    seed: int = 0,
    base_channels: int = 64,
) -> FrozenFeatures:
    """Average-pooled features that a ResNet checkpoint gives, without any training.

    Runs on a GPU where there is one. What is in memory beside the network is one batch and the
    features themselves.

    Args:
        checkpoint: Checkpoint file, see :func:`vito_mm.transfer.load_backbone`, or None for random
            weights.
        folder: Folder with ``train/<class>/`` and ``val/<class>/`` images.
        depth (int): Depth of the ResNet. Defaults to 50.
        which (str): ``'online'`` or ``'target'`` network. Defaults to 'online'.
        image_size (int): Side of the images in pixels. Defaults to 224.
        batch_size (int): Images at a time. Defaults to 128.
        workers (int): Processes that read images. Defaults to 0, this one.
        seed (int): Seed of random weights. Defaults to 0.
        base_channels (int): Width of the stem and of the first stage. Defaults to 64.

    Returns:
        FrozenFeatures: Features and labels.

    Raises:
        CheckpointError: If the checkpoint does not cover the ResNet.
        ProbeError: If the folder is not as above or an image cannot be read.
    """
    train, val = train_and_val(folder)
    backbone = frozen_resnet(checkpoint, depth, which, seed, base_channels)
    train_features, val_features = (
        pooled_features(backbone, images, image_size, batch_size, workers)
        for images in (train, val)
    )
    return FrozenFeatures(train_features, train.labels, val_features, val.labels, train.classes)


def train_and_val(folder: str | os.PathLike) -> tuple[LabelledImages, LabelledImages]:
    """List the images that a classifier learns from and those that it is tested on.

    Args:
        folder: Folder with ``train/<class>/`` and ``val/<class>/`` images.

    Returns:
        tuple[LabelledImages, LabelledImages]: Images of ``train`` and of ``val``, with the same
        classes.

    Raises:
        ProbeError: If a part is missing, a class has no image, there are fewer than two classes,
            or the two parts have different ones.
    """
    train, val = (labelled_images(Path(folder) / part) for part in ('train', 'val'))
    for one, other in ((train, val), (val, train)):
        if lacking := sorted(set(one.classes) - set(other.classes)):
            raise ProbeError(
                f'{other.folder} lacks classes of {one.folder}: {_some(lacking)}. '
                'Both need the same sub-folders'
            )
    if len(train.classes) < 2:
        raise ProbeError(
            f'{train.folder} has one class, {train.classes[0]}: there is nothing to tell apart. '
            'Add a sub-folder of images for each further class'
        )
    return train, val


def labelled_images(folder: str | os.PathLike) -> LabelledImages:
    """List the images of a folder with one sub-folder a class.

    Args:
        folder: The folder. Images may lie in sub-folders of a class; other files are left out.

    Returns:
        LabelledImages: All images, sorted.

    Raises:
        ProbeError: If the folder is missing, has no sub-folder, or one of them has no image.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS

    folder = Path(folder)
    if not folder.is_dir():
        raise ProbeError(
            f'there is no folder {folder}. The data of a probe are a folder with '
            'train/<class>/*.jpg and val/<class>/*.jpg'
        )
    classes = sorted(
        entry.name for entry in os.scandir(folder) if entry.is_dir() and not is_hidden(entry.name)
    )
    if not classes:
        raise ProbeError(f'{folder} has no sub-folders: put the images of each class into its own')
    found = [
        sorted(map(Path, files_below(folder / name_of_class, IMG_EXTENSIONS)))
        for name_of_class in classes
    ]
    if empty := [name for name, files in zip(classes, found, strict=True) if not files]:
        raise ProbeError(
            f'{folder} has classes without an image: {_some(empty)}. Images end in '
            f'{", ".join(IMG_EXTENSIONS)}; add some or remove the sub-folder'
        )
    counts = torch.tensor([len(files) for files in found])
    labels = torch.arange(len(classes)).repeat_interleave(counts)
    return LabelledImages(folder, tuple(classes), tuple(chain(*found)), labels)


def frozen_resnet(
    checkpoint: str | os.PathLike | None,
    depth: int = 50,
    which: str = 'online',
    seed: int = 0,
    base_channels: int = 64,
) -> nn.Module:
    """Build a ResNet for evaluation, on a GPU where there is one.

    Args:
        checkpoint: Checkpoint file, see :func:`vito_mm.transfer.load_backbone`, or None for random
            weights.
        depth (int): Depth of the ResNet. Defaults to 50.
        which (str): ``'online'`` or ``'target'`` network. Defaults to 'online'.
        seed (int): Seed of random weights; PyTorch's global generator is left alone. Defaults to 0.
        base_channels (int): Width of the stem and of the first stage. Defaults to 64.

    Returns:
        nn.Module: mmpretrain's ResNet in evaluation mode, channels last, which wants no gradients.

    Raises:
        CheckpointError: If the checkpoint does not cover the ResNet.
    """
    from vito_mm.models.backbones import VITOResNet

    with torch.random.fork_rng(devices=[]), quiet_logger('WARNING'):
        torch.manual_seed(seed)
        backbone = VITOResNet(
            depth=depth,
            stem_channels=base_channels,
            base_channels=base_channels,
            checkpoint=None if checkpoint is None else os.fspath(checkpoint),
            which=which,
            library='mmpretrain',
        )
        backbone.init_weights()
    backbone.eval()  # not chained: train() of OpenMMLab's backbones returns None
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return backbone.requires_grad_(False).to(device, memory_format=torch.channels_last)


def pooled_features(
    backbone: nn.Module,
    images: LabelledImages,
    image_size: int = 224,
    batch_size: int = 128,
    workers: int = 0,
) -> Tensor:
    """Average-pooled features of images.

    Args:
        backbone (nn.Module): Network whose last feature map, shape (N, C, H, W), is pooled. It is
            put in evaluation mode.
        images (LabelledImages): What to read.
        image_size (int): Side in pixels; the shorter side is resized to it and the centre is taken.
            Defaults to 224.
        batch_size (int): Images at a time. Defaults to 128.
        workers (int): Processes that read images. Defaults to 0, this one.

    Returns:
        Tensor: Shape (N, C), float32, on the CPU, in the order of ``images.files``.

    Raises:
        ProbeError: If an image cannot be read.
    """
    device = next(backbone.parameters()).device
    loader = torch.utils.data.DataLoader(
        _Views(images.files, image_size),
        batch_size,
        num_workers=workers,
        pin_memory=device.type == 'cuda',
    )
    features, start = torch.empty(0), 0
    backbone.eval()
    for views, errors in loader:
        if failed := [error for error in errors if error]:
            raise ProbeError(f'{failed[0]}. Repair or remove the file')
        with torch.inference_mode():
            maps = backbone(views.to(device, memory_format=torch.channels_last, non_blocking=True))
            last = maps[-1] if isinstance(maps, (tuple, list)) else maps
            pooled = last.mean(dim=(2, 3)).float()
        if start == 0:
            # In its final size at once: joining batches would need the memory twice.
            features = torch.empty(len(images.files), pooled.shape[1])
        features[start : start + len(pooled)] = pooled
        start += len(pooled)
    return features


class _Views(torch.utils.data.Dataset):
    """Images as the network gets them, each with what kept it from being read, '' if nothing.

    An exception that a worker raises reaches the user as a traceback of the worker's.
    """

    def __init__(self, files: Sequence[Path], image_size: int) -> None:
        self.files = files
        self.image_size = image_size
        self.transform = _evaluation_view(image_size)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        try:
            return self.transform(read_rgb(self.files[index])), ''
        except VideoReadError as error:
            return torch.zeros(3, self.image_size, self.image_size), f'{error.path}: {error.reason}'


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


def _some(names: Sequence[str], shown: int = 5) -> str:
    more = f', ... ({len(names) - shown} more)' if len(names) > shown else ''
    return ', '.join(names[:shown]) + more
