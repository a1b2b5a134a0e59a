"""All that reads a video, by name: each raises a VideoReadError for one that it cannot read."""

from pathlib import Path

import numpy as np

from vito_mm.videos import VideoReadError, decode_frames, frames
from vito_mm.videos.frames import View
from vito_mm.videos.prepare.integrity import inspect_video
from vito_mm.videos.prepare.reencoding import Encoding, reencode_video

VIEW = View(48, 32)


def first(duration: float) -> np.ndarray:
    return np.zeros(1)


def checked(row: dict) -> None:
    """Raise for a bad row of preparation."""
    if row['verdict'] == 'bad':
        raise VideoReadError(row['path'], row['reason'])


def reencoded(path: Path) -> None:
    checked(reencode_video(path, path.parent / 'copies' / 'x.mp4', Encoding()))


READERS = {
    'pyav': lambda path: decode_frames(path, first, 'pyav'),
    'decord': lambda path: decode_frames(path, first, 'decord'),
    'inspect': lambda path: checked(inspect_video(path)),
    'reencode': reencoded,
    'first frames': lambda path: frames.first(dict(path=path), 1, VIEW),
    'spread frames': lambda path: frames.spread(dict(path=path), 1, VIEW),
}
