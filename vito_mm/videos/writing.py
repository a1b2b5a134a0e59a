"""Videos written from pictures."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from vito_mm.utils.atomic import written_aside

from .prepare.integrity import import_av


def write_video(file: Path, pictures: Iterable[np.ndarray], fps: float) -> int:
    """Write pictures as an MP4 (H.264), atomically.

    Args:
        file (Path): File to write; its folder is made.
        pictures (Iterable[np.ndarray]): RGB, uint8, shape (height, width, 3), all of one size with
            even sides.
        fps (float): Pictures per second.

    Returns:
        int: Number of pictures.
    """
    av = import_av()
    rate = Fraction(fps).limit_denominator(1000)
    count, stream = 0, None
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        written_aside(file) as unfinished,
        av.open(
            str(unfinished), 'w', format='mp4', options={'movflags': '+faststart'}
        ) as container,
    ):
        for picture in pictures:
            if stream is None:
                stream = container.add_stream('libx264', rate, options={'crf': '18'})
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = 'yuv420p'
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
            count += 1
        if stream is not None:
            container.mux(stream.encode())
    return count
