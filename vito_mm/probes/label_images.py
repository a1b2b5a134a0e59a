"""Label images: written with colours, and drawn over what they label."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from vito_mm.utils.atomic import written_aside

PICTURE_WIDTH = 160
"""Width of an image in the pictures of reports, in pixels."""


def write_label_image(file: Path, labels: np.ndarray, palette: Sequence[int] | None) -> None:
    """Write labels as the values of a PNG, atomically; its folder is made.

    Args:
        file (Path): The file.
        labels (np.ndarray): uint8, shape (H, W).
        palette (Sequence[int], optional): Red, green and blue of each label in turn. None writes
            an image of greys.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    if palette is not None:
        image.putpalette(palette)
    with written_aside(file) as unfinished:
        image.save(unfinished, format='png')


def draw_labels(
    image: np.ndarray, labels: np.ndarray, palette: np.ndarray, blank: int
) -> np.ndarray:
    """Colour an image by its labels.

    Args:
        image (np.ndarray): RGB, uint8, shape (H, W, 3).
        labels (np.ndarray): uint8, shape (H, W).
        palette (np.ndarray): Colours, RGB, uint8, shape (256, 3).
        blank (int): Label that is not drawn.

    Returns:
        np.ndarray: RGB, uint8, shape (H, W, 3).
    """
    return np.where(labels[..., None] == blank, image, image // 3 + palette[labels] // 3 * 2)


def shrunk(image: np.ndarray) -> np.ndarray:
    """Resize an image to the width of reports."""
    size = PICTURE_WIDTH, round(PICTURE_WIDTH * image.shape[0] / image.shape[1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def sheet(rows: Sequence[Sequence[np.ndarray]]) -> bytes:
    """Put rows of images (RGB, uint8) below each other, as the content of a PNG file."""
    picture = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    return cv2.imencode('.png', picture[..., ::-1])[1].tobytes()
