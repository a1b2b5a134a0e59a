"""Small pictures of videos in a row."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from vito_mm.utils.worker_pool import run_in_workers
from vito_mm.videos import frames
from vito_mm.visualization.canvas import png_of

_SIDE, _GAP = 80, 4
_TIME_LIMIT = 20.0


def draw_thumbnails(videos: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Cut a square from the middle frame of videos, read in a process that may die.

    Args:
        videos (Mapping): Rows with ``path``, and ``start`` and ``end`` of parts, by name.

    Returns:
        dict[str, np.ndarray]: RGB, uint8, by name; a crossed frame of what cannot be read.
    """
    view = frames.View(_SIDE, _SIDE)

    def thumbnail(name: str) -> np.ndarray:
        return frames.spread(videos[name], 1, view, _TIME_LIMIT).frames[0]

    results = run_in_workers(thumbnail, videos, 1, 2 * _TIME_LIMIT)
    return {
        name: result if isinstance(result, np.ndarray) else _crossed() for name, result in results
    }


def draw_strip(thumbnails: Sequence[np.ndarray]) -> bytes:
    """Draw thumbnails side by side, at least one, as PNG."""
    gap = np.full((_SIDE, _GAP, 3), 255, np.uint8)
    parts = [part for thumbnail in thumbnails for part in (thumbnail, gap)]
    return png_of(np.concatenate(parts[:-1], axis=1))


def _crossed() -> np.ndarray:
    empty = np.full((_SIDE, _SIDE, 3), 230, np.uint8)
    cv2.line(empty, (0, 0), (_SIDE, _SIDE), (180, 180, 180), 1, cv2.LINE_AA)
    cv2.line(empty, (0, _SIDE), (_SIDE, 0), (180, 180, 180), 1, cv2.LINE_AA)
    return empty
