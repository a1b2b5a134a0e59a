"""Encoders: masks and features of layers against an independent computation."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from tests.helpers.tiny_vito import R18, save, tiny_vito
from vito_mm.checkpoint import CheckpointError, export_backbone
from vito_mm.checkpoint.stored_config import StoredConfigError, stored_model
from vito_mm.probes import loading
from vito_mm.probes.encoder import Encoder
from vito_mm.probes.loading import load_encoder, resnet
from vito_mm.probes.sources import find_source
from vito_mm.videos.frames import View

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
    np.testing.assert_allclose(network(FRAMES, 'neck'), pooled, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(network(FRAMES, batch_size=2), average, rtol=1e-3, atol=1e-5)


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
    check(load_encoder(file), expected(model, FRAMES))


@pytest.mark.parametrize('with_config', [True, False], ids=['config', 'shapes'])
def test_the_target_network_is_the_other_one(tmp_path, with_config):
    model, text = tiny_vito()
    with torch.no_grad():
        for parameter in model.target_net.parameters():
            parameter.mul_(1.1)
    file = save(tmp_path / 'iter_7.pth', model, text if with_config else None)
    truth = expected(model, FRAMES, 'target_net.module.0.', 'target_net.module.1.')
    check(load_encoder(file, 'target'), truth)
    assert np.abs(truth[1] - expected(model, FRAMES)[1]).max() > 0.01


@pytest.mark.parametrize('with_config', [True, False], ids=['config', 'shapes'])
def test_only_scales_with_attention_are_shown(tmp_path, with_config):
    text_of = lambda text: text if with_config else None  # noqa: E731
    model, text = tiny_vito({**R18, 'out_indices': (3,)}, (128,))
    network = load_encoder(save(tmp_path / 'one.pth', model, text_of(text)))
    check(network, expected(model, FRAMES), ('stage 5',))
    model, text = tiny_vito(pooling=('average', 'attention'))
    network = load_encoder(save(tmp_path / 'mixed.pth', model, text_of(text)))
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
    network = load_encoder(save(tmp_path / 'swin.pth', model, text))
    check(network, expected(model, FRAMES), ('stage 3', 'stage 4'))
    with pytest.raises(CheckpointError, match='name the config of the run'):
        load_encoder(save(tmp_path / 'bare.pth', model))
    (tmp_path / 'run.py').write_text(text)
    named = load_encoder(tmp_path / 'bare.pth', network=str(tmp_path / 'run.py'))
    check(named, expected(model, FRAMES), ('stage 3', 'stage 4'))
    model, text = tiny_vito({**swin, 'pad_small_map': False}, (64, 128))
    with pytest.raises(ValueError, match='does not take frames of 64 x 64 pixels'):
        load_encoder(save(tmp_path / 'strict.pth', model, text)).masks(FRAMES)


def test_a_model_in_training_gives_the_same_and_keeps_its_state():
    model, _ = tiny_vito()
    truth = expected(model, FRAMES)
    model.train()
    model.backbone.layer1.eval()  # as with frozen stages
    modes = [module.training for module in model.modules()]
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    check(Encoder.of_model(model), truth)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_file_without_attention_says_so(tmp_path):
    assert not Encoder.of_model(tiny_vito(pooling='average')[0]).scales()
    model, text = tiny_vito()
    file = save(tmp_path / 'iter_7.pth', model, text)
    export_backbone(file, tmp_path / 'exported.pth')
    with pytest.raises(CheckpointError, match='has no attention network'):
        load_encoder(tmp_path / 'exported.pth', needs_attention=True)
    network = load_encoder(tmp_path / 'exported.pth')
    assert not network.scales()
    average = expected(model, FRAMES)[2]
    np.testing.assert_allclose(network(FRAMES), average, rtol=1e-3, atol=1e-5)
    model, text = tiny_vito(pooling='average')
    with pytest.raises(CheckpointError, match="with pooling='average'"):
        load_encoder(save(tmp_path / 'average.pth', model, text), needs_attention=True)
    with pytest.raises(CheckpointError, match='torchvision:resnet18 has no attention network'):
        load_encoder(None, network='torchvision:resnet18', needs_attention=True)


def test_a_diverged_network_is_refused(tmp_path):
    model, text = tiny_vito()
    with torch.no_grad():
        model.neck.scales[0].logits[4].weight[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match='not finite'):
        load_encoder(save(tmp_path / 'iter_7.pth', model, text))


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
    check(load_encoder(file), expected(model, FRAMES))
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


def normalised(frames=FRAMES):
    return torch.from_numpy(((frames - MEAN) / STD).transpose(0, 3, 1, 2)).float()


def test_a_resnet_gives_the_maps_of_its_stages_and_modules():
    encoder = load_encoder(None, network=resnet(18, 16))
    x = encoder.backbone.relu(encoder.backbone.norm1(encoder.backbone.conv1(normalised())))
    x = encoder.backbone.maxpool(x)
    for index, name in enumerate(('res2', 'res3', 'res4', 'res5')):
        x = getattr(encoder.backbone, f'layer{index + 1}')(x)
        for layer in (name, index, index - 4, f'layer{index + 1}'):
            torch.testing.assert_close(encoder(FRAMES, layer, batch_size=2), x)
    torch.testing.assert_close(encoder(FRAMES, 'last'), x)
    torch.testing.assert_close(encoder(FRAMES), x.mean((2, 3)))
    wide = np.zeros((1, 48, 160, 3), np.uint8)
    assert encoder(wide, 'res4').shape == (1, 64, 3, 10)
    for layer in ('res6', 4, 'layer5'):
        with pytest.raises(ValueError, match=f'no layer {layer!r}'):
            encoder(FRAMES, layer)
    with pytest.raises(ValueError, match='neck'):
        encoder(FRAMES, 'neck')


def test_an_output_stride_changes_no_weight():
    plain, dense = (load_encoder(None, network=resnet(18, 16), output_stride=s) for s in (None, 8))
    torch.testing.assert_close(dense.backbone.state_dict(), plain.backbone.state_dict())
    assert dense(FRAMES, 'res4').shape == (5, 64, 8, 8)
    torch.testing.assert_close(dense(FRAMES, 'res3'), plain(FRAMES, 'res3'))


def test_frames_of_a_list_are_cut_by_the_view():
    encoder = load_encoder(None, network=resnet(18, 16), view=View(64, 64))
    odd = np.pad(FRAMES[0], ((0, 0), (10, 10), (0, 0)))
    found = encoder([FRAMES[1], odd])
    torch.testing.assert_close(found, encoder(FRAMES[[1, 0]]))


VIT = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=24, num_layers=3, num_heads=2, feedforward_channels=48),
    img_size=64,
    patch_size=16,
)


@pytest.mark.parametrize('out_type', ['cls_token', 'avg_featmap', 'featmap'])
def test_a_transformer_of_a_config_gives_tokens_as_maps(tmp_path, out_type):
    """The output of mmpretrain's own classes is the reference."""
    from mmpretrain.registry import MODELS

    part = dict(VIT, out_type=out_type)
    pixels = dict(mean=MEAN.tolist(), std=STD.tolist())
    text = f'model = dict(backbone={part!r}, data_preprocessor={pixels!r})'
    (tmp_path / 'vit.py').write_text(text)
    network = MODELS.build(dict(part, type='mmpretrain.VisionTransformer'))
    network.init_weights()
    weights = {f'backbone.{key}': value for key, value in network.state_dict().items()}
    torch.save(dict(state_dict=weights, meta=dict(cfg=text)), tmp_path / 'vit.pth')
    network.eval()
    # Neither to_rgb nor bgr_to_rgb: channels as OpenMMLab's loaders give them.
    images = torch.from_numpy(((FRAMES[..., ::-1] - MEAN) / STD).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        (output,) = network(images)
        network.out_type = 'featmap'
        (tokens,) = network(images)
    for encoder in (
        load_encoder(tmp_path / 'vit.pth'),
        load_encoder(tmp_path / 'vit.pth', network=str(tmp_path / 'vit.py')),
    ):
        expected = output.mean((2, 3)) if output.ndim == 4 else output
        torch.testing.assert_close(encoder(FRAMES), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder(FRAMES, 'last'), tokens, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder(FRAMES, 'ln1'), tokens, rtol=1e-4, atol=1e-5)
        assert encoder(np.zeros((1, 32, 96, 3), np.uint8), -1).shape == (1, 24, 2, 6)
        assert encoder.backbone.out_type == out_type
    deeper = dict(VIT, arch=VIT['arch'] | dict(num_layers=2))
    with pytest.raises(CheckpointError, match=r'unexpected: layers\.2'):
        load_encoder(tmp_path / 'vit.pth', network=deeper)


def test_masks_of_a_backbone_that_does_not_tell_its_stages():
    model, _ = tiny_vito(dict(type='TIMMBackbone', model_name='resnet18'), (512,))
    check(Encoder.of_model(model), expected(model, FRAMES), ('map 1',))


def test_a_masked_transformer_in_training_sees_all_patches():
    """MAE leaves out most of them unless it is told not to."""
    from mmpretrain.registry import MODELS

    model = nn.Module()
    model.backbone = MODELS.build(VIT | dict(type='mmpretrain.MAEViT'))
    model.data_preprocessor = MODELS.build(dict(type='mmpretrain.SelfSupDataPreprocessor'))
    encoder = Encoder.of_model(model.train())
    first, second = encoder(FRAMES, 0), encoder(FRAMES, 0)
    assert first.shape == (5, 24, 4, 4)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert model.backbone.training


@pytest.mark.parametrize(
    ('name', 'size', 'layer'),
    [('vit_tiny_patch16_224', 64, 'blocks.2'), ('swin_tiny_patch4_window7_224', 224, 'layers.1')],
)
def test_transformers_of_timm_give_maps(tmp_path, name, size, layer):
    import timm

    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=3).eval()
    torch.save(network.state_dict(), tmp_path / 'a.pth')
    encoder = load_encoder(tmp_path / 'a.pth', network=f'timm:{name}')
    frames = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    index = int(layer[-1])
    images = encoder.preprocess(torch.from_numpy(frames).permute(0, 3, 1, 2))
    maps = encoder.backbone.forward_intermediates(images, [index], intermediates_only=True)[0]
    for found in (encoder(frames, layer), encoder(frames, index)):
        torch.testing.assert_close(found, maps, rtol=1e-4, atol=1e-4)
    normed = encoder.backbone.forward_intermediates(images, 1, norm=True, intermediates_only=True)
    torch.testing.assert_close(encoder(frames, 'last'), normed[0], rtol=1e-4, atol=1e-4)
    assert encoder(frames).shape == (2, encoder.backbone.num_features)


