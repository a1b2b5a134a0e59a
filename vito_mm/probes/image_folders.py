"""Folders of labelled images, one sub-folder per class."""

import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from vito_mm.utils.text import first_few
from vito_mm.videos.names import files_below, is_hidden


class ProbeError(Exception):
    """A probe cannot be made; the message names the file, folder or option and the remedy."""


@dataclass(frozen=True)
class LabelledImages:
    """A folder with one sub-folder of images per class.

    ``classes`` are the names of the sub-folders, sorted; ``files`` the images, class by class;
    ``labels`` the index of the class of each, shape (N, ), int64.
    """

    folder: Path
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: Tensor


def train_and_val(folder: str | os.PathLike) -> tuple[LabelledImages, LabelledImages]:
    """List the images of ``train/<class>/`` and of ``val/<class>/`` in a folder.

    Raises:
        ProbeError: If a part is missing, a class has no image, there are fewer than two classes,
            or the two parts have different ones.
    """
    train, val = (labelled_images(Path(folder) / part) for part in ('train', 'val'))
    for one, other in ((train, val), (val, train)):
        if lacking := sorted(set(one.classes) - set(other.classes)):
            raise ProbeError(
                f'{other.folder} lacks classes of {one.folder}: {first_few(lacking)}. '
                'Both need the same sub-folders'
            )
    if len(train.classes) < 2:
        raise ProbeError(
            f'{train.folder} has one class, {train.classes[0]}: there is nothing to tell apart. '
            'Add a sub-folder of images for each further class'
        )
    return train, val


def labelled_images(folder: str | os.PathLike) -> LabelledImages:
    """List the images of a folder with one sub-folder per class.

    Images may lie in sub-folders of a class; hidden and other files are skipped.

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
    found = [sorted(map(Path, files_below(folder / name, IMG_EXTENSIONS))) for name in classes]
    if empty := [name for name, files in zip(classes, found, strict=True) if not files]:
        raise ProbeError(
            f'{folder} has classes without an image: {first_few(empty)}. Images end in '
            f'{", ".join(IMG_EXTENSIONS)}; add some or remove the sub-folder'
        )
    counts = torch.tensor([len(files) for files in found])
    labels = torch.arange(len(classes)).repeat_interleave(counts)
    return LabelledImages(folder, tuple(classes), tuple(chain(*found)), labels)
