"""Networks of checkpoints: masks and features against an independent computation."""

import numpy as np
import pytest
import torch

from tests.helpers.tiny_vito import R18, save, tiny_vito
from vito_mm.checkpoint import CheckpointError, export_backbone
from vito_mm.probes.network import load_network, network_of
from vito_mm.probes.stored_config import StoredConfigError, stored_model

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
FRAMES = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


def expected(model, frames, backbone='backbone.', neck='neck.'):
    """Masks and pooled features in float64, from the weights by their names."""
    weights = {k: v.double() for k, v in model.state_dict().items() if v.is_floating_point()}
    images = torch.from_numpy(((frames - MEAN) / STD).transpose(0, 3, 1, 2))
    network = model.get_submodule(backbone.rstrip('.')).double()
    network.eval()
    with torch.no_grad():
        maps = network(images)
    masks, pooled = [], []
    for number, features in enumerate(maps):
        logits = features.numpy()
        for layer in (0, 2, 4):
            name = f'{neck}scales.{number}.logits.{layer}'
            weight = weights[f'{name}.weight'].numpy()[:, :, 0, 0]
            logits = np.einsum('oc,nchw->nohw', weight, logits)
            if layer != 4:
                logits = np.maximum(logits + weights[f'{name}.bias'].numpy()[:, None, None], 0)
        exponentials = np.exp(logits[:, 0] - logits.max())
        masks.append(exponentials / exponentials.sum((1, 2), keepdims=True))
        pooled.append(np.einsum('nchw,nhw->nc', features.numpy(), masks[-1]))
    average = maps[-1].numpy().mean((2, 3))
    network.float()
    return masks, np.concatenate(pooled, 1), average


