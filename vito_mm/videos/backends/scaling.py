"""Frames made smaller after decoding, for decoders that do not scale."""

import cv2
import numpy as np

from .request import Request


def scale_down(frame: np.ndarray, request: Request) -> np.ndarray:
    """Scale a frame to the short side of a request by averaging areas.

    Args:
        frame (np.ndarray): Shape (height, width, 3).
        request (Request): Says the short side.

    Returns:
        np.ndarray: The frame, or a smaller one.
    """
    height, width = frame.shape[:2]
    size = request.scaled_size(width, height)
    return (
        frame if size == (width, height) else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    )
