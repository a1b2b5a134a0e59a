"""Curves of any length and number."""

import cv2
import numpy as np
import pytest
from matplotlib.axes import Axes

from vito_mm.visualization import curves
from vito_mm.visualization.curves import Curve, draw_curves, run_colours


def width(png: bytes) -> int:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).shape[1]


def test_curves_of_any_length_and_number():
    long = (list(range(5000)), np.linspace(5, 1, 5000).tolist())
    diverged = ([1, 2, 3], [1.0, float('nan'), float('inf')])
    apart = [([1, 3], [1.0, 2.0]), ([2, 4], [1.0, 2.0])]  # seeds without a common step
    curves = [Curve('$a_', 'red', [long, long]), Curve('_b', 'blue', [diverged])]
    panels = {'one': curves, 'two': [Curve('a', 'red', apart)], 'three': []}
    assert width(draw_curves(panels)) > width(draw_curves({'one': curves[1:]})) > 400


@pytest.fixture
def drawn(monkeypatch) -> list[Axes]:
    """Plots of the figures that are drawn."""
    plots, to_png = [], curves.to_png

    def keep(figure):
        plots.extend(figure.axes)
        return to_png(figure)

    monkeypatch.setattr(curves, 'to_png', keep)
    return plots


def lines(plot: Axes) -> list[tuple[list, list, str, float]]:
    return [
        (line.get_xdata().tolist(), line.get_ydata().tolist(), line.get_color(), line.get_lw())
        for line in plot.lines
    ]


def test_seeds_are_thin_and_their_mean_over_common_steps_is_bold(drawn):
    seeds = [([1, 2, 4], [1.0, 5.0, 3.0]), ([1, 4], [2.0, 9.0])]
    draw_curves({'many': [Curve('a', 'red', seeds)], 'one': [Curve('b', 'blue', seeds[:1])]})
    first, second, mean = lines(drawn[0])
    assert [first[:3], second[:3]] == [(steps, values, 'red') for steps, values in seeds]
    assert mean[:3] == ([1, 4], [1.5, 6.0], 'red')
    assert mean[3] > first[3] == second[3]
    ((*alone, width),) = lines(drawn[1])
    assert alone == [*seeds[0], 'blue']
    assert width > first[3]


@pytest.mark.parametrize(('length', 'group'), [(200, 1), (201, 2), (1000, 5), (1003, 6)])
def test_long_curves_are_averaged_over_neighbours(drawn, length, group):
    steps, values = np.arange(length) * 10, np.random.default_rng(0).random(length)
    draw_curves({'': [Curve('a', 'red', [(steps.tolist(), values.tolist())])]})
    ((found_steps, found_values, *_),) = lines(drawn[0])
    starts = range(0, length, group)
    assert len(found_steps) == len(starts) <= curves.POINTS_PER_CURVE
    for found, expected in ((found_steps, steps), (found_values, values)):
        means = [expected[start : start + group].mean() for start in starts]
        np.testing.assert_allclose(found, means)


def test_logarithmic_steps_are_marked(drawn):
    seeds = [[([1, 10], [0.0, 1.0])], [([10, 300], [0.5, 0.7])]]
    panels = {'a': [Curve(name, 'red', seed) for name, seed in zip('ab', seeds, strict=True)]}
    draw_curves(panels, log_steps=True)
    assert drawn[0].get_xscale() == 'log'
    assert drawn[0].get_xticks().tolist() == [1, 10, 300]
    assert [label.get_text() for label in drawn[0].get_xticklabels()] == ['1', '10', '300']
    draw_curves(panels)
    assert drawn[1].get_xscale() == 'linear'


def test_random_weights_are_grey_and_others_differ():
    colours = run_colours(['random', 'a', 'b', 'a'])
    assert set(colours) == {'random', 'a', 'b'}
    assert len(set(colours.values())) == 3
    assert run_colours(['a', 'b'])['a'] == colours['a']
