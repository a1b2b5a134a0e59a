"""The algorithm: target network, what a checkpoint holds, what the optimizer sees."""

import math

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from tests.conftest import REPO
from vito_mm.registry import HOOKS, MODELS

NORM = dict(type='BN')


def config(**changes) -> dict:
    """VITO with the smallest ResNet that mmpretrain offers."""
    base = dict(
        type='VITO',
        backbone=dict(
            type='ResNet',
            depth=18,
            stem_channels=16,
            base_channels=16,
            out_indices=(2, 3),
            norm_cfg=NORM,
        ),
        neck=dict(type='MultiScaleAttentionPooling', in_channels=(64, 128)),
        projector=dict(
            type='NonLinearNeck',
            in_channels=192,
            hid_channels=16,
            out_channels=8,
            with_bias=True,
            with_last_bn=False,
            with_avg_pool=False,
            norm_cfg=dict(type='BN1d'),
        ),
        head=dict(type='InfoNCEHead'),
    )
    return Config(base | changes).to_dict()


@pytest.fixture
def vito():
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(config())
    model.init_weights()
    return model


def views(num_views: int = 3, n: int = 4) -> list[torch.Tensor]:
    return [torch.randn(n, 3, 32, 32) for _ in range(num_views)]


def test_target_starts_as_the_initialised_online_network(vito):
    vito.start_target()
    online = torch.nn.Sequential(vito.backbone, vito.neck, vito.projector).state_dict()
    target = vito.target_net.module.state_dict()
    assert online.keys() == target.keys()
    assert all(torch.equal(online[key], target[key]) for key in online)
    # A resumed run calls it again and must keep the target that the checkpoint brought.
    with torch.no_grad():
        vito.backbone.conv1.weight += 1
    vito.start_target()
    assert torch.equal(vito.target_net.module[0].conv1.weight + 1, vito.backbone.conv1.weight)


def test_target_follows_the_cosine_of_the_paper(vito):
    steps, base = 4, 0.99
    vito.start_target()
    expected = vito.backbone.conv1.weight.detach().double().clone()
    for step in range(1, steps + 1):
        with torch.no_grad():
            vito.backbone.conv1.weight.copy_(torch.randn_like(vito.backbone.conv1.weight))
        vito.update_target(step / steps)
        momentum = 1 - (1 - base) * (math.cos(math.pi * step / steps) + 1) / 2
        expected = momentum * expected + (1 - momentum) * vito.backbone.conv1.weight.double()
        torch.testing.assert_close(
            vito.target_net.module[0].conv1.weight.double(), expected, rtol=1e-5, atol=1e-7
        )


