"""The figures of BYOLAugmentation's docstring: its distance from the arithmetic of BYOL's code.

The reference is NumPy in float64, by the formulas of byol/utils/augmentations.py and of
TensorFlow's bicubic resize (Keys' kernel with a = -0.5, outer samples left out).
"""

import re
from functools import cache

import cv2
import numpy as np
import pytest
from scipy.ndimage import convolve1d
from sklearn.datasets import load_sample_images

from vito_mm.datasets import BYOLAugmentation, ViewAugmentation

SPREAD = np.linspace(-1, 1, 9)
"""What is drawn, from one end of the uniform distribution to the other."""


def to_hsv(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    value, low = image.max(-1), image.min(-1)
    chroma = value - low
    safe = np.where(chroma > 0, chroma, 1)
    r, g, b = np.moveaxis(image, -1, 0)
    hue = np.select(
        [r == value, g == value], [(g - b) / safe, 2 + (b - r) / safe], 4 + (r - g) / safe
    )
    return (hue / 6) % 1, np.where(value > 0, chroma / np.where(value > 0, value, 1), 0), value


def from_hsv(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    places = [(shift + 6 * hue) % 6 for shift in (5, 3, 1)]
    ramps = [np.clip(np.minimum(place, 4 - place), 0, 1) for place in places]
    return np.stack([value - value * saturation * ramp for ramp in ramps], -1)


def brightness(image: np.ndarray, u: float) -> np.ndarray:
    return image + 0.4 * u


def contrast(image: np.ndarray, u: float) -> np.ndarray:
    means = image.mean((0, 1))
    return means + (1 + 0.4 * u) * (image - means)


def saturation(image: np.ndarray, u: float) -> np.ndarray:
    hue, amount, value = to_hsv(image)
    return from_hsv(hue, np.clip(amount * (1 + 0.2 * u), 0, 1), value)


def hue(image: np.ndarray, u: float) -> np.ndarray:
    turned, amount, value = to_hsv(image)
    return from_hsv((turned + 0.1 * u) % 1, amount, value)


def grey(image: np.ndarray, u: float) -> np.ndarray:
    return np.repeat((image @ [0.2989, 0.5870, 0.1140])[..., None], 3, -1)


def blur(image: np.ndarray, u: float) -> np.ndarray:
    offsets = np.arange(-11, 12)
    kernel = np.exp(-(offsets**2) / (2 * (1.05 + 0.95 * u) ** 2))
    for axis in (0, 1):
        image = convolve1d(image, kernel / kernel.sum(), axis, mode='constant', cval=0)
    return image


def solarize(image: np.ndarray, u: float) -> np.ndarray:
    return np.where(image < 0.5, image, 1 - image)


STEPS = {
    'brightness': (brightness, lambda u: dict(brightness=1 + 0.4 * u)),
    'contrast': (contrast, lambda u: dict(contrast=1 + 0.4 * u)),
    'saturation': (saturation, lambda u: dict(saturation=1 + 0.2 * u)),
    'hue': (hue, lambda u: dict(hue=0.1 * u)),
    'grey': (grey, lambda u: dict(grayscale=True)),
    'blur': (blur, lambda u: dict(sigma=1.05 + 0.95 * u)),
    'solarize': (solarize, lambda u: dict(solarize=True)),
}


def bicubic(size: int, length: int) -> np.ndarray:
    """Weights (length, size) of TensorFlow's resize along one side."""
    centres = (np.arange(length) + 0.5) * size / length - 0.5
    distance = np.abs(centres[:, None] - np.arange(size))
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.select([distance <= 1, distance < 2], [near, far], 0)
    return weights / weights.sum(1, keepdims=True)


@cache
def resized_views() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Crops of 0.4, 0.6, 0.8 and 1 of each photograph at 224 pixels: of OpenCV, of TensorFlow."""
    ours, theirs = [], []
    for photo in load_sample_images().images:  # RGB, 640 x 427
        for area in (0.4, 0.6, 0.8, 1.0):
            height, width = (round(side * area**0.5) for side in photo.shape[:2])
            crop = photo[:height, :width]
            ours.append(cv2.resize(crop, (224, 224), interpolation=cv2.INTER_CUBIC))
            rows, columns = bicubic(height, 224), bicubic(width, 224)
            exact = np.moveaxis(rows @ np.moveaxis(crop, -1, 0) @ columns.T, 0, -1)
            theirs.append(np.clip(exact, 0, 255))
    return ours, theirs


def differences(name: str) -> np.ndarray:
    """Distance of all values in levels of 255."""
    ours, theirs = resized_views()
    if name == 'resize':
        return np.abs(np.stack(ours) - np.stack(theirs))
    step, drawn = STEPS[name]
    found = []
    for view in ours[::2]:
        for u in SPREAD:
            done = BYOLAugmentation.apply(view[..., ::-1], ViewAugmentation(**drawn(u)))
            exact = np.clip(step(view / 255, u), 0, 1) * 255
            found.append(np.abs(done[..., ::-1] - exact))
    return np.stack(found)


@pytest.mark.parametrize('name', ['resize', *STEPS])
def test_distance_from_byols_arithmetic_is_the_documented_one(name):
    table = re.search(rf'^ *{name} +([\d.]+) +([\d.]+) ', BYOLAugmentation.__doc__, re.MULTILINE)
    mean, most = map(float, table.groups())
    found = differences(name)
    assert found.mean() == pytest.approx(mean, abs=0.06)
    assert np.quantile(found, 0.99) == pytest.approx(most, abs=0.6)


def test_zero_padding_darkens_the_border_alone():
    """Eleven pixels wide at most; inside both blurs are the same but for rounding."""
    found = differences('blur')
    assert found[:, 11:-11, 11:-11].max() < 1.1
    assert found[:, 0].mean() > 20
