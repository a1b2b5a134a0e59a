"""LARS by group against BYOL's formulas in NumPy, and against mmpretrain's implementation."""

import copy

import numpy as np
import pytest
import torch
from mmpretrain.engine.optimizers import LARS

from vito_mm.engine.optimizers.foreach_lars import ForeachLARS
from vito_mm.engine.skip_non_finite_optim_wrapper import SkipNonFiniteOptimWrapper

SHAPES = [(4, 3, 2, 2), (5, 4), (6,), (3, 3)]
EXCLUDED = 2
NO_NORM = 3
"""Begins with weights of zero, so it has no layer-wise rate at first."""


def parameters(dtype: torch.dtype = torch.float64) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    values[NO_NORM].zero_()
    return [torch.nn.Parameter(value.to(dtype)) for value in values]


def groups(params: list[torch.nn.Parameter]) -> list[dict]:
    return [
        dict(params=[p for index, p in enumerate(params) if index != EXCLUDED]),
        dict(params=[params[EXCLUDED]], lars_exclude=True, weight_decay=0.0),
    ]


def gradients(steps: int) -> list[list[np.ndarray]]:
    """Of each step and parameter; the second parameter has none at all in the third step."""
    rng = np.random.default_rng(1)
    grads = [[rng.normal(size=shape) for shape in SHAPES] for _ in range(steps)]
    grads[2][1] *= 0
    return grads


def byol_lars(rates: list[float], momentum: float, decay: float, eta: float) -> list[np.ndarray]:
    """Decay, trust ratio, trace, and then the rate: the chain of BYOL's optimizer."""
    weights = [param.detach().numpy().copy() for param in parameters()]
    traces = [np.zeros_like(w) for w in weights]
    for rate, grads in zip(rates, gradients(len(rates)), strict=True):
        for index, (w, g) in enumerate(zip(weights, grads, strict=True)):
            if index == EXCLUDED:
                update = g
            else:
                update = g + decay * w
                norms = np.linalg.norm(w.ravel()), np.linalg.norm(update.ravel())
                if min(norms) > 0:
                    update = update * eta * norms[0] / norms[1]
            traces[index] = momentum * traces[index] + update
            weights[index] = w - rate * traces[index]
    return weights


def run(kind: type, rates: list[float], dtype: torch.dtype = torch.float64, **settings) -> tuple:
    params = parameters(dtype)
    optimizer = kind(groups(params), lr=0.1, **settings)
    for rate, grads in zip(rates, gradients(len(rates)), strict=True):
        for group in optimizer.param_groups:
            group['lr'] = rate
        for param, grad in zip(params, grads, strict=True):
            param.grad = torch.from_numpy(grad).to(dtype)
        optimizer.step()
    return params, optimizer


SCHEDULES = {
    'constant': [0.5] * 12,
    'warm-up': [0.05 * step for step in range(12)],
    'to zero': [0.5 * (1 - step / 11) for step in range(12)],
}


@pytest.mark.parametrize('rates', SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(
    'settings',
    [
        dict(momentum=0.9, weight_decay=1e-2, eta=1e-3),
        dict(momentum=0.0, weight_decay=0.1, eta=0.02),
        dict(momentum=0.8, weight_decay=0.0, eta=0.5),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str
)
def test_steps_are_those_of_byol(dtype, tolerance, settings, rates):
    decay = settings['weight_decay']
    expected = byol_lars(rates, settings['momentum'], decay, settings['eta'])
    params, _ = run(ForeachLARS, rates, dtype, **settings)
    for got, wanted in zip(params, expected, strict=True):
        np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('rates', SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(
    'settings',
    [
        dict(momentum=0.9, weight_decay=1e-2),
        dict(momentum=0.9, weight_decay=1e-2, nesterov=True),
        dict(momentum=0.8, dampening=0.3),
        dict(momentum=0.0, weight_decay=0.1, eta=0.02),
    ],
    ids=str,
)
def test_steps_of_the_other_formula_are_those_of_mmpretrain(settings, rates):
    expected, theirs = run(LARS, rates, **settings)
    got, ours = run(ForeachLARS, rates, formula='mmpretrain', **settings)
    for a, b in zip(expected, got, strict=True):
        torch.testing.assert_close(b, a)
        for name, value in theirs.state[a].items():
            torch.testing.assert_close(ours.state[b][name], value)


@pytest.mark.parametrize('formula', ['byol', 'mmpretrain'])
def test_a_parameter_may_have_its_first_gradient_later(formula):
    """Its momentum begins with that gradient; the others go on."""
    both = []
    for split in (False, True):
        params = parameters()[:2]
        make = [params] if not split else [[params[0]], [params[1]]]
        optimizers = [
            ForeachLARS(part, lr=0.5, momentum=0.9, weight_decay=1e-2, formula=formula)
            for part in make
        ]
        for step, grads in enumerate(gradients(5)):
            for index, param in enumerate(params):
                late = index == 1 and step < 2
                param.grad = None if late else torch.from_numpy(grads[index])
            for optimizer in optimizers:
                optimizer.step()
        both.append(params)
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize('formula', ['byol', 'mmpretrain'])
def test_a_resumed_optimizer_goes_on_exactly(formula):
    rates = SCHEDULES['to zero']
    settings = dict(momentum=0.9, weight_decay=1e-2, formula=formula)
    expected, _ = run(ForeachLARS, rates, **settings)
    params, optimizer = run(ForeachLARS, rates[:6], **settings)
    saved = copy.deepcopy(optimizer.state_dict())
    resumed = [torch.nn.Parameter(param.detach().clone()) for param in params]
    wrapper = SkipNonFiniteOptimWrapper(ForeachLARS(groups(resumed), lr=0.1, **settings))
    wrapper.load_state_dict(saved)
    for rate, grads in zip(rates[6:], gradients(len(rates))[6:], strict=True):
        for group in wrapper.param_groups:
            group['lr'] = rate
        for param, grad in zip(resumed, grads, strict=True):
            param.grad = torch.from_numpy(grad)
        wrapper.optimizer.step()
    for got, wanted in zip(resumed, expected, strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize('kind', [LARS, ForeachLARS], ids=['0.1.0', '0.2.0'])
def test_momenta_of_the_other_formula_are_not_resumed(kind):
    """A checkpoint of vito_mm 0.1.0 does not name its formula, which is mmpretrain's."""
    settings = dict(formula='mmpretrain') if kind is ForeachLARS else {}
    _, optimizer = run(kind, [0.1] * 3, momentum=0.9, **settings)
    saved = optimizer.state_dict()
    fresh = SkipNonFiniteOptimWrapper(ForeachLARS(groups(parameters()), lr=0.1, momentum=0.9))
    with pytest.raises(ValueError, match=r"optim_wrapper\.optimizer\.formula='mmpretrain'"):
        fresh.load_state_dict(saved)
    assert not fresh.optimizer.state
    same = ForeachLARS(groups(parameters()), lr=0.1, momentum=0.9, formula='mmpretrain')
    same.load_state_dict(saved)
    assert len(same.state) == len(SHAPES)


def test_a_formula_is_one_of_two():
    with pytest.raises(ValueError, match='formula'):
        ForeachLARS(parameters(), lr=0.1, formula='optax')
