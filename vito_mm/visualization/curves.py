"""Training curves of several runs, next to each other."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vito_mm.utils.quiet import ignored_warnings

POINTS_PER_CURVE = 200
"""Longer curves are averaged over neighbouring points."""

RUN_COLOURS = (
    *('#d62728', '#0072b2', '#009e73', '#e69f00', '#cc79a7', '#56b4e9', '#8c564b', '#000000'),
    *('#9467bd', '#bcbd22', '#17becf', '#800000'),
)
RANDOM_COLOUR = '#7f7f7f'
SETTINGS = {'text.parse_math': False, 'font.size': 9}
DPI = 110


@dataclass(frozen=True)
class Curve:
    """One line of a plot: thin seeds, each with its steps and values, and their bold mean."""

    label: str
    colour: str
    seeds: Sequence[tuple[Sequence[float], Sequence[float]]]


def run_colours(labels: Sequence[str]) -> dict[str, str]:
    """Assign a colour to each checkpoint by its label, grey to ``'random'``."""
    others = [label for label in dict.fromkeys(labels) if label != 'random']
    colours = {label: RUN_COLOURS[i % len(RUN_COLOURS)] for i, label in enumerate(others)}
    return {'random': RANDOM_COLOUR, **colours}


def draw_curves(
    panels: Mapping[str, Sequence[Curve]], xlabel: str = 'step', log_steps: bool = False
) -> bytes:
    """Draw plots, by title, next to each other with one legend, at most four in a row; a PNG.

    ``log_steps`` gives the horizontal axis a logarithmic scale, with a mark at each step.
    """
    across = min(4, len(panels))
    down = -(-len(panels) // across)
    size = (max(5.0, 3.1 * across) if across < 3 else 2.9 * across, 2.7 * down + 0.3)
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout='constrained')
        axes = figure.subplots(down, across, squeeze=False).flatten()
        for axis, (title, curves) in zip(axes, panels.items(), strict=False):
            for curve in curves:
                _draw_curve(axis, curve)
            axis.set(title=title, xlabel=xlabel)
            if log_steps:
                steps = sorted(
                    {step for curve in curves for seed in curve.seeds for step in seed[0]}
                )
                axis.set_xscale('log')
                axis.set_xticks(steps, [f'{step:g}' for step in steps])
                axis.minorticks_off()
            lowest, highest = axis.dataLim.intervaly
            if lowest < highest / 2:  # values that are all high keep an axis that separates them
                axis.set_ylim(bottom=min(0, lowest))
            axis.grid(color='#e6e6e6')
            axis.spines[['top', 'right']].set_visible(False)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        colours = {curve.label: curve.colour for curves in panels.values() for curve in curves}
        if len(colours) > 1:
            _add_legend(figure, colours, columns=2 * across)
        return to_png(figure)


def to_png(figure: Figure) -> bytes:
    """Render a figure as a PNG."""
    buffer = io.BytesIO()
    with ignored_warnings():  # labels may have letters that no font has
        figure.savefig(buffer, format='png', dpi=DPI, bbox_inches='tight', pad_inches=0.05)
    return buffer.getvalue()


def _add_legend(figure: Figure, colours: Mapping[str, str], columns: int) -> None:
    rows = -(-len(colours) // columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * rows + 0.1)
    figure.legend(
        [Line2D([], [], color=colour, lw=2) for colour in colours.values()],
        # matplotlib omits names that begin with an underscore.
        [f' {name}' if name.startswith('_') else name for name in colours],
        loc='outside lower center',
        ncols=-(-len(colours) // rows),
        frameon=False,
        fontsize=8,
    )


def _draw_curve(axis: Any, curve: Curve) -> None:
    several = len(curve.seeds) > 1
    for steps, values in curve.seeds:
        width, alpha = (0.7, 0.45) if several else (1.8, 1.0)
        _plot(axis, steps, values, curve.colour, lw=width, alpha=alpha)
    if several:
        by_step = [dict(zip(*seed, strict=True)) for seed in curve.seeds]
        common = sorted(set.intersection(*(set(seed) for seed in by_step)))
        means = [np.mean([seed[step] for seed in by_step]) for step in common]
        _plot(axis, common, means, curve.colour, lw=2.0)


def _plot(axis: Any, steps: Sequence, values: Sequence, colour: str, **style: float) -> None:
    if len(steps) == 0:
        return
    group = -(-len(steps) // POINTS_PER_CURVE)
    starts = np.arange(0, len(steps), group)
    counts = np.diff([*starts, len(steps)])
    steps, values = (
        np.add.reduceat(np.asarray(x, float), starts) / counts for x in (steps, values)
    )
    marker = 'o' if len(steps) < 15 else None
    axis.plot(steps, values, color=colour, marker=marker, markersize=3, **style)
