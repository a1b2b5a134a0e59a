"""BYOL's augmentations after the crop, on the CPU or drawn for the device."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from vito_mm.registry import TRANSFORMS

from .base import Transform

JITTER_ORDERS = tuple(itertools.permutations(('brightness', 'contrast', 'saturation', 'hue')))
"""The orders in which the four colour changes may come."""


class ViewAugmentation(NamedTuple):
    """Augmentation of one view. Colours are those of an image with values within [0, 1].

    Args:
        flip (bool): Mirror left and right.
        order (int): Which of ``JITTER_ORDERS``.
        brightness (float): Factor of all values; 1 changes nothing.
        contrast (float): Factor of the distance from the mean grey of the image; 1 changes nothing.
        saturation (float): Factor of the distance from the grey of each pixel; 1 changes nothing.
        hue (float): Added to the hue, in turns; 0 changes nothing.
        grayscale (bool): Replace each pixel by its grey.
        sigma (float): Standard deviation of the blur in pixels; 0 is no blur.
        solarize (bool): Invert values of at least 0.5.
        kernel_size (int): Odd side of the blur's kernel in pixels.
    """

    flip: bool = False
    order: int = 0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    grayscale: bool = False
    sigma: float = 0.0
    solarize: bool = False
    kernel_size: int = 23


@TRANSFORMS.register_module()
class BYOLAugmentation(Transform):
    """Flip, colour jitter, grey, blur, solarize: BYOL's augmentations without the crop.

    Appendix B of https://arxiv.org/abs/2006.07733, computed as torchvision's transforms compute
    them, as in all PyTorch versions of BYOL. BYOL's own code (google-deepmind/deepmind-research,
    byol/utils/augmentations.py) has the same draws and order, but another arithmetic. How far a
    step is from it, in levels of 255, on photographs of 224 pixels over the range of its draws
    (``tests/datasets/test_byol_arithmetic.py``):

    ==========  =====  ============  =============================================================
    step        mean   99th centile  BYOL's code
    ==========  =====  ============  =============================================================
    resize      0.61   5.6           TensorFlow's bicubic (a = -0.5), here OpenCV's (a = -0.75)
    brightness  23.2   100           adds an offset of up to 0.4, here a factor of up to 1 -+ 0.4
    contrast    0.96   5.9           about the mean of each channel, here about the mean grey
    saturation  2.5    16            factor of HSV's saturation, here a blend with the pixel's grey
    hue         0.23   2.7           the same, here of 8 bits on the CPU
    grey        0.22   0.5           the same but for rounding
    blur        0.94   24.6          zeros beyond the border, here a mirror; inside the same
    solarize    0.00   0.0           the same
    ==========  =====  ============  =============================================================

    One draw per view decides all of it (:class:`ViewAugmentation`). On the CPU it is applied with
    OpenCV on 8 bits: three to six times faster than the same chain of mmpretrain's transforms,
    values rounded at each step (``benchmarks/data_loading.py``). With ``AugmentViews(on_device=
    True)`` it is only drawn here, and ``ViewPreprocessor`` applies it to the
    whole batch on the training device.

    **Required Keys:**

    - img (np.ndarray): BGR, uint8, shape (height, width, 3).
    - on_device (bool, optional): Draw, but do not apply.

    **Modified Keys:**

    - img

    **Added Keys:**

    - augmentation (ViewAugmentation): What was drawn.

    Args:
        flip_prob (float): Probability of mirroring. Defaults to 0.5.
        jitter_prob (float): Probability of the colour jitter. Defaults to 0.8.
        brightness (float): Factor is uniform in 1 -+ this. Defaults to 0.4.
        contrast (float): Factor is uniform in 1 -+ this. Defaults to 0.4.
        saturation (float): Factor is uniform in 1 -+ this. Defaults to 0.2.
        hue (float): Shift is uniform in -+ this, in turns. Defaults to 0.1.
        grayscale_prob (float): Probability of grey. Defaults to 0.2.
        blur_prob (float): Probability of the blur. Defaults to 1.0.
        sigma (Sequence[float]): Standard deviation of the blur in pixels is uniform in this range.
            Defaults to (0.1, 2.0).
        kernel_size (int): Odd side of the blur's kernel in pixels. Defaults to 23.
        solarize_prob (float): Probability of solarizing. Defaults to 0.0.

    Raises:
        ValueError: At build time, if a setting makes no sense.
    """

    def __init__(
        self,
        flip_prob: float = 0.5,
        jitter_prob: float = 0.8,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.2,
        hue: float = 0.1,
        grayscale_prob: float = 0.2,
        blur_prob: float = 1.0,
        sigma: Sequence[float] = (0.1, 2.0),
        kernel_size: int = 23,
        solarize_prob: float = 0.0,
    ) -> None:
        for name, value, highest in (
            ('flip_prob', flip_prob, 1),
            ('jitter_prob', jitter_prob, 1),
            ('grayscale_prob', grayscale_prob, 1),
            ('blur_prob', blur_prob, 1),
            ('solarize_prob', solarize_prob, 1),
            ('brightness', brightness, 1),
            ('contrast', contrast, 1),
            ('saturation', saturation, 1),
            ('hue', hue, 0.5),
        ):
            if not 0 <= value <= highest:
                raise ValueError(f'{name} must be within [0, {highest}], got {value}')
            setattr(self, name, value)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd and positive, got {kernel_size}')
        if not 0 < sigma[0] <= sigma[1]:
            raise ValueError(f'sigma must be a range (low, high) of positive numbers, got {sigma}')
        self.kernel_size = kernel_size
        self.sigma = tuple(sigma)

    def draw(self) -> ViewAugmentation:
        """Draw what is done to a view, from NumPy's global generator."""
        # All at once, whatever is used of it, so that a probability changes no other draw.
        u = np.random.uniform(size=11).tolist()
        around_0 = [2 * value - 1 for value in u[2:6]]
        jitter = u[0] < self.jitter_prob
        return ViewAugmentation(
            flip=u[6] < self.flip_prob,
            order=int(u[1] * len(JITTER_ORDERS)),
            brightness=1 + jitter * self.brightness * around_0[0],
            contrast=1 + jitter * self.contrast * around_0[1],
            saturation=1 + jitter * self.saturation * around_0[2],
            hue=jitter * self.hue * around_0[3],
            grayscale=u[7] < self.grayscale_prob,
            sigma=(u[8] < self.blur_prob)
            * (self.sigma[0] + u[9] * (self.sigma[1] - self.sigma[0])),
            solarize=u[10] < self.solarize_prob,
            kernel_size=self.kernel_size,
        )

    @staticmethod
    def apply(image: np.ndarray, drawn: ViewAugmentation) -> np.ndarray:
        """Do to an image (BGR, uint8, shape (height, width, 3)) what was drawn."""
        if drawn.flip:
            image = cv2.flip(image, 1)
        for name in JITTER_ORDERS[drawn.order]:
            value = getattr(drawn, name)
            if value != (0 if name == 'hue' else 1):
                image = _CHANGES[name](image, value)
        if drawn.grayscale:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        if drawn.sigma:
            image = _blur(image, drawn.sigma, drawn.kernel_size)
        return cv2.LUT(image, _SOLARIZED) if drawn.solarize else image

    def transform(self, results: dict) -> dict:
        """Augment ``img``, or draw only."""
        results['augmentation'] = self.draw()
        if not results.get('on_device'):
            results['img'] = self.apply(results['img'], results['augmentation'])
        return results


