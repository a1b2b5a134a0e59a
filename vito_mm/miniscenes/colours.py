"""Colours of objects and backgrounds."""

import numpy as np


def hsv_to_rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """Turn one colour from HSV to RGB.

    Args:
        hue: Angle in degrees, any number.
        saturation: In [0, 1].
        value: In [0, 1].

    Returns:
        numpy.ndarray: (3,) float32 in [0, 1].
    """
    k = (np.array([5.0, 3.0, 1.0]) + hue / 60.0) % 6.0
    fall = np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0)
    return (value * (1.0 - saturation * fall)).astype(np.float32)
