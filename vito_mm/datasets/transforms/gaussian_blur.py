"""BYOL's blur."""

from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from vito_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomGaussianBlur(BaseTransform):
    """Blur with a Gaussian kernel of fixed size and random width, as BYOL does.

    Appendix B of https://arxiv.org/abs/2006.07733. mmpretrain's ``GaussianBlur`` calls Pillow,
    which approximates the Gaussian by box filters and has no kernel size; this one is the sampled
    kernel itself, mirrored at the border like torchvision's.

    **Required Keys:**

    - img

    **Modified Keys:**

    - img

    Args:
        kernel_size (int): Odd side of the kernel in pixels. Defaults to 23.
        sigma (Sequence[float]): Standard deviation in pixels is uniform in this range. Defaults to
            (0.1, 2.0).
        prob (float): Probability of blurring. Defaults to 1.0.

    Raises:
        ValueError: At build time, if a setting makes no sense.
    """

    def __init__(
        self, kernel_size: int = 23, sigma: Sequence[float] = (0.1, 2.0), prob: float = 1.0
    ) -> None:
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd and positive, got {kernel_size}')
        if not 0 < sigma[0] <= sigma[1]:
            raise ValueError(f'sigma must be a range (low, high) of positive numbers, got {sigma}')
        if not 0 <= prob <= 1:
            raise ValueError(f'prob must be within [0, 1], got {prob}')
        self.kernel_size = kernel_size
        self.sigma = tuple(sigma)
        self.prob = prob

    @cache_randomness
    def _draw(self) -> tuple[bool, float]:
        return np.random.uniform() < self.prob, np.random.uniform(*self.sigma)

    def transform(self, results: dict) -> dict:
        """Blur ``img``, or leave it."""
        blur, sigma = self._draw()
        if blur:
            size = (self.kernel_size, self.kernel_size)
            img = np.ascontiguousarray(results['img'])
            results['img'] = cv2.GaussianBlur(img, size, sigma, borderType=cv2.BORDER_REFLECT_101)
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(kernel_size={self.kernel_size}, sigma={self.sigma}, '
            f'prob={self.prob})'
        )
