"""Frames made as they were asked for after decoding, for decoders that cannot."""

import cv2
import numpy as np

from .request import Request


def converted(frame: np.ndarray, request: Request, channel_order: str) -> np.ndarray:
    """Scale a frame to the short side of a request, by averaging areas, and order its channels.

    Args:
        frame (np.ndarray): Shape (height, width, 3).
        request (Request): Says the short side and the order of channels.
        channel_order (str): That of the frame, ``'rgb'`` or ``'bgr'``.

    Returns:
        np.ndarray: The frame itself if it is as it should be, or another one.
    """
    height, width = frame.shape[:2]
    size = request.scaled_size(width, height)
    if size != (width, height):
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    if channel_order != request.channel_order:
        frame = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)  # and the other way round
    return frame
