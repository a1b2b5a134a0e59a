"""Curves of any length and number."""

import cv2
import numpy as np

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


def test_random_weights_are_grey_and_others_differ():
    colours = run_colours(['random', 'a', 'b', 'a'])
    assert set(colours) == {'random', 'a', 'b'}
    assert len(set(colours.values())) == 3
    assert run_colours(['a', 'b'])['a'] == colours['a']
