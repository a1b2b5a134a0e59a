"""One picture of what a run will see: its first clips, their crops and views, their time lines."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmengine.config import Config

from vito_mm.datasets.transforms.byol_augmentation import JITTER_ORDERS

from .augmentation_preview import (
    Clip,
    Distances,
    View,
    build_sampler,
    describe,
    draw_clips,
    draw_distances,
    histogram_of,
    summarise,
)

MAX_CLIPS = 100
"""Most clips of one sheet: a picture cannot be higher than 65,535 pixels."""


def write_contact_sheet(
    cfg: Config, file: str | os.PathLike, num_clips: int = 6, seed: int | None = None
) -> str:
    """Draw the first clips of a pre-training run, and the histogram of its time differences.

    Args:
        cfg (Config): Config of the run.
        file: PNG to write; its folder is made.
        num_clips (int): Clips to show, at most ``MAX_CLIPS``. Defaults to 6.
        seed (int, optional): Seed of the run. Defaults to None, which means that of the config.

    Returns:
        str: What is in the picture, in a few lines.

    Raises:
        ValueError: If the config does not train on videos, or a setting makes no sense.
        FileNotFoundError: If there are no videos.
        RuntimeError: If none of them can be read; lists the first reasons.
    """
    if not 1 <= num_clips <= MAX_CLIPS:
        raise ValueError(f'num_clips must be within 1 and {MAX_CLIPS}, got {num_clips}')
    sampler = build_sampler(cfg, seed)
    clips = draw_clips(cfg, sampler, num_clips)
    distances = draw_distances(sampler)
    title = f'{cfg.filename or "a config"}, seed {sampler.seed}'
    figure = _draw_sheet(clips, distances, title)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=_DPI, format='png')
    return summarise(clips, distances)


# The picture. Everything is placed in pixels from the upper left corner, so that frames keep their
# shapes and views of usual size are shown pixel by pixel.
_DPI = 100
_MARGIN = 20
_FRAME, _VIEW = (340, 224), (224, 224)  # boxes that frames and views are fitted in
_NARROWEST = 260  # so that there is room for what is written about a frame
_GAP, _PAIR_GAP = 12, 24  # between a frame and its view, and to the next frame
_PAIRS_A_LINE = 3
_HEADER, _NOTE, _TIMES, _NO_TIMES, _CAPTION, _PRINT = 26, 18, 66, 26, 20, 58
_TITLE, _NUMBERS, _HISTOGRAM = 50, 150, 230
_COLOURS = ('tab:blue', 'tab:orange', 'tab:green', 'tab:red', 'tab:purple', 'tab:brown')
_SMALL, _NORMAL, _LARGE = 8, 10, 13  # points


class _Sheet:
    """A figure with a ruler of pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor='white')

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        place = (x / self.width, 1 - (y + height) / self.height)
        return self.figure.add_axes((*place, width / self.width, height / self.height))

    def text(self, x: float, y: float, text: str, size: float = _NORMAL, **kwargs: Any) -> None:
        """Text whose top is at y."""
        self.figure.text(
            x / self.width,
            1 - y / self.height,
            _printable(text),
            size=size,
            va='top',
            parse_math=False,  # file names have dollars
            **kwargs,
        )


def _printable(text: str) -> str:
    """Escapes for what the font that comes with matplotlib lacks, instead of empty boxes."""
    return ''.join(
        char if ord(char) < 0x250 else char.encode('ascii', 'backslashreplace').decode()
        for char in text
    )


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f'...{text[-limit + 3 :]}'


