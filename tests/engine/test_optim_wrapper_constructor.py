"""Which parameters reach the optimizer."""

import torch
from mmengine.optim import build_optim_wrapper

import vito_mm  # noqa: F401  registers the constructor


def test_modules_without_trained_parameters_are_left_out(caplog):
    model = torch.nn.ModuleDict(
        dict(
            trained=torch.nn.Linear(2, 2),
            frozen=torch.nn.Sequential(torch.nn.Linear(2, 2)).requires_grad_(False),
        )
    )
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='TrainableParamsConstructor',
            optimizer=dict(type='SGD', lr=0.1, weight_decay=0.5),
            paramwise_cfg=dict(bias_decay_mult=0.0),
        ),
    )
    seen = {id(p) for group in wrapper.optimizer.param_groups for p in group['params']}
    assert seen == {id(p) for p in model['trained'].parameters()}
    assert 'frozen' not in caplog.text


def test_parameters_of_the_same_settings_share_a_group():
    model = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(3)))
    model[2].weight.requires_grad_(False)
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='TrainableParamsConstructor',
            optimizer=dict(type='SGD', lr=0.1, weight_decay=0.5),
            paramwise_cfg=dict(bias_decay_mult=0.0, custom_keys={'0.': dict(lr_mult=2.0)}),
        ),
    )
    groups = {
        (group['lr'], group['weight_decay']): len(group['params'])
        for group in wrapper.optimizer.param_groups
    }
    assert groups == {(0.2, 0.5): 2, (0.1, 0.5): 1, (0.1, 0.0): 2}
