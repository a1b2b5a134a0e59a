"""Folders of labelled images, one sub-folder per class."""

import os
from pathlib import Path

from vito_mm.utils.text import first_few
from vito_mm.videos.names import files_below, is_hidden


class ProbeError(Exception):
    """A probe cannot be made; the message names the file, folder or option and the remedy."""


def train_and_val(folder: str | os.PathLike) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """List the images of ``train/<class>/`` and of ``val/<class>/`` in a folder, by class.

    Images may lie in sub-folders of a class; hidden and other files are skipped.

    Raises:
        ProbeError: If a part or its sub-folders are missing, a class has no image, there are fewer
            than two classes, or the two parts have different ones.
    """
    parts = {part: images_by_class(part) for part in (Path(folder, 'train'), Path(folder, 'val'))}
    train, val = parts
    for one, other in ((train, val), (val, train)):
        if lacking := sorted(parts[one].keys() - parts[other].keys()):
            raise ProbeError(
                f'{other} lacks classes of {one}: {first_few(lacking)}. Both need the same '
                'sub-folders'
            )
    if len(parts[train]) < 2:
        raise ProbeError(
            f'{train} has one class, {next(iter(parts[train]))}: there is nothing to tell apart. '
            'Add a sub-folder of images for each further class'
        )
    return parts[train], parts[val]


def images_by_class(folder: Path) -> dict[str, list[Path]]:
    """List the images of ``<class>/`` in a folder, by class, see :func:`train_and_val`."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

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
    found = {c: sorted(map(Path, files_below(folder / c, IMG_EXTENSIONS))) for c in classes}
    if empty := [name for name, files in found.items() if not files]:
        raise ProbeError(
            f'{folder} has classes without an image: {first_few(empty)}. Images end in '
            f'{", ".join(IMG_EXTENSIONS)}; add some or remove the sub-folder'
        )
    return found
