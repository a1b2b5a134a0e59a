"""Plots as pictures (RGB, uint8): similarities, retrieval across time, time differences."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from .curves import DPI, SETTINGS

if TYPE_CHECKING:
    from .augmentation_preview import TimeDifferences

_POSITIVE, _NEGATIVE = '#0072b2', '#d55e00'
_MOST_EARLIER = 4  # curves of earlier measurements but the first


def draw_similarities(positives: Tensor, negatives: Tensor, bins: int, title: str) -> np.ndarray:
    """Draw histograms of the cosines of positive and of negative pairs.

    Args:
        positives (Tensor): Counts over [-1, 1], shape (a multiple of bins, ).
        negatives (Tensor): Likewise.
        bins (int): Bars.
        title (str): Title.
    """
    edges = np.linspace(-1, 1, bins + 1)
    parts = {
        f'positive: {int(positives.sum()):,} pairs of views of one clip': (_POSITIVE, positives),
        f'negative: {int(negatives.sum()):,} pairs of different clips': (_NEGATIVE, negatives),
    }
    with matplotlib.rc_context(SETTINGS):
        figure, axes = _plot((6.0, 3.4), title)
        for label, (colour, counts) in parts.items():
            shares = counts.view(bins, -1).sum(dim=1).double() / counts.sum() * 100
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.35, label=label)
            axes.stairs(shares, edges, color=colour, lw=1.2)
        axes.set(
            xlim=(-1, 1),
            xlabel='cosine of an online and a target projection',
            ylabel='% of pairs in a bar',
        )
        axes.set_ylim(bottom=0)
        figure.legend(*axes.get_legend_handles_labels(), loc='outside lower center', frameon=False)
        return _pixels(figure)


def draw_retrieval(
    delays: Sequence[float], history: Mapping[int, Sequence[float]], num_videos: int
) -> np.ndarray:
    """Draw retrieval accuracy over the delay: now, at the first measurement, and some between.

    Args:
        delays (Sequence[float]): In seconds.
        history (Mapping[int, Sequence[float]]): Percent, one per delay, by iteration.
        num_videos (int): Size of the gallery.
    """
    steps = sorted(history)
    *earlier, now = steps
    places = np.linspace(0, len(earlier) - 1, min(len(earlier), _MOST_EARLIER + 1)).round()
    earlier = [earlier[int(place)] for place in places]
    with matplotlib.rc_context(SETTINGS):
        title = f'Does a frame find its own video among {num_videos}?'
        figure, axes = _plot((6.0, 3.6), title)
        chance = 100 / num_videos
        axes.axhline(chance, color='black', lw=1, ls=':', label=f'chance, {chance:.2g} %')
        for number, step in enumerate(earlier):
            colour = str(0.82 - 0.45 * number / len(earlier))  # grey, darker towards now
            style = dict(color=colour, ms=3, lw=1.2, label=f'iteration {step}')
            axes.plot(delays, history[step], marker='o', clip_on=False, **style)
        style = dict(color=_POSITIVE, ms=5, lw=2, label=f'iteration {now}')
        axes.plot(delays, history[now], marker='o', clip_on=False, **style)
        axes.set(ylim=(0, 103), xlabel='delay, s', ylabel='own video is nearest, %')
        axes.set_xticks(delays, [f'{delay:g}' for delay in delays])
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles[::-1], labels[::-1], loc='outside right upper', frameon=False, fontsize=8
        )
        return _pixels(figure)


def draw_time_differences(found: 'TimeDifferences', width: int, height: int) -> np.ndarray:
    """Draw the histogram of time differences, and the density in theory where it is known."""
    counts, edges = found.histogram()
    segment = found.sampler.segment
    with matplotlib.rc_context(SETTINGS):
        figure, axes = _plot((width / DPI, height / DPI), '')
        density = counts / counts.sum() / np.diff(edges)
        axes.stairs(density, edges, fill=True, color=_POSITIVE, alpha=0.5, label='drawn')
        axes.axvline(np.median(found.values), color=_POSITIVE, label='median')
        if found.sampler.method == 'marginal':
            theory = 2 * (segment - edges) / segment**2
            axes.plot(edges, theory, color=_NEGATIVE, label='2 (T - dt) / T^2')
        axes.set(xlim=(0, segment), xlabel='|dt|, seconds', ylabel='density, 1/s')
        axes.legend(loc='upper right', frameon=False)
        return _pixels(figure)


def _plot(size: tuple[float, float], title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, dpi=DPI, layout='constrained', facecolor='white')
    axes = figure.add_subplot()
    axes.set_title(title, loc='left', fontweight='bold')
    axes.grid(color='#e6e6e6')
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    return figure, axes


def _pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
