"""Small pictures of videos in a row."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from vito_mm.utils.worker_pool import run_in_workers
from vito_mm.videos.decoding import decode_frames
from vito_mm.videos.frames import evenly
from vito_mm.videos.manifest import part_within

_HEIGHT, _WIDTH, _GAP = 72, 96, 4
_TIME_LIMIT = 20.0


def draw_thumbnails(videos: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The middle frames of videos, cut to the same shape; read in a process that may die.

    Args:
        videos (Mapping): Rows with ``path``, and ``start`` and ``end`` of parts, by name.

    Returns:
        dict[str, np.ndarray]: BGR, uint8, by name. A video that cannot be read is a crossed frame.
    """
    results = run_in_workers(lambda name: _thumbnail(videos[name]), videos, 1, 2 * _TIME_LIMIT)
    return {
        name: result if isinstance(result, np.ndarray) else _crossed() for name, result in results
    }


def draw_strip(thumbnails: Sequence[np.ndarray]) -> bytes:
    """Thumbnails side by side.

    Args:
        thumbnails (Sequence[np.ndarray]): At least one, see :func:`draw_thumbnails`.

    Returns:
        bytes: PNG, 72 pixels high.
    """
    gap = np.full((_HEIGHT, _GAP, 3), 255, np.uint8)
    parts = [part for thumbnail in thumbnails for part in (thumbnail, gap)]
    return cv2.imencode('.png', np.concatenate(parts[:-1], axis=1))[1].tobytes()


def _crossed() -> np.ndarray:
    empty = np.full((_HEIGHT, _WIDTH, 3), 230, np.uint8)
    cv2.line(empty, (0, 0), (_WIDTH, _HEIGHT), (180, 180, 180), 1, cv2.LINE_AA)
    cv2.line(empty, (0, _HEIGHT), (_WIDTH, 0), (180, 180, 180), 1, cv2.LINE_AA)
    return empty


def _thumbnail(row: Mapping[str, Any]) -> np.ndarray:
    frames, _ = decode_frames(
        row['path'],
        lambda seconds: evenly(1)(*part_within(row, seconds)),
        channel_order='bgr',
        short_side=_WIDTH,
        time_limit=_TIME_LIMIT,
    )
    frame = frames[0]
    scale = max(_HEIGHT / frame.shape[0], _WIDTH / frame.shape[1])
    size = [
        max(wanted, round(scale * length))
        for wanted, length in zip((_WIDTH, _HEIGHT), frame.shape[1::-1], strict=True)
    ]
    frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    top, left = (frame.shape[0] - _HEIGHT) // 2, (frame.shape[1] - _WIDTH) // 2
    return frame[top : top + _HEIGHT, left : left + _WIDTH]
