"""Attention masks: how peaked they are, and how they look over the frame that they belong to.

A mask is the softmax of section 3.2 of https://arxiv.org/abs/2210.06433, as
:meth:`vito_mm.models.MultiScaleAttentionPooling.masks` gives it: weights of all positions of a
feature map, which sum to 1. Here they are counted in multiples of uniform attention, weight times
number of positions, so that masks of any size mean the same and a mask that says nothing looks so.
"""

import cv2
import matplotlib
import numpy as np

LIMIT = 16.0
"""Multiple of uniform attention that is drawn brightest, and its inverse darkest."""

TOP_AREA = 0.1
"""Part of the area whose share of the attention is told."""

# The frame is dimmed, so that brightness rises with attention all the way.
_UNIFORM, _DARKEST = 0.6, 0.15  # brightness of white under uniform attention and without any
_BLACK = 0.2  # grey of what is black in the frame, which could not darken
_OPACITY = 0.85  # of the heat where it is strongest
_HEAT = matplotlib.colormaps['inferno'](np.linspace(0.6, 1.0, 256))[:, :3].astype(np.float32)
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def top_share(mask: np.ndarray) -> float:
    """Share of the attention, within [``TOP_AREA``, 1], on the most attended part of the area.

    Positions count in fractions, so that the share of a uniform mask is ``TOP_AREA`` at any size.

    Args:
        mask (np.ndarray): Weights that sum to 1, any shape.
    """
    weights = np.sort(np.asarray(mask, np.float64).ravel())[::-1]
    positions = TOP_AREA * weights.size
    whole = int(positions)
    rest = (positions - whole) * weights[whole] if whole < weights.size else 0.0
    return float(weights[:whole].sum() + rest)


def entropy(mask: np.ndarray) -> float:
    """Entropy of a mask: 1 for a uniform one, 0 if all lies on one of several positions."""
    weights = np.asarray(mask, np.float64).ravel()
    if weights.size == 1:
        return 1.0
    positive = weights[weights != 0]
    return float(-(positive * np.log(positive)).sum() / np.log(weights.size)) + 0.0  # no -0.0


def overlay(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A frame in grey with a mask over it.

    Where attention is uniform the frame is seen in grey; where there is less it darkens, where
    there is more it glows. The scale is logarithmic, ends at ``LIMIT`` times more or less, and is
    the same for every mask: pictures can be compared, and a mask that is nearly uniform looks so.

    Args:
        frame (np.ndarray): RGB, uint8, shape (H, W, 3).
        mask (np.ndarray): Weights that sum to 1, shape (h, w).

    Returns:
        np.ndarray: RGB, uint8, shape (H, W, 3).
    """
    size = frame.shape[1::-1]
    levels = cv2.resize(_levels(mask), size, interpolation=cv2.INTER_CUBIC).clip(-1, 1)
    return _heated(frame, levels)


def scale_bar(width: int, height: int) -> np.ndarray:
    """The colours of :func:`overlay`, over a frame of one grey, as uint8 (height, width, 3).

    ``1 / LIMIT`` is at the left edge, uniform attention in the middle, ``LIMIT`` at the right edge.
    """
    levels = np.tile(np.linspace(-1, 1, width, dtype=np.float32), (height, 1))
    return _heated(np.full((height, width, 3), 200, np.uint8), levels)


def _levels(mask: np.ndarray) -> np.ndarray:
    """Logarithm of the multiples, -1 and 1 at the limits; 0 where there is no number."""
    with np.errstate(divide='ignore', invalid='ignore'):
        levels = np.log(np.asarray(mask, np.float64) * mask.size) / np.log(LIMIT)
    return np.nan_to_num(levels, nan=0.0, posinf=1.0, neginf=-1.0).clip(-1, 1).astype(np.float32)


def _heated(frame: np.ndarray, levels: np.ndarray) -> np.ndarray:
    less, more = np.maximum(-levels, 0), np.maximum(levels, 0)
    grey = _BLACK + (1 - _BLACK) * (frame.astype(np.float32) @ _GREY / 255)
    grey *= _UNIFORM - (_UNIFORM - _DARKEST) * less
    heat = _HEAT[(more * 255).astype(np.uint8)]
    # Opaque early, as twice the uniform attention has to be seen.
    opacity = (_OPACITY * more**0.7)[..., None]
    return (255 * (opacity * heat + (1 - opacity) * grey[..., None])).round().astype(np.uint8)
