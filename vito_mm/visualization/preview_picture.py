"""Picture of the augmentation preview: time lines, crops and views of a run's first clips."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

from vito_mm.datasets.transforms.byol_augmentation import JITTER_ORDERS

from .augmentation_preview import (
    PreviewClip,
    PreviewView,
    TimeDifferences,
    build_sampler,
    draw_clips,
    summarise,
    time_differences,
)
from .canvas import GREY, TEXT, Canvas, shortened, wrapped, write_png
from .plots import draw_time_differences

MAX_CLIPS = 100
"""Most clips of one picture."""

# Pixels. Views of usual size are shown pixel by pixel.
_MARGIN, _GAP, _PAIR_GAP, _LINE, _SMALL = 20, 12, 24, 16, 11
_FRAME, _VIEW = (340, 224), (224, 224)  # boxes that frames and views are fitted in
_NARROWEST = 260  # column of frames, so that there is room for what is written about one
_PAIRS_PER_LINE = 3
_BAR = 34
_HISTOGRAM = 230
_COLOURS = ('#1f77b4', '#ff7f0e', '#2ca02c', '#d62728', '#9467bd', '#8c564b')
_SEGMENT, _OUTSIDE, _SKIPPED = '#fff1b3', '#c0c0c0', '#d62728'


def write_preview(
    cfg: Config, file: str | os.PathLike, num_clips: int = 6, seed: int | None = None
) -> str:
    """Draw the first clips of a pre-training run, and the histogram of its time differences.

    Args:
        cfg (Config): Config of the run.
        file: PNG to write; its folder is made.
        num_clips (int): Clips to show, at most ``MAX_CLIPS``. Defaults to 6.
        seed (int, optional): Seed of the run. Defaults to None, that of the config.

    Returns:
        str: Summary in a few lines.

    Raises:
        ValueError: If ``num_clips`` is out of range; others as :func:`build_sampler` and
            :func:`draw_clips`.
    """
    if not 1 <= num_clips <= MAX_CLIPS:
        raise ValueError(f'num_clips must be within 1 and {MAX_CLIPS}, got {num_clips}')
    sampler = build_sampler(cfg, seed)
    clips = draw_clips(cfg, sampler, num_clips)
    differences = time_differences(sampler)
    title = f'{cfg.filename or "a config"}, seed {sampler.seed}'
    write_png(_draw(clips, differences, title), Path(file))
    return summarise(clips, differences)


def _draw(
    clips: Sequence[PreviewClip], differences: Sequence[TimeDifferences], title: str
) -> np.ndarray:
    views = [view for clip in clips for view in clip.views]
    most = max(len(clip.views) for clip in clips)
    columns = -(-most // -(-most // _PAIRS_PER_LINE))
    frames = [_fitted(view.frame, _FRAME) for view in views]
    column = max(_NARROWEST, *(frame.shape[1] for frame in frames))
    height = max(len(picture) for picture in (*frames, *map(_image_of, views)))
    width = 2 * _MARGIN + columns * (column + _GAP + _VIEW[0] + _PAIR_GAP) - _PAIR_GAP
    heading = Canvas(width, 46)
    heading.title(title, _MARGIN)
    parts = [heading.array()]
    parts += [
        _draw_clip(width, f'{number}   ', clip, columns, column, height)
        for number, clip in enumerate(clips, start=1)
    ]
    parts += [_draw_differences(width, found) for found in differences]
    return np.concatenate(parts)


def _draw_clip(
    width: int, number: str, clip: PreviewClip, columns: int, column: int, height: int
) -> np.ndarray:
    notes = [f'replaces {path}: {reason}' for path, reason in clip.skipped]
    bars = _BAR + 2 * _LINE if clip.duration else _LINE + 10
    pair = 2 * _LINE + height + 3 * _LINE
    top = 24 + _LINE * len(notes)
    canvas = Canvas(width, top + bars + -(-len(clip.views) // columns) * pair + _MARGIN)
    room = width - 2 * _MARGIN
    label = '' if clip.label is None else f', label {clip.label}'
    canvas.text(_MARGIN, 0, number + shortened(clip.path + label, room - 60, bold=True), bold=True)
    for line, note in enumerate(notes):
        canvas.text(_MARGIN, 20 + line * _LINE, shortened(note, room, _SMALL), _SMALL, _SKIPPED)
    if clip.duration:
        half = (room - _MARGIN) // 2
        _draw_times(canvas, _MARGIN, top, half, (0, clip.duration), 'video', clip)
        _draw_times(canvas, 2 * _MARGIN + half, top, half, clip.segment, 'segment', clip)
    else:
        canvas.text(_MARGIN, top, 'A single image: no time line', colour=GREY)
    for index in range(len(clip.views)):
        row, place = divmod(index, columns)
        x = _MARGIN + place * (column + _GAP + _VIEW[0] + _PAIR_GAP)
        _draw_view(canvas, x, top + bars + row * pair, clip, index, column, height)
    return canvas.array()


def _draw_times(
    canvas: Canvas, left: int, top: int, width: int, span: tuple, name: str, clip: PreviewClip
) -> None:
    """The times of the views within a span, with the segment and what is outside of the part."""

    def place(time: float) -> int:
        share = (time - span[0]) / max(span[1] - span[0], 1e-9)
        return left + round(width * min(max(share, 0), 1))

    for start, end, colour in (
        (0, clip.part[0], _OUTSIDE),
        (clip.part[1], clip.duration, _OUTSIDE),
        (*clip.segment, _SEGMENT),
    ):
        canvas.fill(place(start), top, place(end) - place(start), _BAR, colour)
    canvas.box(left, top, width, _BAR, 'black')
    for index, view in enumerate(clip.views):
        colour = _COLOURS[index % len(_COLOURS)]
        canvas.fill(place(view.time), top, 1, _BAR, colour)
        canvas.dot(place(view.time), top + (index + 0.5) / len(clip.views) * _BAR, 4, colour)
    canvas.text(left, top + _BAR + 4, f'{span[0]:.2f} s', _SMALL)
    canvas.text(left + width, top + _BAR + 4, f'{name} to {span[1]:.2f} s', _SMALL, anchor='ra')


def _draw_view(
    canvas: Canvas, x: int, y: int, clip: PreviewClip, index: int, column: int, height: int
) -> None:
    """A frame with its crop and, to the right, the view."""
    view, colour = clip.views[index], _COLOURS[index % len(_COLOURS)]
    when = f'   {view.time:.2f} s (frame: {view.frame_time:.2f} s)' if clip.duration else ''
    right = x + column + _GAP
    canvas.text(x, y, f'{index + 1}{when}', colour=colour, bold=True)
    canvas.text(right, y, view.name, colour=colour, bold=True)
    y += 2 * _LINE - 8  # the outline of a crop may go 5 beyond the frame
    frame = _fitted(view.frame, _FRAME)
    canvas.paste(frame, x, y)
    canvas.paste(_image_of(view), right, y)
    rows, cols = view.frame.shape[:2]
    lines = [f'{cols} x {rows}, no random crop']
    if view.box:
        scale = frame.shape[1] / cols
        left, top, *size = (round(scale * length) for length in view.box)
        for line_colour, line in (('black', 5), (colour, 3)):
            canvas.box(x + left, y + top, *size, line_colour, line)
        _, _, width, crop_height = view.box
        share = width * crop_height / (cols * rows)
        lines = [f'{cols} x {rows}, crop {width} x {crop_height}', f'{share:.0%} of the area']
    y += height + 6
    for place, texts in ((x, lines), (right, _describe(view))):
        for number, text in enumerate(texts):
            canvas.text(place, y + number * (_LINE - 2), text, _SMALL, GREY)


def _image_of(view: PreviewView) -> np.ndarray:
    return _fitted(view.image.round().clip(0, 255).astype(np.uint8), _VIEW, whole=True)


def _fitted(image: np.ndarray, room: tuple[int, int], whole: bool = False) -> np.ndarray:
    """An image that fills the room, enlarged by a whole factor or any."""
    height, width = image.shape[:2]
    scale = min(room[0] / width, room[1] / height)
    scale = int(scale) if whole and scale >= 1 else scale
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    method = cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=method)


def _describe(view: PreviewView) -> list[str]:
    """Drawn values of a view in lines, the colours in the order in which they are changed."""
    drawn = view.augmentation
    if drawn is None:
        others = [step for step in view.steps if step not in ('BYOLCrop', 'RandomResizedCrop')]
        return ['drawn values are not known of', *_lines(others)] if others else ['crop only']
    effects = ['flip'] * drawn.flip + ['grey'] * drawn.grayscale
    effects += [f'sigma {drawn.sigma:.2f}'] * bool(drawn.sigma) + ['solarize'] * drawn.solarize
    neutral = dict(brightness=1, contrast=1, saturation=1, hue=0)
    colours = [
        f'{name} {getattr(drawn, name):{"+.3f" if name == "hue" else ".2f"}}'
        for name in JITTER_ORDERS[drawn.order]
        if getattr(drawn, name) != neutral[name]
    ]
    return _lines(effects or ['no flip/grey/blur/solarize']) + _lines(
        colours or ['no colour jitter']
    )


def _lines(words: Sequence[str]) -> list[str]:
    unbroken = ', '.join(word.replace(' ', '~') for word in words)  # a name with its value
    return [line.replace('~', ' ') for line in wrapped(unbroken, _VIEW[0] + 20, _SMALL)]


def _draw_differences(width: int, found: TimeDifferences) -> np.ndarray:
    lines = [repr(found.sampler), *found.lines()]
    plot = draw_time_differences(found, width - 2 * _MARGIN, _HISTOGRAM) if found.num_clips else []
    top = 36 + len(lines) * (_LINE + 2) + 8
    canvas = Canvas(width, top + len(plot) + _MARGIN)
    canvas.text(_MARGIN, 6, 'Time between two views of a clip', TEXT + 4, bold=True)
    for number, line in enumerate(lines):
        canvas.text(_MARGIN, 36 + number * (_LINE + 2), line)
    if found.num_clips:
        canvas.paste(plot, _MARGIN, top)
    return canvas.array()