_LEVELS = np.arange(256, dtype=np.float32)
_SOLARIZED = np.where(_LEVELS < 128, _LEVELS, 255 - _LEVELS).astype(np.uint8)
_GREY = np.array([0.114, 0.587, 0.299])  # of BGR


def _mapped(image: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return cv2.LUT(image, np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def _brightness(image: np.ndarray, factor: float) -> np.ndarray:
    return _mapped(image, factor * _LEVELS)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    grey = float(np.dot(cv2.mean(image)[:3], _GREY))
    return _mapped(image, factor * _LEVELS + (1 - factor) * grey)


def _saturation(image: np.ndarray, factor: float) -> np.ndarray:
    # The blend with the grey of each pixel is one linear map of its colour.
    return cv2.transform(image, factor * np.eye(3) + (1 - factor) * np.tile(_GREY, (3, 1)))


def _hue(image: np.ndarray, turns: float) -> np.ndarray:
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV_FULL)
    # A turn is 256 levels, where numbers of 8 bits begin again.
    hsv[..., 0] += np.uint8(round(256 * turns) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL)


def _blur(image: np.ndarray, sigma: float, kernel_size: int) -> np.ndarray:
    # Beyond four standard deviations the kernel weighs less than 8 bits resolve.
    size = min(kernel_size, 2 * int(np.ceil(4 * sigma)) + 1)
    kernel = cv2.getGaussianKernel(size, sigma, cv2.CV_32F)
    return cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)


_CHANGES = dict(brightness=_brightness, contrast=_contrast, saturation=_saturation, hue=_hue)
