"""Still images: their recognition, and their pixels, the same for training and probes.

Images are shown upright, as their EXIF orientation says.
"""

import io
import os
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .backends.request import Request
from .errors import VideoReadError
from .file_checks import MAX_PIXELS, TOO_LARGE, check_file, check_pixels

IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
"""File name endings taken for images where files are searched, in any case."""

MAX_BYTES = 2**30
"""Larger files are no images of at most ``MAX_PIXELS`` pixels."""

# Of Pillow's formats, those that hold an image and nothing else (EPS starts Ghostscript).
_FORMATS = ('JPEG', 'PNG', 'BMP', 'WEBP', 'TIFF', 'PPM', 'GIF')
_ANIMATED = ('GIF', 'PNG', 'WEBP')


def looks_like_image(head: bytes) -> bool:
    """Recognise JPEG, PNG, BMP, WebP and TIFF by the first bytes of a file, at least 12.

    Raw MJPEG looks like JPEG, and animated PNG like PNG, see :func:`is_still`.
    """
    return (
        head.startswith((b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'II*\0', b'MM\0*'))
        or (head[:4] == b'RIFF' and head[8:12] == b'WEBP')
        or (head[:2] == b'BM' and head[6:10] == bytes(4))
    )


def is_still(data: bytes) -> bool:
    """False for animated PNG and raw MJPEG, which look like images and which FFmpeg reads."""
    if data.startswith(b'\x89PNG'):
        return not 0 < data.find(b'acTL') < data.find(b'IDAT')
    if not data.startswith(b'\xff\xd8'):  # TIFF and BMP may hold JPEG's marks
        return True
    # Previews follow the image in MPO, which says so ahead of it.
    second = data.find(b'\xff\xd9\xff\xd8')
    return second < 0 or b'MPF\0' in data[:second]


def open_image(
    path: str, file: BinaryIO, name: str = '', max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read the header of a still image with Pillow; its pixels are not read yet.

    Args:
        path (str): File to name in errors.
        file (BinaryIO): Open image.
        name (str): Name of the image in errors, if ``path`` has several. Defaults to ''.
        max_pixels (int): Largest number of pixels. Defaults to MAX_PIXELS.

    Raises:
        VideoReadError: If it is no image, animated or too large.
    """
    try:
        image = Image.open(file, formats=_FORMATS)
        is_animated = image.format in _ANIMATED and image.is_animated
    except UnidentifiedImageError:
        raise _error(path, 'not readable as an image', name) from None
    except Image.DecompressionBombError as error:
        raise _error(path, TOO_LARGE, name, error) from None
    except Exception as error:  # Pillow raises anything on damaged files
        raise _error(path, 'not readable as an image', name, error) from None
    if is_animated:
        raise _error(path, 'an animated image, to be converted to a video', name, image.format)
    check_pixels(path, *image.size, max_pixels)
    return image


def decode_image(request: Request, data: bytes, name: str = '') -> np.ndarray:
    """Decode an image file for training: uint8, in the size and channel order of a request."""
    open_image(request.path, io.BytesIO(data), name)
    # Twice as fast as Pillow.
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise _error(request.path, 'OpenCV cannot decode the image', name, error.err) from None
    if image is None:
        raise _error(request.path, 'OpenCV cannot decode the image', name)
    return request.converted(image, 'bgr')


def read_rgb(path: str | os.PathLike) -> Image.Image:
    """Read a still image for probes, RGB and upright; a VideoReadError if it is none."""
    path = os.fspath(path)
    check_file(path)
    try:
        with open(path, 'rb') as file, open_image(path, file) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith('I;16'):  # of which Pillow takes the lower byte
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            return upright.convert('RGB')
    except VideoReadError:
        raise
    except Exception as error:  # see above
        raise _error(path, 'not readable as an image', '', error) from None


def read_image_file(path: str, file: BinaryIO, name: str = '') -> bytes:
    """Read all of an image file, unless it has more than ``MAX_BYTES``."""
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _error(path, 'larger than any image', name)
    return data


def _error(path: str, reason: str, *details: object) -> VideoReadError:
    """Reasons are counted by what comes before the colon."""
    shown = ', '.join(str(detail) for detail in details if str(detail))
    return VideoReadError(path, ' '.join((f'{reason}: {shown}' if shown else reason).split()))
