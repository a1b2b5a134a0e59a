"""Frames with the attention of each scale: side by side in time, or one at a time for a video."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from vito_mm.videos.frames import Clip

from .attention import LIMIT, TOP_AREA, entropy, overlay, scale_bar, top_share
from .canvas import GREY, Canvas, shortened, wrapped

Masks = Mapping[str, np.ndarray]
"""Masks by the name of their scale, shape (n, h, w) for n frames."""

# Pixels.
_SMALLEST, _LARGEST = 160, 512  # sides of frames as they are shown
_MARGIN, _GAP, _CLIP_GAP, _LINE, _SMALL = 12, 4, 16, 18, 12
_LABELS = 100  # the column with the names of the rows
_WIDEST, _NARROWEST = 2000, 680
_BAR = (380, 14)

_EXPLANATION = (
    f'top {TOP_AREA:.0%}: share of the attention on the strongest {TOP_AREA:.0%} of the area, '
    f'{TOP_AREA:.0%} if it is uniform. H: entropy of the mask, 1.00 if it is uniform, 0 if all '
    'lies in one place.'
)


def draw_strip(clips: Sequence[Clip], masks: Sequence[Masks], title: str) -> np.ndarray:
    """Draw clips (RGB, uint8): their frames from left to right, the masks of each scale below."""
    side = _shown_side(clips[0].frames.shape[1])
    bands = _bands(clips, max(1, (_WIDEST - 2 * _MARGIN - _LABELS) // (side + _GAP)))
    needed = max(
        sum(len(frames) * (side + _GAP) + _CLIP_GAP for _, frames in band) for band in bands
    )
    width = max(_NARROWEST, 2 * _MARGIN + _LABELS + needed - _CLIP_GAP - _GAP)
    band_height = 2 * _LINE + side + len(masks[0]) * (_GAP + side + _LINE) + _CLIP_GAP
    legend = _legend(width - 2 * _MARGIN)
    top = _MARGIN + 2 * _LINE
    canvas = Canvas(width, top + len(bands) * band_height + len(legend) + _MARGIN)
    canvas.title(title, _MARGIN)
    for y, band in zip(range(top, canvas.height, band_height), bands, strict=False):
        _label_rows(canvas, y + 2 * _LINE, side, masks)
        x = _MARGIN + _LABELS
        for number, frames in band:
            _draw_frames(canvas, x, y, side, clips[number], masks[number], frames)
            x += len(frames) * (side + _GAP) + _CLIP_GAP
    canvas.paste(legend, _MARGIN, canvas.height - len(legend) - _MARGIN)
    return canvas.array()


def draw_side_by_side(
    frame: np.ndarray, time: float, masks: Mapping[str, np.ndarray], title: str
) -> np.ndarray:
    """Draw one frame of a video, with the mask of each scale to the right of it.

    Args:
        frame (np.ndarray): RGB, uint8, shape (size, size, 3).
        time (float): When it is shown, in seconds.
        masks (Mapping[str, np.ndarray]): Mask by the name of the scale, shape (h, w).
        title (str): Title.

    Returns:
        np.ndarray: RGB, uint8; both sides are even and the same for every frame.
    """
    side = _shown_side(len(frame))
    columns = 1 + len(masks)
    width = max(_NARROWEST, 2 * _MARGIN + columns * (side + _GAP) - _GAP)
    legend = _legend(width - 2 * _MARGIN)
    top = _MARGIN + 3 * _LINE
    height = top + side + 2 * _LINE + len(legend) + _MARGIN
    canvas = Canvas(width + width % 2, height + height % 2)
    canvas.title(title, _MARGIN)
    x = (width - columns * (side + _GAP) + _GAP) // 2
    canvas.text(x, top - _LINE, f'{time:.2f} s')
    canvas.paste(_resized(frame, side), x, top)
    for name, mask in masks.items():
        x += side + _GAP
        canvas.text(x, top - _LINE, f'{name}, {_size_of(mask)}')
        _draw_mask(canvas, x, top, side, frame, mask)
    canvas.paste(legend, _MARGIN, top + side + 2 * _LINE)
    return canvas.array()


def _shown_side(side: int) -> int:
    return min(max(side, _SMALLEST), _LARGEST)


def _bands(clips: Sequence[Clip], columns: int) -> list[list[tuple[int, range]]]:
    """Clips and their frames in each row of the picture, all rows about as long."""
    longest = max(len(clip.frames) for clip in clips)
    if longest <= columns:
        most = columns // longest
        across = -(-len(clips) // -(-len(clips) // most))
        whole = [(number, range(len(clip.frames))) for number, clip in enumerate(clips)]
        return [whole[i : i + across] for i in range(0, len(whole), across)]
    bands = []
    for number, clip in enumerate(clips):
        count = len(clip.frames)
        length = -(-count // -(-count // columns))
        bands += [[(number, range(i, min(i + length, count)))] for i in range(0, count, length)]
    return bands


def _label_rows(canvas: Canvas, y: int, side: int, masks: Sequence[Masks]) -> None:
    canvas.text(_MARGIN, y, 'frame', bold=True)
    y += side + _GAP
    for name, of_first in masks[0].items():
        every = [mask for of_clip in masks for mask in of_clip[name]]
        canvas.text(_MARGIN, y, name, bold=True)
        lines = (
            _size_of(of_first[0]),
            '',
            'mean',
            _share(np.mean([top_share(mask) for mask in every])),
            f'H {np.mean([entropy(mask) for mask in every]):.2f}',
        )
        for number, line in enumerate(lines, start=1):
            canvas.text(_MARGIN, y + number * _LINE, line, _SMALL, GREY)
        y += side + _LINE + _GAP


def _draw_frames(
    canvas: Canvas, x: int, y: int, side: int, clip: Clip, masks: Masks, frames: range
) -> None:
    room = len(frames) * (side + _GAP) - _GAP
    canvas.text(x, y, shortened(clip.name, room))
    for number in frames:
        if clip.seconds:
            canvas.text(x, y + _LINE, f'{clip.times[number]:.2f} s', _SMALL, GREY)
        row = y + 2 * _LINE
        frame = clip.frames[number]
        canvas.paste(_resized(frame, side), x, row)
        row += side + _GAP
        for of_scale in masks.values():
            _draw_mask(canvas, x, row, side, frame, of_scale[number])
            row += side + _LINE + _GAP
        x += side + _GAP


def _draw_mask(
    canvas: Canvas, x: int, y: int, side: int, frame: np.ndarray, mask: np.ndarray
) -> None:
    """A mask over its frame and, below, how peaked it is."""
    canvas.paste(overlay(_resized(frame, side), mask), x, y)
    y += side + 2
    canvas.text(x, y, _share(top_share(mask)), _SMALL)
    canvas.text(x + side, y, f'H {entropy(mask):.2f}', _SMALL, anchor='ra')


def _legend(width: int) -> np.ndarray:
    """Legend of colours and numbers."""
    lines = wrapped(_EXPLANATION, width, _SMALL)
    canvas = Canvas(width, 3 * _LINE + _BAR[1] + len(lines) * _LINE)
    canvas.text(0, 0, 'Attention in multiples of uniform attention', _SMALL)
    canvas.paste(scale_bar(*_BAR), 0, _LINE)
    canvas.box(0, _LINE, *_BAR, GREY, line=0)
    y = _LINE + _BAR[1] + 2
    for place, text, anchor in (
        (0, f'1/{LIMIT:.0f} or less', 'la'),
        (0.25, f'1/{LIMIT**0.5:.0f}', 'ma'),
        (0.5, '1 = uniform', 'ma'),
        (0.75, f'{LIMIT**0.5:.0f}', 'ma'),
        (1, f'{LIMIT:.0f} or more', 'ra'),
    ):
        canvas.text(place * _BAR[0], y, text, _SMALL - 1, GREY, anchor=anchor)
    for number, line in enumerate(lines):
        canvas.text(0, y + (number + 1) * _LINE + 4, line, _SMALL)
    return canvas.array()


def _resized(frame: np.ndarray, side: int) -> np.ndarray:
    if len(frame) == side:
        return frame
    method = cv2.INTER_CUBIC if len(frame) < side else cv2.INTER_AREA
    return cv2.resize(frame, (side, side), interpolation=method)


def _size_of(mask: np.ndarray) -> str:
    return ' x '.join(map(str, mask.shape))


def _share(share: float) -> str:
    return f'top {TOP_AREA:.0%}: {share:.0%}'
