"""Linear classification, against Newton's method and what is known beforehand."""

import numpy as np
import pytest
import torch

from vito_mm.probes import linear_classifier
from vito_mm.probes.linear_classifier import (
    STRENGTHS,
    fit_linear_classifier,
    linear_accuracy,
)


def newton(features, labels, num_classes, strength):
    """Multinomial logistic regression of standardised features by Newton's method in NumPy."""
    count, size = features.shape[0], features.shape[1] + 1
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    x = np.hstack([x, np.ones((count, 1))])
    y = np.eye(num_classes)[labels]
    penalty = np.full((num_classes, size), strength)
    penalty[:, -1] = 0
    weights = np.zeros((num_classes, size))
    for _ in range(50):
        scores = x @ weights.T
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        gradient = (p - y).T @ x / count + penalty * weights
        curvature = np.einsum('nk,kl,ni,nj->kilj', p, np.eye(num_classes), x, x)
        curvature -= np.einsum('nk,nl,ni,nj->kilj', p, p, x, x)
        hessian = (curvature / count).reshape(num_classes * size, -1) + np.diag(penalty.ravel())
        # The same bias for all classes changes nothing: the Hessian has that null space.
        step = np.linalg.lstsq(hessian, gradient.ravel(), rcond=1e-12)[0]
        weights -= step.reshape(weights.shape)
    assert np.abs(gradient).max() < 1e-12
    return x @ weights.T, weights


@pytest.fixture(scope='module')
def clouds():
    """Features of four overlapping classes, of unlike scales and centres; labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 150)
    features = rng.normal(size=(4, 5))[labels] + rng.normal(size=(150, 5))
    return (features * [1, 10, 0.1, 1, 3] + [0, 5, -2, 100, 0]).astype(np.float32), labels


@pytest.mark.parametrize('strength', [1.0, 0.01, 1e-4])
@pytest.mark.parametrize('rows', [16384, 64])
def test_optimum_is_newtons(clouds, strength, rows, monkeypatch):
    monkeypatch.setattr(linear_classifier, '_ROWS', rows)
    features, labels = clouds
    scores, weights = newton(features.astype(np.float64), labels, 4, strength)
    found = fit_linear_classifier(torch.tensor(features), torch.tensor(labels), 4, strength)
    np.testing.assert_allclose(found.weights[:, :-1], weights[:, :-1], atol=2e-3)
    probability = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        found.logits(torch.tensor(features)).softmax(dim=1), probability, atol=1e-4
    )
    assert found.gradient < 1e-6


def test_two_images_have_a_closed_form():
    """x = -1 and x = 1: by symmetry one number w, with w * strength = 1 / (1 + exp(2 w))."""
    strength = 0.1
    found = fit_linear_classifier(torch.tensor([[3.0], [7.0]]), torch.tensor([0, 1]), 2, strength)
    w = found.weights[1, 0].item()
    assert found.weights[0, 0].item() == pytest.approx(-w)
    assert w * strength == pytest.approx(1 / (1 + np.exp(2 * w)), abs=1e-5)
    assert found.weights[:, 1].tolist() == pytest.approx([0, 0], abs=1e-5)


def test_scale_and_shift_of_features_change_nothing(clouds):
    features, labels = (torch.tensor(part) for part in clouds)
    parts = (features[:100], labels[:100], features[100:], labels[100:])
    plain = linear_accuracy(*parts)
    scale, shift = torch.tensor([1e-4, 1e3, 8, 1, 0.5]), torch.tensor([0, 1e2, 1, -3, 0])
    moved = linear_accuracy(parts[0] * scale + shift, parts[1], parts[2] * scale + shift, parts[3])
    assert moved == plain
    assert plain.top1 > 50
    assert plain.top5 is None  # four classes
    assert plain.strength in STRENGTHS


def test_constant_and_dead_features_are_harmless(clouds):
    features, labels = (torch.tensor(part) for part in clouds)
    more = torch.cat([features, torch.zeros(150, 1), torch.full((150, 1), 0.1)], dim=1)
    found = fit_linear_classifier(more, labels, 4, 0.01)
    expected = fit_linear_classifier(features, labels, 4, 0.01)
    torch.testing.assert_close(found.logits(more), expected.logits(features), atol=1e-3, rtol=0)


def test_strength_is_chosen_without_the_test_images():
    """Noise in many features: a weak penalty fits the noise, which held-out images show."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2).repeat(60)
    features = torch.randn(120, 300, generator=generator)
    features[:, :20] += 0.6 * labels[:, None]
    parts = (features[:80], labels[:80], features[80:], labels[80:])
    chosen = linear_accuracy(*parts, strengths=(10.0, 1.0, 1e-6))
    assert chosen.held_out[chosen.strength] == max(chosen.held_out.values())
    flipped = linear_accuracy(*parts[:3], 1 - parts[3], strengths=(10.0, 1.0, 1e-6))
    assert (flipped.strength, flipped.held_out) == (chosen.strength, chosen.held_out)
    assert flipped.top1 == pytest.approx(100 - chosen.top1)
    assert linear_accuracy(*parts, strengths=(10.0, 1.0, 1e-6)) == chosen
    other = linear_accuracy(*parts, strengths=(10.0, 1.0, 1e-6), seed=1)
    assert other.held_out != chosen.held_out


def test_top5_is_the_share_among_the_five_best():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(7).repeat(20)
    features = torch.randn(7, 3, generator=generator)[labels]
    features = features + 2 * torch.randn(140, 3, generator=generator)
    parts = (features[:70], labels[:70], features[70:], labels[70:])
    result = linear_accuracy(*parts)
    logits = fit_linear_classifier(*parts[:2], 7, result.strength).logits(parts[2]).numpy()
    best = np.argsort(-logits, axis=1)[:, :5]
    inside = [label in row for label, row in zip(labels[70:].tolist(), best, strict=True)]
    assert result.top5 == pytest.approx(100 * np.mean(inside))
    assert result.top1 < result.top5 < 100


def test_one_image_a_class_leaves_nothing_to_choose_with():
    result = linear_accuracy(torch.eye(3), torch.arange(3), torch.eye(3), torch.arange(3))
    assert (result.top1, result.strength, result.held_out) == (100, STRENGTHS[0], {})


def test_too_few_iterations_are_told(clouds, monkeypatch):
    told = []
    monkeypatch.setattr(linear_classifier, 'print_log', lambda text, *_: told.append(text))
    features, labels = (torch.tensor(part) for part in clouds)
    fit_linear_classifier(features, labels, 4, 1e-4)
    assert told == []
    found = fit_linear_classifier(features, labels, 4, 1e-4, max_iter=2)
    assert found.gradient > 1e-5
    assert 'after 2 iterations at L2 strength 0.0001' in told[0]
