"""BYOL's random crop."""

import math
from typing import Any

import numpy as np
from mmcv.transforms.utils import cache_randomness
from mmpretrain.datasets import RandomResizedCrop


class BYOLCrop(RandomResizedCrop):
    """mmpretrain's ``RandomResizedCrop`` with windows drawn as in BYOL's code.

    Area and aspect ratio are drawn once, and a window that is larger than the frame is clipped to
    it (``_decode_and_random_crop`` in google-deepmind/deepmind-research, byol/utils/dataset.py).
    torchvision and mmpretrain draw again until a window fits, ten times, and then take the middle
    of the frame: large windows of wide frames are rarer, and one fixed window is frequent.

    Of crops of at least 0.4 of the area, by ``oversize``:

    ====================================  ======  ========
    measure                               'clip'  'redraw'
    ====================================  ======  ========
    mean share of a 16:9 frame            0.610   0.520
    largest share of a 16:9 frame         0.866   0.750
    widest window of a 16:9 frame         1.54:1  1.34:1
    fixed middle of a frame of 602 x 256  none    43 %
    ====================================  ======  ========

    Args:
        *args: ``scale``, ``crop_ratio_range`` and so on of
            :class:`mmpretrain.datasets.RandomResizedCrop`.
        oversize (str): What becomes of a window larger than the frame: 'clip' as in BYOL's code, or
            'redraw' as in torchvision. Defaults to 'clip'.
        **kwargs: As ``*args``. ``max_attempts`` has a meaning for 'redraw' only.

    Raises:
        ValueError: If ``oversize`` is neither.
    """

    def __init__(self, *args: Any, oversize: str = 'clip', **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if oversize not in ('clip', 'redraw'):
            raise ValueError(f"oversize must be 'clip' or 'redraw', got {oversize!r}")
        self.oversize = oversize

    @cache_randomness
    def rand_crop_params(self, img: np.ndarray) -> tuple[int, int, int, int]:
        """Draw a window: top, left, height and width in pixels."""
        if self.oversize == 'redraw':
            return super().rand_crop_params(img)
        height, width = img.shape[:2]
        area = np.random.uniform(*self.crop_ratio_range) * height * width
        aspect = math.exp(np.random.uniform(*map(math.log, self.aspect_ratio_range)))
        # A frame of a few pixels has windows that round to none.
        crop_width = min(max(round(math.sqrt(area * aspect)), 1), width)
        crop_height = min(max(round(math.sqrt(area / aspect)), 1), height)
        top = np.random.randint(height - crop_height + 1)
        left = np.random.randint(width - crop_width + 1)
        return top, left, crop_height, crop_width

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, oversize={self.oversize!r})'
