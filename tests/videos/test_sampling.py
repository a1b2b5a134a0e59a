"""Sampling of views, against the distributions of the paper."""

import numpy as np
import pytest

from vito_mm.videos import place_segment, sample_offsets

T = 2.56


def draws(method: str, num_views: int, n: int = 20000, **kwargs) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([sample_offsets(num_views, T, method, rng=rng, **kwargs) for _ in range(n)])


def test_marginal_is_uniform_and_has_the_median_delay_of_the_paper():
    times = draws('marginal', 2)
    delay = np.abs(times[:, 0] - times[:, 1])
    # The density of |dt| falls linearly from dt = 0, so the median is T (1 - 1 / sqrt 2) = 0.75 s.
    assert np.median(delay) == pytest.approx(T * (1 - 1 / np.sqrt(2)), abs=0.02)
    counts, _ = np.histogram(delay, bins=8, range=(0, T))
    assert (np.diff(counts) < 0).all()
    assert times.mean() == pytest.approx(T / 2, abs=0.02)
    assert np.corrcoef(times.T)[0, 1] == pytest.approx(0, abs=0.02)


def test_delta_keeps_the_delay_and_fills_the_segment():
    times = draws('delta', 3, n=5000, delta=0.6)
    np.testing.assert_allclose(np.diff(times, axis=1), 0.6)
    assert times.min() >= 0
    assert times.max() <= T
    assert times[:, 0].max() == pytest.approx(T - 1.2, abs=0.01)


def test_delta_may_fill_the_segment_to_the_last_digit():
    assert 3 * 0.1 > 0.3  # in floats
    np.testing.assert_allclose(
        sample_offsets(4, 0.3, 'delta', delta=0.1), [0, 0.1, 0.2, 0.3], atol=1e-9
    )


def test_uniform_has_one_view_in_each_chunk():
    times = draws('uniform', 4, n=5000)
    assert (np.floor(times / (T / 4)) == np.arange(4)).all()
    np.testing.assert_allclose((times % (T / 4)).mean(axis=0), T / 8, atol=0.01)


def test_single_takes_all_views_at_one_time():
    times = draws('single', 3, n=1000)
    assert (times == times[:, :1]).all()
    assert len(np.unique(times[:, 0])) == 1000


@pytest.mark.parametrize(
    ('kwargs', 'name'),
    [
        (dict(num_views=0, segment=T), 'num_views'),
        (dict(num_views=2, segment=0.0), 'segment'),
        (dict(num_views=2, segment=T, method='random'), 'marginal'),
        (dict(num_views=2, segment=T, method='delta'), 'delta'),
        (dict(num_views=2, segment=T, delta=1.0), 'delta'),
        (dict(num_views=3, segment=T, method='delta', delta=1.3), '2.56'),
        (dict(num_views=3, segment=T, method='delta', delta=-0.1), 'delta=-0.1'),
    ],
)
def test_bad_settings_are_named(kwargs, name):
    with pytest.raises(ValueError, match=name):
        sample_offsets(**kwargs)


def test_segment_is_placed_anywhere_in_the_video():
    offsets = np.array([0.0, 1.0, T])
    np.testing.assert_allclose(place_segment(offsets, T, 0.0, 10.0), offsets)
    np.testing.assert_allclose(place_segment(offsets, T, 1.0, 10.0), offsets + 10 - T)
    np.testing.assert_allclose(place_segment(offsets, T, 0.5, 10.0), offsets + (10 - T) / 2)


def test_short_video_is_the_segment():
    offsets = np.array([0.0, T / 2, T])
    np.testing.assert_allclose(place_segment(offsets, T, 0.7, 1.0), [0, 0.5, 1.0])