class Counted:
    """Running statistics of a batch norm in float64, from what passes through it in training."""

    def __init__(self, norm: torch.nn.Module) -> None:
        self.norm, self.passes = norm, 0
        self.mean = norm.running_mean.double().clone()
        self.var = norm.running_var.double().clone()
        norm.register_forward_pre_hook(self._count)

    def _count(self, norm, inputs):
        values = inputs[0].double().movedim(1, 0).flatten(1)
        self.mean += 0.1 * (values.mean(1) - self.mean)
        self.var += 0.1 * (values.var(1, correction=1) - self.var)
        self.passes += 1

    def check(self, passes: int) -> None:
        assert self.passes == passes == self.norm.num_batches_tracked
        torch.testing.assert_close(self.norm.running_mean.double(), self.mean, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(self.norm.running_var.double(), self.var, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('micro_batch_size', [None, 2])
def test_target_counts_running_statistics_of_its_own(micro_batch_size):
    """Those of its own forward passes, each micro-batch once, whatever the online network sees."""
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(config(micro_batch_size=micro_batch_size))
    model.init_weights()
    model.start_target()
    backbone, _, projector = model.target_net.module
    counted = [Counted(backbone.bn1), Counted(backbone.layer4[1].bn2), Counted(projector.bn0)]
    optimizer = torch.optim.SGD(model.projector.parameters(), lr=0.1)
    for step in range(3):
        data = dict(
            inputs=[torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8) for _ in range(3)],
            data_samples=None,
        )
        model.train_step(data, OptimWrapper(optimizer))
        model.update_target(step / 3)
    for one in counted:
        one.check(passes=3 * 3 * (4 // (micro_batch_size or 4)))
    assert not torch.allclose(projector.bn0.running_mean, model.projector.bn0.running_mean)
    model.update_target(0.5, copy_statistics=True)
    assert torch.equal(projector.bn0.running_mean, model.projector.bn0.running_mean)
    assert torch.equal(backbone.bn1.running_var, model.backbone.bn1.running_var)


def test_target_computes_in_a_task_what_it_was_trained_to(vito):
    """Running statistics instead of those of the batch: the same features, unless copied."""
    vito.start_target()
    view = torch.randn(16, 3, 64, 64)
    with torch.no_grad():
        for param in vito.backbone.parameters():  # the online network is somewhere else
            param += 0.1 * torch.randn_like(param)
        for _ in range(60):
            vito.backbone(view)
            trained = vito.target_net.module[0](view)[1]
        before = vito.target_net.module.eval()[0](view)[1]
        vito.update_target(1.0, copy_statistics=True)
        copied = vito.target_net.module[0](view)[1]
    error, of_copied = ((x - trained).norm() / trained.norm() for x in (before, copied))
    # Running variances are unbiased ones: a factor of up to sqrt(16 / 15) in a layer.
    assert error < 0.05
    assert of_copied > 0.3


@pytest.mark.parametrize(
    ('name', 'target'), [('byol_r50', 'target_net'), ('mocov3_r50', 'momentum_encoder')]
)
@pytest.mark.parametrize('statistics', ['own', 'online'])
def test_targets_of_mmpretrain_count_for_themselves(name, target, statistics):
    """MMEngine would copy the running statistics of the online network at every step."""
    cfg = Config.fromfile(REPO / f'configs/baselines/{name}.py').model
    cfg.backbone.update(depth=18, stem_channels=16, base_channels=16)
    cfg.backbone.norm_cfg = NORM
    cfg.neck.update(in_channels=128, hid_channels=16, out_channels=8, norm_cfg=dict(type='BN1d'))
    cfg.head.predictor.update(
        in_channels=8, hid_channels=16, out_channels=8, norm_cfg=dict(type='BN1d')
    )
    init_default_scope('mmpretrain')
    model = MODELS.build(cfg)
    model.backbone.bn1.running_mean += 1  # as a checkpoint brings it
    MessageHub.get_instance(f'{name}_{statistics}')
    MessageHub.get_current_instance().update_info('iter', 0)
    MessageHub.get_current_instance().update_info('max_iters', 10)
    hook = HOOKS.build(dict(type='TargetEMAHook', statistics=statistics))
    hook.before_train(_Shell(model))
    network = getattr(model, target).module
    if statistics == 'own':
        assert (network[0].bn1.running_mean == 1).all()
    counted = [Counted(network[0].bn1), Counted(network[1].bn0)]
    start = network[0].conv1.weight.clone()
    for _ in range(3):
        with torch.no_grad():
            model.backbone.conv1.weight += 0.1
        online = model.backbone.conv1.weight.detach().clone()
        model.loss(views(2), [])
    # The first update copies, the others move by the share of the config.
    expected = online - 0.2
    for step in (1, 2):
        share = cfg.base_momentum * (math.cos(math.pi * step / 10) + 1) / 2
        expected = expected + share * (online - 0.2 + 0.1 * step - expected)
    torch.testing.assert_close(network[0].conv1.weight, expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(start, network[0].conv1.weight)
    if statistics == 'own':
        for one in counted:
            one.check(passes=6)
    else:
        with pytest.raises(AssertionError):
            counted[0].check(passes=6)


def test_loss_is_the_head_on_projections_of_every_view(vito):
    vito.start_target()
    vito.eval()  # running statistics, so that views can be computed one by one
    batch = views()
    losses = vito.loss(batch)
    online = [vito.projector(vito.neck(vito.backbone(view)))[0] for view in batch]
    torch.testing.assert_close(losses['loss'], vito.head(online, online)['loss'])


def test_gradients_reach_online_parameters_alone(vito):
    vito.start_target()
    vito.loss(views())['loss'].backward()
    for name, param in vito.named_parameters():
        if name.startswith('target_net.'):
            assert not param.requires_grad
            assert param.grad is None
        else:
            assert param.grad is not None, name
            assert torch.isfinite(param.grad).all(), name


def test_backbone_keys_are_torchvisions(vito):
    from torchvision.models import resnet18

    keys = {key.removeprefix('backbone.') for key in vito.state_dict() if 'backbone.' in key}
    assert keys == {key for key in resnet18().state_dict() if not key.startswith('fc.')}


def test_memory_format_changes_no_number():
    init_default_scope('mmpretrain')
    batch = views()
    models = [MODELS.build(config(channels_last=choice)) for choice in (True, False)]
    models[1].load_state_dict(models[0].state_dict())
    values = []
    for model in models:
        model.start_target()
        values.append(model.loss(batch)['loss'])
    assert (
        models[0].backbone.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    )
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-4)


def test_training_without_the_hook_warns(vito):
    with pytest.warns(UserWarning, match='TargetEMAHook'):
        vito.loss(views())


@pytest.mark.parametrize(
    ('changes', 'name'),
    [
        (dict(base_momentum=1.0), 'base_momentum'),
        (dict(neck=dict(type='MultiScaleAttentionPooling', in_channels=(128,))), 'out_indices'),
    ],
)
def test_bad_settings_are_named(changes, name):
    init_default_scope('mmpretrain')
    with pytest.raises(ValueError, match=name):
        MODELS.build(config(**changes))


TINY_CONVNEXT = dict(
    type='ConvNeXt', arch=dict(depths=[1] * 4, channels=[8, 16, 32, 64]), out_indices=(2, 3)
)
TINY_VIT = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
)


def with_backbone(backbone: dict, *channels: int) -> dict:
    """Settings for a backbone of feature maps of these channels."""
    return dict(
        backbone=backbone,
        neck=dict(type='MultiScaleAttentionPooling', in_channels=channels),
        projector=dict(config()['projector'], in_channels=sum(channels)),
    )


@pytest.mark.parametrize(
    ('backbone', 'channels', 'setting'),
    [
        (TINY_CONVNEXT, (32, 64), dict(gap_before_final_norm=False)),
        (TINY_VIT, (32,), dict(out_type='featmap')),
    ],
    ids=['ConvNeXt', 'ViT'],
)
def test_a_backbone_without_feature_maps_is_told_what_to_set(backbone, channels, setting):
    init_default_scope('mmpretrain')
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f'{name}={value!r}'):
        MODELS.build(config(**with_backbone(backbone, *channels)))
    MODELS.build(config(**with_backbone(backbone | setting, *channels)))


def test_feature_maps_are_counted_where_a_backbone_has_no_out_indices():
    init_default_scope('mmpretrain')
    backbone = dict(type='TIMMBackbone', model_name='resnet18')
    MODELS.build(config(**with_backbone(backbone, 512)))
    with pytest.raises(ValueError, match='gives 1 feature maps'):
        MODELS.build(config(**with_backbone(backbone, 256, 512)))


def test_paper_recipe_excludes_norms_and_biases_and_trains_no_target():
    """Section 5 of the specification, on the parameters of the shipped config."""
    cfg = Config.fromfile(REPO / 'configs/vito/pretrain_r50.py')
    init_default_scope('mmpretrain')
    model = MODELS.build(cfg.model)
    wrapper = Runner.build_optim_wrapper(_Shell(model), cfg.optim_wrapper)
    assert len(wrapper.optimizer.param_groups) == 2
    groups = {id(p): group for group in wrapper.optimizer.param_groups for p in group['params']}
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert set(groups) == {id(param) for _, param in trained}
    for name, param in trained:
        group = groups[id(param)]
        excluded = param.ndim <= 1
        assert group.get('lars_exclude', False) is excluded, name
        assert group['weight_decay'] == (0 if excluded else 1e-6), name
        assert (group['lr'], group['momentum'], group['eta']) == (4.8, 0.9, 1e-3)
    assert sum(p.numel() for p in model.neck.scales[1].parameters()) == 16_785_408


class _Shell:
    """What Runner.build_optim_wrapper reads of a runner."""

    def __init__(self, model):
        self.model = model
