"""The rate of every step of the shipped schedules against the formula of BYOL's code."""

import math

import pytest
import torch
from mmengine.config import Config

from tests.conftest import REPO
from vito_mm.registry import PARAM_SCHEDULERS

SCHEDULES = {
    # path: epochs or steps of warm-up, of all, and steps of an epoch
    'vito/pretrain_r50.py': (10, 300, 4),
    'vito/pretrain_r50_200e.py': (10, 200, 3),
    'miniscenes/pretrain_r50_study.py': (200, 4000, None),
}


def schedulers(path: str, epoch_length: int | None) -> tuple[torch.optim.Optimizer, list]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=4.8)
    built = []
    for settings in Config.fromfile(REPO / 'configs' / path).param_scheduler:
        length = {} if epoch_length is None else dict(epoch_length=epoch_length)
        built.append(PARAM_SCHEDULERS.build(dict(settings, optimizer=optimizer, **length)))
    return optimizer, built


def rates_of(optimizer: torch.optim.Optimizer, built: list, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in built:
            scheduler.step()
    return rates


def byol(step: int, warm_up: int, total: int, base: float = 4.8) -> float:
    if step < warm_up:
        return base * step / warm_up
    return base * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (total - warm_up)))


@pytest.mark.parametrize('path', SCHEDULES)
def test_rate_of_every_step_is_byols(path):
    warm_up, total, length = SCHEDULES[path]
    begin, end = warm_up * (length or 1), total * (length or 1)
    optimizer, built = schedulers(path, length)
    rates = rates_of(optimizer, built, end)
    assert rates[0] == 0
    assert rates[begin] == 4.8
    for step, rate in enumerate(rates):
        assert rate == pytest.approx(byol(step, begin, end), abs=1e-9), step


def test_a_resumed_schedule_goes_on_exactly():
    path, length = 'vito/pretrain_r50.py', 4
    expected = rates_of(*schedulers(path, length), 200)
    for stop in (1, 25, 40, 41, 120):  # within, at and behind the end of 40 steps of warm-up
        optimizer, built = schedulers(path, length)
        rates = rates_of(optimizer, built, stop)
        resumed, again = schedulers(path, length)
        resumed.load_state_dict(optimizer.state_dict())
        for old, new in zip(built, again, strict=True):
            new.load_state_dict(old.state_dict())
        assert rates + rates_of(resumed, again, 200 - stop) == expected
