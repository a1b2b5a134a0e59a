"""Numbers and colours of attention masks."""

import numpy as np
import pytest

from vito_mm.visualization.attention import LIMIT, entropy, overlay, scale_bar, top_share

FRAME = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def random_mask(*shape: int, seed: int = 0) -> np.ndarray:
    weights = np.exp(3 * np.random.default_rng(seed).standard_normal(shape))
    return (weights / weights.sum()).astype(np.float32)


def uniform_mask(*shape: int) -> np.ndarray:
    return np.full(shape, 1 / np.prod(shape), np.float32)


@pytest.mark.parametrize('shape', [(14, 14), (7, 7), (2, 2), (1, 1), (3, 5)])
def test_a_uniform_mask_has_the_numbers_of_one_at_any_size(shape):
    assert top_share(uniform_mask(*shape)) == pytest.approx(0.1, abs=1e-6)
    assert entropy(uniform_mask(*shape)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize('shape', [(14, 14), (7, 7), (2, 2)])
def test_numbers_are_those_of_the_mask_seen_as_a_picture(shape):
    """Each position repeated 10 x 10 times, so that 10 % of the area are whole pixels."""
    mask = random_mask(*shape)
    pixels = np.sort(np.kron(mask.astype(np.float64) / 100, np.ones((10, 10))).ravel())
    assert top_share(mask) == pytest.approx(pixels[-len(pixels) // 10 :].sum(), abs=1e-6)
    bits = sum(-p * np.log2(p) for p in mask.astype(np.float64).ravel())
    assert entropy(mask) == pytest.approx(bits / np.log2(mask.size), abs=1e-6)


def test_all_attention_in_one_place():
    mask = np.zeros((10, 10), np.float32)
    mask[3, 4] = 1
    assert top_share(mask) == 1
    assert entropy(mask) == 0


def test_under_a_uniform_mask_the_frame_is_plain_grey():
    shown = overlay(FRAME, uniform_mask(4, 4)).astype(int)
    assert np.ptp(shown, axis=2).max() == 0
    grey = FRAME @ np.array([0.299, 0.587, 0.114])
    assert np.corrcoef(grey.ravel(), shown[..., 0].ravel())[0, 1] > 0.999


def test_a_mask_that_is_nearly_uniform_is_not_stretched():
    ripple = 1 + 0.02 * np.sign(np.random.default_rng(0).standard_normal((4, 4)))
    shown = overlay(FRAME, ripple / ripple.sum()).astype(int)
    plain = overlay(FRAME, uniform_mask(4, 4)).astype(int)
    assert np.abs(shown - plain).max() < 20


def test_the_attended_place_glows_and_the_others_darken():
    mask = np.full((4, 4), 0.1 / 15, np.float32)
    mask[1, 2] = 0.9
    frame = np.full((64, 64, 3), 128, np.uint8)
    shown = overlay(frame, mask).astype(int)
    plain = overlay(frame, uniform_mask(4, 4)).astype(int)
    inside, outside = (slice(22, 26), slice(38, 42)), (slice(50, 60), slice(4, 14))
    assert (shown[inside][..., 0] > plain[inside][..., 0] + 60).all()
    assert (shown[inside][..., 0] > shown[inside][..., 2] + 40).all()  # warm
    assert (shown[outside] < plain[outside] - 20).all()


def test_one_multiple_has_one_colour_in_masks_of_any_size_and_peak():
    frame = np.full((64, 64, 3), 128, np.uint8)
    colours = []
    for size in (4, 8):
        mask = np.full((size, size), 1.0)
        mask[:, size // 2 :] = 3.0  # 1.5 times uniform on the right
        colours.append(overlay(frame, mask / mask.sum())[32, 60])
    mask = np.full((8, 8), 1.5)
    mask[:, :4] = 0.1
    mask[0, 0] += 64 - mask.sum()
    colours.append(overlay(frame, mask / 64)[32, 60])
    assert np.abs(np.diff(np.array(colours, int), axis=0)).max() <= 2


def test_brightness_rises_along_the_scale():
    bar = scale_bar(201, 3).astype(float) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(bar[1]) > -1).all()  # but for rounding
    assert bar[1, 0] < 40 < 200 < bar[1, -1]
    assert np.ptp(scale_bar(201, 3)[1, 100]) == 0  # uniform in the middle
    assert LIMIT > 1


def test_weights_of_zero_and_no_numbers_can_be_drawn():
    mask = np.zeros((2, 2), np.float32)
    mask[0, 0] = 1
    assert overlay(FRAME, mask).shape == FRAME.shape
    broken = np.full((2, 2), np.nan, np.float32)
    assert (overlay(FRAME, broken) == overlay(FRAME, uniform_mask(2, 2))).all()
    assert np.isnan(entropy(broken))
    assert np.isnan(top_share(broken))