def check(network, truth, names=('stage 4', 'stage 5')):
    masks, pooled, average = truth
    found = network.masks(FRAMES, batch_size=2)
    assert tuple(found) == names
    for mask, wanted in zip(found.values(), masks, strict=True):
        assert mask.shape == wanted.shape
        assert wanted.max() > 1.2 * wanted.mean()
        np.testing.assert_allclose(mask, wanted, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(mask.sum((1, 2)), 1, atol=1e-5)
    np.testing.assert_allclose(network.features(FRAMES, 'attention'), pooled, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(network.features(FRAMES), average, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('with_config', [True, False], ids=['config', 'shapes'])
@pytest.mark.parametrize(
    ('changes', 'channels'),
    [
        (dict(), (64, 128)),
        (dict(depth=34, stem_channels=32, base_channels=32), (128, 256)),
        (dict(depth=50), (256, 512)),
    ],
    ids=['18', 'wider 34', '50'],
)
def test_masks_and_features_of_a_file_are_those_of_the_paper(
    tmp_path, changes, channels, with_config
):
    model, text = tiny_vito({**R18, **changes}, channels)
    file = save(tmp_path / 'iter_7.pth', model, text if with_config else None)
    check(load_network(file), expected(model, FRAMES))


@pytest.mark.parametrize('with_config', [True, False], ids=['config', 'shapes'])
def test_the_target_network_is_the_other_one(tmp_path, with_config):
    model, text = tiny_vito()
    with torch.no_grad():
        for parameter in model.target_net.parameters():
            parameter.mul_(1.1)
    file = save(tmp_path / 'iter_7.pth', model, text if with_config else None)
    truth = expected(model, FRAMES, 'target_net.module.0.', 'target_net.module.1.')
    check(load_network(file, 'target'), truth)
    assert np.abs(truth[1] - expected(model, FRAMES)[1]).max() > 0.01


@pytest.mark.parametrize('with_config', [True, False], ids=['config', 'shapes'])
def test_only_scales_with_attention_are_shown(tmp_path, with_config):
    text_of = lambda text: text if with_config else None  # noqa: E731
    model, text = tiny_vito({**R18, 'out_indices': (3,)}, (128,))
    network = load_network(save(tmp_path / 'one.pth', model, text_of(text)))
    check(network, expected(model, FRAMES), ('stage 5',))
    model, text = tiny_vito(pooling=('average', 'attention'))
    network = load_network(save(tmp_path / 'mixed.pth', model, text_of(text)))
    assert list(network.scales()) == ['stage 5']
    assert network.masks(FRAMES)['stage 5'].shape == (5, 2, 2)


def test_other_backbones_are_built_from_the_stored_config(tmp_path):
    swin = dict(
        type='SwinTransformer',
        arch=dict(embed_dims=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)),
        img_size=224,
        out_indices=(2, 3),
        pad_small_map=True,
    )
    model, text = tiny_vito(swin, (64, 128))
    network = load_network(save(tmp_path / 'swin.pth', model, text))
    check(network, expected(model, FRAMES), ('stage 3', 'stage 4'))
    with pytest.raises(CheckpointError, match='name the config of the run'):
        load_network(save(tmp_path / 'bare.pth', model))
    (tmp_path / 'run.py').write_text(text)
    named = load_network(tmp_path / 'bare.pth', config=tmp_path / 'run.py')
    check(named, expected(model, FRAMES), ('stage 3', 'stage 4'))
    model, text = tiny_vito({**swin, 'pad_small_map': False}, (64, 128))
    with pytest.raises(ValueError, match='does not take frames of 64 x 64 pixels'):
        load_network(save(tmp_path / 'strict.pth', model, text)).masks(FRAMES)


def test_a_model_in_training_gives_the_same_and_keeps_its_state():
    model, _ = tiny_vito()
    truth = expected(model, FRAMES)
    model.train()
    model.backbone.layer1.eval()  # as with frozen stages
    modes = [module.training for module in model.modules()]
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    check(network_of(model), truth)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_network_whose_attention_says_nothing_has_uniform_masks():
    model, _ = tiny_vito()
    for scale in model.neck.scales:
        torch.nn.init.zeros_(scale.logits[4].weight)
    for mask in network_of(model).masks(FRAMES).values():
        np.testing.assert_allclose(mask, 1 / mask[0].size, rtol=1e-6)


def test_a_model_without_attention_is_none():
    assert network_of(tiny_vito(pooling='average')[0]) is None
    assert network_of(torch.nn.Linear(2, 2)) is None


def test_a_file_without_attention_says_so(tmp_path):
    model, text = tiny_vito()
    file = save(tmp_path / 'iter_7.pth', model, text)
    export_backbone(file, tmp_path / 'exported.pth')
    with pytest.raises(CheckpointError, match='has no attention network'):
        load_network(tmp_path / 'exported.pth')
    network = load_network(tmp_path / 'exported.pth', needs_attention=False)
    assert not network.scales()
    average = expected(model, FRAMES)[2]
    np.testing.assert_allclose(network.features(FRAMES), average, rtol=1e-3, atol=1e-5)
    model, text = tiny_vito(pooling='average')
    with pytest.raises(CheckpointError, match="with pooling='average'"):
        load_network(save(tmp_path / 'average.pth', model, text))


def test_a_diverged_network_is_refused(tmp_path):
    model, text = tiny_vito()
    with torch.no_grad():
        model.neck.scales[0].logits[4].weight[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match='not finite'):
        load_network(save(tmp_path / 'iter_7.pth', model, text))


@pytest.mark.parametrize(
    'attack',
    [
        'model = dict(backbone=open({file!r}, "w"))',
        'import pathlib\npathlib.Path({file!r}).touch()\n',
        'model = dict(backbone=dict(type="pathlib.Path.touch", self={file!r}))',
        'model = dict(backbone=dict(type="os.system", command="touch {file}"))',
        'model = dict(backbone=dict(type="ResNet", depth=18, norm_cfg=dict(type="os.system")))',
    ],
)
def test_nothing_that_a_checkpoint_says_is_executed(tmp_path, attack):
    """The weights are taken by their shapes instead."""
    model, _ = tiny_vito()
    file = save(tmp_path / 'iter_7.pth', model, attack.format(file=str(tmp_path / 'owned')))
    check(load_network(file), expected(model, FRAMES))
    assert not (tmp_path / 'owned').exists()


def test_a_stored_config_is_read_as_mmengine_wrote_it():
    from mmengine.config import Config

    text = Config(
        dict(
            model=dict(a=-1.5, b=(1, 'x'), c=[dict(d=None), True], e={'a.b': 2, 'f': {}}),
            data_preprocessor=dict(mean=[1.0]),
            other=dict(g='h'),
        )
    ).pretty_text
    wanted = dict(a=-1.5, b=(1, 'x'), c=[dict(d=None), True], e={'a.b': 2, 'f': {}})
    assert stored_model(text) == wanted | dict(data_preprocessor=dict(mean=[1.0]))
    for bad in ('', 'model = 1', 'model = f(', 'model = {**x}', 'model = dict(**x)'):
        with pytest.raises(StoredConfigError):
            stored_model(bad)
