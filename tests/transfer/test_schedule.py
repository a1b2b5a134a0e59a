"""Schedules under gradient accumulation."""

import torch
from mmengine.config import Config
from mmengine.optim import ExponentialLR, LinearLR, MultiStepLR
from mmengine.registry import PARAM_SCHEDULERS

from vito_mm.launch import parse_options
from vito_mm.transfer.options import setting_words
from vito_mm.transfer.schedule import stretched_schedule

COUNT = 4


def config(schedulers: list | dict, count: int = COUNT) -> Config:
    return Config(dict(param_scheduler=schedulers, optim_wrapper=dict(accumulative_counts=count)))


def stretched(*schedulers: dict) -> dict:
    cfg = config(list(schedulers))
    cfg.merge_from_dict(parse_options(setting_words(stretched_schedule(cfg))))
    return cfg.to_dict()['param_scheduler']


def test_only_what_is_counted_in_iterations_is_stretched():
    epochs = dict(
        type='CosineAnnealingLR',
        begin=0,
        end=30,
        T_max=30,
        by_epoch=True,
        convert_to_iter_based=True,
    )
    steps = dict(type='MultiStepLR', milestones=[8, 11], gamma=0.1)
    warm_up = dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500)
    cosine = dict(type='CosineAnnealingLR', eta_min=0.0, begin=15, T_max=135, by_epoch=False)
    assert stretched(epochs, warm_up, steps, cosine) == [
        epochs,
        dict(warm_up, end=2000),
        steps,
        dict(cosine, begin=60, T_max=540),
    ]
    assert stretched_schedule(config(warm_up, 2)) == {'param_scheduler.end': '1000'}
    assert stretched_schedule(config(warm_up, 1)) == {}
    assert stretched_schedule(Config(dict(model=dict()))) == {}


def rates(schedulers: list[dict], count: int) -> list[float]:
    """Rate of each step of the optimizer, the schedulers stepped as MMEngine's hook does."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    built = [PARAM_SCHEDULERS.build(dict(each, optimizer=optimizer)) for each in schedulers]
    found = []
    for i in range(40 * count):
        if i % count == 0:
            found.append(optimizer.param_groups[0]['lr'])
        for each in built:
            each.step()
    return found


def test_the_steps_of_the_optimizer_have_the_rates_that_they_had():
    kinds = [
        dict(type=MultiStepLR, milestones=[3, 20], gamma=0.1, by_epoch=False),
        dict(type=ExponentialLR, gamma=0.9, by_epoch=False, begin=4),
    ]
    for kind in kinds:
        expected = torch.tensor(rates([kind], 1))
        assert len(expected.unique()) > 2
        torch.testing.assert_close(torch.tensor(rates(stretched(kind), COUNT)), expected)
    # Between the steps the rate goes on, which in the end is a fraction of a step.
    ramp = dict(type=LinearLR, start_factor=0.1, by_epoch=False, begin=0, end=20)
    difference = torch.tensor(rates(stretched(ramp), COUNT)) - torch.tensor(rates([ramp], 1))
    assert difference.abs().max() < 0.9 / 19
