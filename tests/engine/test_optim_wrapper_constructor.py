"""Parameters that reach the optimizer."""

import torch
from mmengine.optim import build_optim_wrapper

import vito_mm  # noqa: F401  registers the constructor


def test_trained_parameters_of_the_same_settings_share_a_group(caplog):
    model = torch.nn.ModuleDict({str(i): torch.nn.Linear(2, 2) for i in range(3)})
    model['2'].weight.requires_grad_(False)
    model['frozen'] = torch.nn.Sequential(torch.nn.Linear(2, 2)).requires_grad_(False)
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='TrainableParamsConstructor',
            optimizer=dict(type='SGD', lr=0.1, weight_decay=0.5),
            paramwise_cfg=dict(bias_decay_mult=0.0, custom_keys={'0.': dict(lr_mult=2.0)}),
        ),
    )
    groups = wrapper.optimizer.param_groups
    assert {(group['lr'], group['weight_decay']): len(group['params']) for group in groups} == {
        (0.2, 0.5): 2,
        (0.1, 0.5): 1,
        (0.1, 0.0): 2,
    }
    found = {id(param) for group in groups for param in group['params']}
    assert found == {id(param) for param in model.parameters() if param.requires_grad}
    assert 'frozen' not in caplog.text
