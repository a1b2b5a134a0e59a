"""Writing pictures with the same bytes everywhere."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def write_jpeg(file: Path, image: np.ndarray) -> None:
    """Write a JPEG of high quality.

    Args:
        file: File to write.
        image: (H, W, 3) uint8 RGB.

    Raises:
        OSError: If the file cannot be written.
    """
    done, data = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not done:
        raise OSError(f'cannot encode {file}')
    file.write_bytes(data.tobytes())


def write_labels(file: Path, labels: np.ndarray, palette: np.ndarray | None = None) -> None:
    """Write a label image as PNG.

    Args:
        file: File to write.
        labels: (H, W) uint8.
        palette: (256, 3) uint8 colours, for a palette PNG whose pixels are still the ids. Defaults
            to None: a grey PNG.
    """
    image = Image.fromarray(labels)
    if palette is not None:
        image = image.convert('L')
        image.putpalette(palette.astype(np.uint8).tobytes())
    image.save(file)


def voc_palette() -> np.ndarray:
    """Compute VOC's colours: the bits of the id, spread over the three channels.

    Returns:
        numpy.ndarray: (256, 3) uint8.
    """
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return palette
