"""What an encoder takes: images of many kinds, and the normalisation of their pixels."""

import os
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vito_mm.videos.images import read_rgb

Picture = str | os.PathLike | Image.Image | np.ndarray | Tensor
"""An image: a file, a Pillow image, or RGB, uint8, shape (H, W, 3); of a tensor (3, H, W), too."""


@dataclass(frozen=True)
class Preprocessing:
    """Normalisation of pixels.

    ``mean`` and ``std`` are of pixels in [0, 255], in the order of the network's channels.
    ``unit_range`` divides pixels by 255 first, as torchvision does: other roundings.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str = 'rgb'
    unit_range: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise RGB images, uint8, shape (N, 3, H, W)."""
        scale = 255 if self.unit_range else 1
        mean, std = (
            torch.tensor([value / scale for value in values], device=images.device).view(-1, 1, 1)
            for values in (self.mean, self.std)
        )
        images = images.flip(1) if self.channel_order == 'bgr' else images
        return (images.float() / scale - mean) / std


def rgb_tensor(images: np.ndarray | Tensor, ndim: int) -> Tensor:
    """Check an image (of 3 dimensions) or a batch (of 4), and put its channels last."""
    if isinstance(images, np.ndarray):
        if images.dtype == np.uint8:  # others torch may not know
            images = torch.from_numpy(np.ascontiguousarray(images))
    elif images.ndim == ndim and images.shape[-1] != 3 and images.shape[-3] == 3:
        images = images.movedim(-3, -1)
    if images.dtype != torch.uint8:
        raise ValueError(
            f'images of {images.dtype} are given: give uint8 from 0 to 255, which are normalised '
            'here, or input of the network to Encoder.compute'
        )
    if images.ndim != ndim or images.shape[-1] != 3:
        raise ValueError(
            f'an image of shape {tuple(images.shape)} is given: images are RGB, shape (H, W, 3), '
            'and arrays of them (N, H, W, 3)'
        )
    return images


def opened_picture(image: Picture) -> np.ndarray | Image.Image:
    """One image in the form that views cut."""
    if isinstance(image, (str, os.PathLike)):
        return read_rgb(image)
    if isinstance(image, Image.Image):
        return image.convert('RGB')
    return rgb_tensor(image, 3).cpu().numpy()
