"""Attention pooling, against a float64 computation position by position."""

import numpy as np
import pytest
import torch

from vito_mm.models import AttentionPooling, MultiScaleAttentionPooling


def test_authors_parameter_count():
    assert sum(p.numel() for p in AttentionPooling(2048).parameters()) == 16_785_408


def test_pooling_is_the_softmax_weighted_sum():
    pool = AttentionPooling(6).double()
    x = torch.randn(3, 6, 4, 5, dtype=torch.float64)
    pooled, mask = pool(x)

    weights = [p.detach().numpy() for p in pool.parameters()]
    assert [w.shape[:2] for w in weights[::2]] == [(12, 6), (6, 12), (1, 6)]
    (w1, b1, w2, b2, w3), x = weights, x.numpy()
    for n in range(3):
        logits = np.empty((4, 5))
        for row in range(4):
            for column in range(5):
                h = np.maximum(w1[:, :, 0, 0] @ x[n, :, row, column] + b1, 0)
                h = np.maximum(w2[:, :, 0, 0] @ h + b2, 0)
                logits[row, column] = (w3[:, :, 0, 0] @ h).item()
        expected = np.exp(logits) / np.exp(logits).sum()
        # The mask is computed in float32 whatever the input.
        np.testing.assert_allclose(mask[n].detach(), expected, rtol=1e-5)
        np.testing.assert_allclose(
            pooled[n].detach(), (expected * x[n]).sum(axis=(1, 2)), rtol=1e-5, atol=1e-7
        )


def test_scales_have_own_attention_and_are_concatenated():
    neck = MultiScaleAttentionPooling((4, 8))
    maps = [torch.randn(2, 4, 6, 6), torch.randn(2, 8, 3, 3)]
    (pooled,) = neck(maps)
    assert pooled.shape == (2, neck.out_channels) == (2, 12)
    for mask, x, part in zip(neck.masks(maps), maps, pooled.split((4, 8), dim=1), strict=True):
        assert mask.shape == x.shape[:1] + x.shape[2:]
        torch.testing.assert_close(mask.sum(dim=(1, 2)), torch.ones(2))
        torch.testing.assert_close((mask[:, None] * x).sum(dim=(2, 3)), part)


def test_average_of_one_scale_has_no_parameters():
    neck = MultiScaleAttentionPooling((8,), pooling='average')
    x = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(neck([x])[0], x.mean(dim=(2, 3)))
    assert not list(neck.parameters())
    torch.testing.assert_close(neck.masks([x])[0], torch.full((2, 3, 3), 1 / 9))


def test_pooling_can_differ_by_scale():
    neck = MultiScaleAttentionPooling((4, 8, 16), pooling=('average', 'attention', 'average'))
    assert neck([torch.randn(1, c, 2, 2) for c in (4, 8, 16)])[0].shape == (1, 28)
    assert all(name.startswith('scales.1.') for name, _ in neck.named_parameters())


@pytest.mark.parametrize(
    ('kwargs', 'name'),
    [
        (dict(in_channels=()), 'in_channels'),
        (dict(in_channels=(4, 8), pooling='max'), 'pooling'),
        (dict(in_channels=(4, 8), pooling=('attention',)), 'pooling'),
    ],
)
def test_bad_settings_are_named(kwargs, name):
    with pytest.raises(ValueError, match=name):
        MultiScaleAttentionPooling(**kwargs)


def test_wrong_channels_name_both_sides():
    with pytest.raises(ValueError, match=r'\(4, 9\).*\(4, 8\).*out_indices'):
        MultiScaleAttentionPooling((4, 8))([torch.randn(1, 4, 2, 2), torch.randn(1, 9, 2, 2)])
