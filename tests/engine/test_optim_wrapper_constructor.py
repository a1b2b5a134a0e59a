"""Parameters that reach the optimizer."""

import pytest
import torch
from mmdet.models.backbones import HRNet
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.models.backbones import ResNet
from torch import nn

import vito_mm  # noqa: F401  registers the constructor
from tests.helpers.backbones import NARROW_HRNET


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


def rates_of(model: nn.Module, decay: float) -> dict[str, float]:
    """Learning rate of each parameter, with a constant one of 1 for the whole model."""
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='TrainableParamsConstructor',
            optimizer=dict(type='SGD', lr=1.0),
            paramwise_cfg=dict(layer_decay_rate=decay, custom_keys={'head': dict(lr_mult=10.0)}),
        ),
    )
    rates = {
        id(param): group['lr']
        for group in wrapper.optimizer.param_groups
        for param in group['params']
    }
    return {name: rates[id(param)] for name, param in model.named_parameters()}


def test_rates_fall_towards_the_stem():
    """Seven layers of ResNet-50 and the head: mmpretrain's count, written out."""
    model = nn.ModuleDict(dict(backbone=ResNet(50, base_channels=16), head=nn.Linear(2, 2)))
    rates = rates_of(model, 0.5)
    assert rates['head.weight'] == 10
    expected = {
        'layer4.2.conv1': 1,
        'layer4.0.conv1': 1,
        'layer3.3.conv1': 2,
        'layer3.2.conv1': 3,
        'layer2.2.conv1': 4,
        'layer2.1.conv1': 5,
        'layer1.0.conv1': 6,
        'conv1': 7,
    }
    assert {n: rates[f'backbone.{n}.weight'] for n in expected} == {
        name: 0.5**power for name, power in expected.items()
    }
    assert set(rates_of(model, 1.0).values()) == {1.0, 10.0}


def test_a_backbone_whose_layers_nobody_counts_is_named():
    model = nn.ModuleDict(dict(backbone=nn.Sequential(nn.Linear(2, 2))))
    with pytest.raises(ValueError, match=r'layer_decay_rate.*Sequential'):
        rates_of(model, 0.5)


def test_parts_between_the_layers_are_no_head():
    """HRNet's transitions, and the stages that follow them, have no names of blocks."""
    model = nn.ModuleDict(dict(backbone=HRNet(NARROW_HRNET), head=nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r'layer_decay_rate.*HRNet.*transition1'):
        rates_of(model, 0.5)
    assert set(rates_of(model, 1.0).values()) == {1.0, 10.0}


SWIN = dict(embed_dims=16, depths=(2, 2, 3, 2), num_heads=(1, 1, 1, 1), out_indices=(3,))
VIT = dict(img_size=32, embed_dims=16, num_layers=3, num_heads=1, out_indices=2, final_norm=True)


@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
@pytest.mark.parametrize(
    ('backbone', 'powers'),
    [
        # Four stages of any ResNet, and its stem.
        (
            dict(type='ResNet', depth=18, base_channels=16),
            {
                'conv1.weight': 5,
                'bn1.bias': 5,
                'layer1.1.conv2.weight': 4,
                'layer4.0.bn1.weight': 1,
            },
        ),
        # Nine blocks; downsampling is of the last block before it.
        (
            dict(type='SwinTransformer', **SWIN),
            {
                'patch_embed.projection.weight': 10,
                'stages.0.blocks.0.norm1.weight': 9,
                'stages.0.downsample.reduction.weight': 8,
                'stages.2.blocks.2.attn.w_msa.relative_position_bias_table': 3,
                'stages.3.blocks.1.ffn.layers.1.bias': 1,
                'norm3.weight': 0,
            },
        ),
        (
            dict(type='VisionTransformer', **VIT),
            {'pos_embed': 4, 'cls_token': 4, 'layers.0.ln1.weight': 3, 'layers.2.ln1.bias': 1},
        ),
    ],
    ids=['ResNet', 'Swin', 'ViT'],
)
def test_layers_of_other_libraries_are_counted(package, backbone, powers):
    if package == 'mmdet' and backbone['type'] == 'VisionTransformer':
        pytest.skip('mmdet has none')
    with DefaultScope.overwrite_default_scope(package):
        model = nn.ModuleDict(dict(backbone=MODELS.build(backbone), head=nn.Linear(2, 2)))
    rates = rates_of(model, 0.5)
    assert rates['head.weight'] == 10
    found = {name: rates[f'backbone.{name}'] for name in powers}
    assert found == {name: 0.5**power for name, power in powers.items()}
