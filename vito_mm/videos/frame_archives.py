"""Videos that are kept as images: a folder or a tar of frames, and the single image."""

import os
import tarfile

import cv2
import numpy as np

from .backends.conversion import converted
from .backends.request import Request, frames_on_screen
from .errors import VideoReadError

IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
"""File name endings taken for images, in any case."""

_DEFAULT_FPS = 25.0


def is_frame_archive(path: str) -> bool:
    """Whether a path is a video kept as images.

    Args:
        path (str): A path that exists.

    Returns:
        bool: True for a folder and for a name that ends in ``.tar``.
    """
    return path.lower().endswith('.tar') or os.path.isdir(path)


def read_frame_archive(request: Request, fps: float | None) -> tuple[list[np.ndarray], np.ndarray]:
    """Read frames at given times from a folder or an uncompressed tar of images.

    Args:
        request (Request): What is wanted.
        fps (float, optional): Frames per second. None means 25.

    Returns:
        tuple: Frames and the times at which they begin, see
        :func:`vito_mm.videos.decode_frames`.

    Raises:
        VideoReadError: If there is no image, or one that is wanted cannot be read.
    """
    interval = 1 / (fps or _DEFAULT_FPS)
    reader = _FolderOfImages if os.path.isdir(request.path) else _TarOfImages
    try:
        with reader(request.path) as images:
            if not len(images):
                endings = ', '.join(IMAGE_EXTENSIONS)
                raise VideoReadError(request.path, f'holds no images ({endings})')
            times = request.times_within(len(images) * interval)
            shown_at = np.arange(len(images)) * interval
            ordered, position = frames_on_screen(times, shown_at)
            frames = []
            for index in ordered:
                request.check_deadline()
                frames.append(_decode_image(request, images.read(index), images.names[index]))
    except (OSError, tarfile.TarError) as error:
        raise VideoReadError(request.path, str(error)) from None
    return [frames[i] for i in position], shown_at[ordered][position]


class _FolderOfImages:
    """Images of one folder by name; folders within are other videos."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.names = sorted(
            name for name in os.listdir(path) if name.lower().endswith(IMAGE_EXTENSIONS)
        )

    def __enter__(self) -> '_FolderOfImages':
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        with open(os.path.join(self.path, self.names[index]), 'rb') as file:
            return file.read()


class _TarOfImages:
    """Members of a tar by name; only the headers and the wanted members are read."""

    def __init__(self, path: str) -> None:
        self.file = tarfile.open(path, 'r:')  # noqa: SIM115
        self.members = sorted(
            (
                member
                for member in self.file
                if member.isreg() and member.name.lower().endswith(IMAGE_EXTENSIONS)
            ),
            key=lambda member: member.name,
        )
        self.names = [member.name for member in self.members]

    def __enter__(self) -> '_TarOfImages':
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __len__(self) -> int:
        return len(self.members)

    def read(self, index: int) -> bytes:
        return self.file.extractfile(self.members[index]).read()


def read_image(request: Request) -> tuple[list[np.ndarray], np.ndarray]:
    """Read an image as a video of one frame.

    Args:
        request (Request): What is wanted; its duration is 0.

    Returns:
        tuple: The image once for each time, and zeros.

    Raises:
        VideoReadError: If it cannot be decoded.
    """
    n = len(request.times_within(0.0))
    with open(request.path, 'rb') as file:
        image = _decode_image(request, file.read())
    return [image] * n, np.zeros(n)


def _decode_image(request: Request, data: bytes, name: str = '') -> np.ndarray:
    if not data:
        raise VideoReadError(request.path, f'{name} is empty (0 bytes)'.strip())
    what = f'OpenCV cannot decode {f"the image {name}" if name else "this image"}'
    # Not cv2.imread, which reads no path that is not ASCII on some systems and prints its warnings.
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # e.g. a header that claims more pixels than OpenCV allows
        raise VideoReadError(request.path, f'{what}: {error.err}') from None
    if image is None:
        raise VideoReadError(request.path, what)
    return converted(image, request, 'bgr')