@dataclass
class _Grid:
    """Where pairs of a frame and its view are placed; all clips share it, so that they align."""

    columns: int
    lines: int
    frame_width: int
    height: int

    @classmethod
    def of(cls, views: list[View], num_views: int) -> '_Grid':
        lines = -(-num_views // _PAIRS_A_LINE)
        frames = [_fitted(view.frame, _FRAME) for view in views]
        pictures = frames + [_fitted(view.image, _VIEW, whole=True) for view in views]
        return cls(
            columns=-(-num_views // lines),
            lines=lines,
            frame_width=max(_NARROWEST, *(width for width, _ in frames)),
            height=max(height for _, height in pictures),
        )

    @property
    def pair(self) -> int:
        return self.frame_width + _GAP + _VIEW[0] + _PAIR_GAP

    @property
    def line(self) -> int:
        return _CAPTION + self.height + _PRINT


def _fitted(image: np.ndarray, room: tuple[int, int], whole: bool = False) -> tuple[int, int]:
    """Width and height of an image that is to fill the room, enlarged by a whole factor or any."""
    height, width = image.shape[:2]
    scale = min(room[0] / width, room[1] / height)
    scale = int(scale) if whole and scale >= 1 else scale
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _draw_sheet(clips: list[Clip], distances: list[Distances], title: str) -> Figure:
    views = [view for clip in clips for view in clip.views]
    grid = _Grid.of(views, max(len(clip.views) for clip in clips))
    heights = [
        _HEADER
        + _NOTE * len(clip.skipped)
        + (_TIMES if clip.duration else _NO_TIMES)
        + grid.lines * grid.line
        + _MARGIN
        for clip in clips
    ]
    panels = [_NUMBERS + _HISTOGRAM * bool(found.num_clips) for found in distances]
    sheet = _Sheet(
        2 * _MARGIN + grid.columns * grid.pair - _PAIR_GAP,
        _TITLE + sum(heights) + sum(panels),
    )
    sheet.text(_MARGIN, 14, _shortened(title, sheet.width // 11), _LARGE, weight='bold')
    y = _TITLE
    for number, (clip, height) in enumerate(zip(clips, heights, strict=True), start=1):
        _draw_clip(sheet, y, clip, number, grid)
        y += height
    for found, height in zip(distances, panels, strict=True):
        _draw_distances(sheet, y, found)
        y += height
    return sheet.figure


def _draw_clip(sheet: _Sheet, y: float, clip: Clip, number: int, grid: _Grid) -> None:
    label = '' if clip.label is None else f', label {clip.label}'
    name = _shortened(clip.path, sheet.width // 9 - 30)
    sheet.text(_MARGIN, y, f'{number}   {name}{label}', weight='bold')
    y += _HEADER
    for path, reason in clip.skipped:
        note = f'stands in for {_shortened(path, sheet.width // 14)}: {reason}'
        sheet.text(_MARGIN, y - 4, note[: sheet.width // 7], color='tab:red', size=_SMALL)
        y += _NOTE
    _draw_times(sheet, y, clip)
    y += _TIMES if clip.duration else _NO_TIMES
    for index in range(len(clip.views)):
        line, column = divmod(index, grid.columns)
        place = _MARGIN + column * grid.pair, y + line * grid.line
        _draw_view(sheet, *place, clip, index, grid)


def _draw_times(sheet: _Sheet, y: float, clip: Clip) -> None:
    """The video with the segment on the left, the segment with the moments on the right."""
    width = (sheet.width - 3 * _MARGIN) / 2
    if not clip.duration:
        sheet.text(_MARGIN, y, 'A single image: no time line', color='dimgrey')
        return
    start, end = clip.segment
    for x, low, high, what in (
        (_MARGIN, 0, clip.duration, 'video'),
        (2 * _MARGIN + width, start, end, 'segment'),
    ):
        axes = sheet.axes(x, y, width, 34)
        axes.set(xlim=(low, high), ylim=(len(clip.views) - 0.5, -0.5), yticks=[])
        for outside in ((0, clip.part[0]), (clip.part[1], clip.duration)):
            axes.axvspan(*outside, color='silver', lw=0)
        axes.axvspan(start, end, color='gold', alpha=0.35, lw=0)
        for index, view in enumerate(clip.views):
            colour = _COLOURS[index % len(_COLOURS)]
            axes.axvline(view.time, color=colour, lw=1)
            axes.plot(view.time, index, 'o', color=colour, ms=6, clip_on=False)
        axes.set_xticks([low, high], [f'{low:.2f} s', f'{what} to {high:.2f} s'], size=_SMALL)
        for text, side in zip(axes.get_xticklabels(), ('left', 'right'), strict=True):
            text.set_horizontalalignment(side)


def _draw_view(sheet: _Sheet, x: float, y: float, clip: Clip, index: int, grid: _Grid) -> None:
    view, colour = clip.views[index], _COLOURS[index % len(_COLOURS)]
    style = dict(color=colour, weight='bold', size=_SMALL + 1)
    when = f'   {view.time:.2f} s (frame: {view.frame_time:.2f} s)' if clip.duration else ''
    right = x + grid.frame_width + _GAP
    sheet.text(x, y, f'{index + 1}{when}', **style)
    sheet.text(right, y, view.name, **style)
    y += _CAPTION
    axes = _show(sheet, x, y, view.frame, _fitted(view.frame, _FRAME))
    height, width = view.frame.shape[:2]
    crop = f'{width} x {height}, no random crop'
    if view.box:
        left, top, *size = view.box
        for line_colour, line_width in (('black', 4), (colour, 2)):
            box = Rectangle((left, top), *size, fill=False, lw=line_width, color=line_colour)
            axes.add_patch(box).set_clip_on(False)
        share = size[0] * size[1] / (width * height)
        crop = f'{width} x {height}, crop {size[0]} x {size[1]}\n{share:.0%} of the area'
    image = view.image.round().clip(0, 255).astype(np.uint8)
    _show(sheet, right, y, image, _fitted(image, _VIEW, whole=True))
    y += grid.height + 6
    sheet.text(x, y, crop, size=_SMALL, color='dimgrey')
    sheet.text(right, y, _describe(view), size=_SMALL, color='dimgrey')


def _show(sheet: _Sheet, x: float, y: float, image: np.ndarray, size: tuple[int, int]) -> Axes:
    axes = sheet.axes(x, y, *size)
    axes.imshow(image, aspect='auto', extent=(0, image.shape[1], image.shape[0], 0))
    axes.set_axis_off()
    return axes


def _describe(view: View) -> str:
    """What was drawn for a view, in three short lines, the colours in the order of their turns."""
    drawn = view.augmentation
    if drawn is None:
        others = [step for step in view.steps if step not in ('BYOLCrop', 'RandomResizedCrop')]
        return 'what these drew is not known:\n' + _wrapped(others) if others else 'crop only'
    effects = ['flip'] * drawn.flip + ['grey'] * drawn.grayscale
    effects += [f'sigma {drawn.sigma:.2f}'] * bool(drawn.sigma) + ['solarize'] * drawn.solarize
    neutral = dict(brightness=1, contrast=1, saturation=1, hue=0)
    colours = [
        f'{name} {getattr(drawn, name):{"+.3f" if name == "hue" else ".2f"}}'
        for name in JITTER_ORDERS[drawn.order]
        if getattr(drawn, name) != neutral[name]
    ]
    colours = colours or ['no colour jitter']
    return _wrapped(effects or ['no flip/grey/blur/solarize']) + '\n' + _wrapped(colours)


def _wrapped(words: list[str], limit: int = 36) -> str:
    lines = ['']
    for word in words:
        longer = f'{lines[-1]}, {word}' if lines[-1] else word
        if len(longer) > limit:
            lines.append(word)
        else:
            lines[-1] = longer
    return '\n'.join(lines)


def _draw_distances(sheet: _Sheet, y: float, found: Distances) -> None:
    segment, width = found.sampler.segment, sheet.width - 2 * _MARGIN
    sheet.text(_MARGIN, y + 10, 'Time between two views of a clip', _LARGE, weight='bold')
    text = '\n'.join([repr(found.sampler), *describe(found)])
    sheet.text(_MARGIN, y + 40, text, size=_SMALL + 1, linespacing=1.5)
    if not found.num_clips:
        return
    axes = sheet.axes(_MARGIN + 50, y + _NUMBERS, width - 60, _HISTOGRAM - 60)
    counts, edges = histogram_of(found)
    density = counts / counts.sum() / np.diff(edges)
    axes.stairs(density, edges, fill=True, color='tab:blue', alpha=0.5, label='drawn')
    axes.axvline(np.median(found.values), color='tab:blue', label='median')
    if found.sampler.method == 'marginal':
        theory = 2 * (segment - edges) / segment**2
        axes.plot(edges, theory, color='tab:red', label='2 (T - dt) / T^2')
    axes.set(xlim=(0, segment), xlabel='|dt|, seconds', ylabel='density, 1/s')
    axes.legend(loc='upper right', frameon=False)
