"""LARS by group against mmpretrain's, parameter by parameter."""

import pytest
import torch
from mmpretrain.engine.optimizers import LARS

from vito_mm.engine.optimizers.foreach_lars import ForeachLARS


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 2, 2), (5, 4), (6,), (3, 3)]
    values = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    values[3].zero_()  # no norm, so no layer-wise rate
    return [torch.nn.Parameter(value) for value in values]


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
def test_steps_are_those_of_mmpretrain(settings):
    both = []
    for kind in (LARS, ForeachLARS):
        params = parameters()
        groups = [
            dict(params=[params[0], params[1], params[3]]),
            dict(params=[params[2]], lars_exclude=True, weight_decay=0.0),
        ]
        optimizer = kind(groups, lr=0.5, **settings)
        generator = torch.Generator().manual_seed(1)
        for step in range(5):
            for index, param in enumerate(params):
                grad = torch.randn(param.shape, generator=generator, dtype=torch.float64)
                # One parameter has its first gradient later than the others.
                param.grad = None if index == 1 and step < 2 else grad
            optimizer.step()
        both.append((params, optimizer))
    (expected, theirs), (got, ours) = both
    for a, b in zip(expected, got, strict=True):
        torch.testing.assert_close(b, a)
        for name, value in theirs.state[a].items():
            torch.testing.assert_close(ours.state[b][name], value)