def tokens_of_vit(network, images):
    tokens = network._process_input(images)
    first = network.class_token.expand(len(tokens), -1, -1)
    tokens = network.encoder(torch.cat([first, tokens], dim=1))[:, 1:]
    return tokens.transpose(1, 2).unflatten(2, (7, 7))


LAST = {
    'resnet18': lambda m, x: nn.Sequential(*list(m.children())[:-2])(x),
    'swin_t': lambda m, x: m.norm(m.features(x)).permute(0, 3, 1, 2),
    'vit_b_32': tokens_of_vit,
    'mobilenet_v2': lambda m, x: m.features(x),
    'regnet_y_400mf': lambda m, x: m.trunk_output(m.stem(x)),
}


@torch.no_grad()
@pytest.mark.parametrize('name', LAST)
def test_the_last_map_of_torchvisions_networks(name):
    encoder = load_encoder(None, network=f'torchvision:{name}', device='cpu')
    size = (224, 224) if name == 'vit_b_32' else (64, 96)
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    images = encoder.preprocess(torch.from_numpy(frames).permute(0, 3, 1, 2))
    expected = LAST[name](encoder.backbone, images)
    torch.testing.assert_close(encoder(frames, 'last'), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_maps_of_torchvisions_swin_have_their_channels_first():
    encoder = load_encoder(None, network='torchvision:swin_t', device='cpu')
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    images = encoder.preprocess(torch.from_numpy(frames).permute(0, 3, 1, 2))
    network = encoder.backbone
    stem = network.features[0][0](images)
    first = network.features[:2](images).permute(0, 3, 1, 2)
    last = network.features(images).permute(0, 3, 1, 2)
    normed = network.norm(network.features(images)).permute(0, 3, 1, 2)
    for layer, expected in (
        ('features.0.0', stem),
        ('features.1', first),
        (1, first),
        (-1, last),
        ('norm', normed),
        ('permute', normed),
        ('avgpool', normed.mean(dim=(2, 3), keepdim=True)),
    ):
        found = encoder(frames, layer)
        assert found.shape == expected.shape, layer
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', ['efficientnet_b0', 'regnet_y_400mf', 'swin_t'])
def test_an_output_stride_that_cannot_be_set_is_told(name, monkeypatch):
    told = []
    monkeypatch.setattr(loading, 'print_log', lambda text, *_: told.append(text))
    plain, asked = (
        load_encoder(None, network=f'torchvision:{name}', device='cpu', output_stride=stride)
        for stride in (None, 8)
    )
    (warning,) = told
    assert 'output stride of 8' in warning
    torch.testing.assert_close(asked(FRAMES[:1], 'last'), plain(FRAMES[:1], 'last'))


@torch.no_grad()
@pytest.mark.parametrize('name', ['googlenet', 'inception_v3'])
def test_networks_of_torchvision_that_transform_their_input(name, tmp_path):
    """As torchvision's builders make them for its weights."""
    torch.manual_seed(0)
    options = dict(weights=None, init_weights=False, transform_input=True)
    network = torchvision.models.get_model(name, **options)
    images = torch.from_numpy(FRAMES).permute(0, 3, 1, 2)
    images = torch.nn.functional.interpolate(images, size=128)
    encoder = load_encoder(None, network=f'torchvision:{name}', device='cpu')
    # Statistics of some images, so that features do not vanish.
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.train()
    network(encoder.preprocess(images))
    torch.save(network.eval().state_dict(), tmp_path / 'weights.pth')
    encoder = load_encoder(tmp_path / 'weights.pth', network=f'torchvision:{name}', device='cpu')
    network.fc = nn.Identity()
    expected = network(encoder.preprocess(images))
    torch.testing.assert_close(encoder(images), expected, rtol=1e-3, atol=1e-3)
    network.transform_input = False
    assert (network(encoder.preprocess(images)) - expected).norm() > 0.1 * expected.norm()


@torch.no_grad()
def test_a_transformer_of_torchvision_has_the_size_of_its_weights():
    source = find_source('torchvision:vit_b_16.IMAGENET1K_SWAG_E2E_V1')
    assert source.make(2).encoder.pos_embedding.shape == (1, 24**2 + 1, 768)
    assert source.view().crop == 16 * 24


def test_random_weights_follow_from_the_seed_alone(tmp_path):
    state = torch.get_rng_state()
    one, other, third = (
        load_encoder(None, network=resnet(18, 16), seed=seed).backbone.state_dict()
        for seed in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not torch.equal(one['conv1.weight'], third['conv1.weight'])
    torch.save(one, tmp_path / 'a.pth')
    random = load_encoder(tmp_path / 'a.pth', keep=False, seed=5).backbone.state_dict()
    assert random['conv1.weight'].shape == one['conv1.weight'].shape
    assert not torch.equal(random['conv1.weight'], one['conv1.weight'])


def test_random_weights_keep_nothing_of_a_file(tmp_path):
    """Batch statistics neither: they are those of a network without a file."""
    weights = load_encoder(None, network=resnet(18, 16), seed=3).backbone.state_dict()
    torch.save({key: value + 1 for key, value in weights.items()}, tmp_path / 'a.pth')
    random = load_encoder(tmp_path / 'a.pth', keep=False, seed=5).backbone.state_dict()
    named = load_encoder(None, network=resnet(18, 16), seed=5).backbone.state_dict()
    assert all(torch.equal(value, random[key]) for key, value in named.items())


def test_the_network_of_a_file_may_be_named_only_rightly(checkpoints, target):
    found = load_encoder(checkpoints['training'], 'target', resnet(18)).backbone
    assert torch.equal(found.conv1.weight, target.conv1.weight)
    with pytest.raises(CheckpointError, match='ResNet-18 and the model is a ResNet-50'):
        load_encoder(checkpoints['training'], network=resnet(50))


@pytest.mark.parametrize('name', ['convnext_atto', 'vit_tiny_patch16_224'])
def test_bare_weights_tell_their_network(name, tmp_path):
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3).eval()
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.1)
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        found = load_encoder(tmp_path / 'weights.pth').compute(images, -1)
        wanted = load_encoder(tmp_path / 'weights.pth', network=f'timm:{name}').compute(images, -1)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
