"""Folders of labelled images for tests of the probes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_classes(folder: Path, classes: Sequence[str], images: int = 6) -> Path:
    """Write ``train/<class>/`` and ``val/<class>/`` of images that differ in brightness.

    Args:
        folder: Where to write.
        classes: Names of the classes, dark ones first.
        images: Images of each class in each part.

    Returns:
        Path: The folder.
    """
    rng = np.random.default_rng(0)
    for part in ('train', 'val'):
        for name, level in zip(classes, np.linspace(40, 200, len(classes)), strict=True):
            (folder / part / name).mkdir(parents=True)
            for index in range(images):
                image = level + rng.integers(-20, 20, (40, 50, 3))
                Image.fromarray(image.astype(np.uint8)).save(folder / part / name / f'{index}.png')
    return folder
