"""Backbones other than ResNets: the same features in every library, complete or refused."""

import re
from importlib import import_module

import mmdet.models
import mmpretrain.models
import pytest
import timm
import torch
import torchvision
from mmengine.registry import DefaultScope
from torchvision.models.feature_extraction import create_feature_extractor

from tests.helpers import backbones
from tests.helpers.backbones import (
    FAMILIES,
    NARROW_HRNET,
    openmmlab_features,
    padded,
    randomised,
)
from tests.helpers.features import stages
from vito_mm.checkpoint import CheckpointError, load_backbone

CASES = [
    (family, library, place)
    for family, (_, libraries, places) in FAMILIES.items()
    for library in libraries
    for place in places
]


def _assert_same(found, wanted):
    assert len(found) == len(wanted)
    for x, y in zip(found, wanted, strict=True):
        if y.ndim == 3 and x.ndim == 4:  # mmseg gives a map of a transformer's patches
            x, y = x.flatten(2).transpose(1, 2), y[:, 1:]
        scale = y.abs().max()
        torch.testing.assert_close(x / scale, y / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize('size', [64, 75])
@pytest.mark.parametrize(('family', 'library', 'place'), CASES)
@torch.no_grad()
def test_features_are_those_of_the_file(family, library, place, size, tmp_path):
    build, _, places = FAMILIES[family]
    make, features = places[place]
    images = torch.rand(2, 3, size, size + 4)
    if family == 'ViT':
        images = images[..., : size // 4, : size // 4]
    given = images if family == 'ConvNeXt' else padded(images)
    shape = tuple(given.shape[-2:])
    source = randomised(make(shape if place.startswith('timm') else shape[1]))
    torch.save({'model': source.state_dict()}, tmp_path / 'weights.pth')
    settings = dict(size=given.shape[-1]) if family == 'ViT' else {}
    model = build(library, **settings)
    match = load_backbone(model, tmp_path / 'weights.pth')
    assert match.complete
    assert match.naming == place.split()[0]
    assert all(key.startswith(('norm0', 'norm1', 'norm2')) for key in match.new)
    assert len(match.warnings()) == bool(match.new)
    _assert_same(openmmlab_features(model, images), features(source, given))


def _save(model, file, prefix='backbone.', **changes):
    weights = {f'{prefix}{key}': value for key, value in model.state_dict().items()}
    torch.save({'state_dict': weights | changes}, file)
    return str(file)


@pytest.mark.parametrize('library', ['mmpretrain', 'mmdet', 'mmseg'])
@torch.no_grad()
def test_pretraining_with_two_outputs_fills_the_swin_of_every_library(library, tmp_path):
    """As VITO's Swin-S has them: the norms of earlier outputs are new, the others come along."""
    source = randomised(backbones.openmmlab_swin('mmpretrain', out_indices=(2, 3)))
    model = backbones.openmmlab_swin(library)
    match = load_backbone(model, _save(source, tmp_path / 'vito.pth'))
    assert (match.prefix, match.complete) == ('backbone.', True)
    assert sorted(match.new) == [f'norm{n}.{p}' for n in (0, 1) for p in ('bias', 'weight')]
    images = torch.rand(1, 3, 75, 64)
    source.eval(), model.eval()
    _assert_same(list(model(images))[2:], source(images))
    with pytest.raises(CheckpointError, match=r'holds a ResNet|no key of a ResNet|another'):
        load_backbone(torchvision.models.resnet18(), tmp_path / 'vito.pth')


@pytest.mark.parametrize('library', ['mmdet', 'mmseg'])
@torch.no_grad()
def test_original_files(library, tmp_path):
    """Written out: the merging of a stage is numbered by that stage, and masks are stored."""
    source = randomised(backbones.timm_swin())
    weights = {}
    for key, value in source.state_dict().items():
        if '.downsample.' in key:
            stage = int(key.split('.')[1])
            key = key.replace(f'layers.{stage}.', f'layers.{stage - 1}.')
        weights[key.replace('head.fc.', 'head.')] = value
    weights['layers.0.blocks.1.attn_mask'] = torch.zeros(4, 4, 4)
    torch.save({'model': weights}, tmp_path / 'swin.pth')
    model = backbones.openmmlab_swin(library)
    assert load_backbone(model, tmp_path / 'swin.pth').naming == 'original'
    images = torch.rand(1, 3, 64, 64)
    _assert_same(openmmlab_features(model, images), backbones.timm_swin_features(source, images))


@pytest.mark.parametrize('second', [False, True], ids=['v1', 'v2'])
@torch.no_grad()
def test_original_convnext(second, tmp_path):
    """The names of https://github.com/facebookresearch/ConvNeXt, which timm reads as well."""
    settings = dict(use_grn=True, ls_init_value=None) if second else {}
    source = randomised(backbones.timm_convnext(**settings))
    weights = {}
    for key, value in source.state_dict().items():
        for theirs, original in (
            (r'^stem\.', 'downsample_layers.0.'),
            (r'^stages\.(\d)\.downsample\.', r'downsample_layers.\1.'),
            (r'\.blocks\.', '.'),
            (r'conv_dw', 'dwconv'),
            (r'mlp\.fc', 'pwconv'),
            (r'mlp\.grn\.weight', 'grn.gamma'),
            (r'mlp\.grn\.bias', 'grn.beta'),
            (r'^head\.norm', 'norm'),
            (r'^head\.fc', 'head'),
        ):
            key = re.sub(theirs, original, key)
        weights[key] = value[None, None, None] if '.grn.' in key else value
    torch.save({'model': weights}, tmp_path / 'convnext.pth')
    ours = dict(use_grn=True, layer_scale_init_value=0.0) if second else {}
    images = torch.rand(1, 3, 75, 64)
    wanted = backbones.timm_convnext_features(source, images)
    for linear in (True, False):
        model = backbones.openmmlab_convnext(linear_pw_conv=linear, **ours)
        assert load_backbone(model, tmp_path / 'convnext.pth').naming == 'original'
        _assert_same(openmmlab_features(model, images), wanted)


@pytest.mark.parametrize('library', ['mmpretrain', 'mmseg'])
@torch.no_grad()
def test_position_embedding_is_resized_as_the_library_does(library, tmp_path):
    source = randomised(backbones.timm_vit(16))
    torch.save(source.state_dict(), tmp_path / 'vit.pth')
    model = backbones.openmmlab_vit(library, 24)
    match = load_backbone(model, tmp_path / 'vit.pth')
    assert 'pos_embed was resized from (1, 17, 16) to (1, 37, 16)' in match.warnings()[0]
    positions = source.pos_embed[:, 1:].reshape(1, 4, 4, 16).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.interpolate(positions, (6, 6), mode='bicubic')
    wanted = wanted.flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.pos_embed[:, 1:], wanted)
    torch.testing.assert_close(model.pos_embed[:, :1], source.pos_embed[:, :1])


def test_other_epsilon_is_warned_of(tmp_path):
    torch.save(randomised(backbones.timm_vit()).state_dict(), tmp_path / 'vit.pth')
    model = backbones.openmmlab_vit('mmseg', norm_cfg=dict(type='LN'), final_norm=False)
    warnings = load_backbone(model, tmp_path / 'vit.pth').warnings()
    assert any("norm_cfg=dict(type='LN', eps=1e-06)" in text for text in warnings)
    assert any('2 unused: ln1.weight, ln1.bias' in text for text in warnings)


# RegNet, ResNeXt and other relatives of the ResNet


def _regnet_names(weights, place):
    """timm's or pycls's names of torchvision's RegNet, in which the parts have the same order."""
    found = {}
    for key, value in weights.items():
        key = re.sub(r'^stem\.0', 'stem.conv', re.sub(r'^stem\.1', 'stem.bn', key))
        block = re.match(r'trunk_output\.block(\d)\.block\d-(\d+)\.(.+)\.(\w+)$', key)
        if block:
            stage, number, part, name = block.groups()
            if place == 'timm':
                for i, letter in enumerate('abc', 1):
                    part = part.replace(f'f.{letter}.0', f'conv{i}.conv')
                    part = part.replace(f'f.{letter}.1', f'conv{i}.bn')
                part = part.replace('proj.0', 'downsample.conv').replace('proj.1', 'downsample.bn')
            else:
                part = {'proj.0': 'proj', 'proj.1': 'bn'}.get(part, part)
                part = part.removesuffix('.0') if part[-1] == '0' else part.replace('.1', '_bn')
            key = f's{stage}.b{int(number) + 1}.{part}.{name}'
        found[key.replace('fc.', 'head.fc.')] = value
    return found


@pytest.mark.parametrize('library', ['mmdet', 'mmpretrain'])
@torch.no_grad()
def test_regnet(library, tmp_path):
    """Of a width on which the libraries agree; with 400 MF torchvision's last stage is wider."""
    source = randomised(torchvision.models.regnet_x_800mf())
    body = create_feature_extractor(source, [f'trunk_output.block{i}' for i in range(1, 5)])
    weights = source.state_dict()
    theirs = timm.create_model('regnetx_008')
    theirs.load_state_dict(_regnet_names(weights, 'timm'))  # the names are timm's indeed
    images = torch.rand(1, 3, 64, 75)
    wanted = list(body(images).values())
    for place in ('torchvision', 'timm', 'pycls'):
        renamed = weights if place == 'torchvision' else _regnet_names(weights, place)
        torch.save(renamed, tmp_path / 'weights.pth')
        settings = dict(type='RegNet', arch='regnetx_800mf', out_indices=(0, 1, 2, 3))
        model = import_module(f'{library}.registry').MODELS.build(settings)
        match = load_backbone(model, tmp_path / 'weights.pth')
        assert (match.naming, match.complete) == (f'{place} (RegNet)', True)
        model.eval()
        _assert_same(list(model(images)), wanted)


@torch.no_grad()
def test_resnext(tmp_path):
    source = randomised(torchvision.models.resnext50_32x4d())
    torch.save(source.state_dict(), tmp_path / 'weights.pth')
    model = mmdet.models.backbones.ResNeXt(depth=50, groups=32, base_width=4)
    assert load_backbone(model, tmp_path / 'weights.pth').complete
    images = torch.rand(1, 3, 64, 75)
    model.eval()
    _assert_same(list(model(images)), stages(source, images))
    with pytest.raises(CheckpointError, match='shape mismatch'):
        load_backbone(mmdet.models.backbones.ResNet(50), tmp_path / 'weights.pth')


# What must not pass


def test_a_table_of_other_values_is_refused(tmp_path):
    source = backbones.openmmlab_swin('mmdet')
    key = 'stages.0.blocks.0.attn.w_msa.relative_position_index'
    table = source.state_dict()[key]
    for other in (table.flip(0), table[:2]):
        file = _save(source, tmp_path / 'swin.pth', **{f'backbone.{key}': other})
        with pytest.raises(CheckpointError, match='table of other values'):
            load_backbone(backbones.openmmlab_swin('mmseg'), file)
    weights = torch.load(_save(source, tmp_path / 'swin.pth'))['state_dict']
    torch.save({k: v for k, v in weights.items() if 'index' not in k}, tmp_path / 'none.pth')
    assert load_backbone(backbones.openmmlab_swin('mmseg'), tmp_path / 'none.pth').complete


@pytest.mark.parametrize(
    ('make', 'build', 'message'),
    [
        ('swin', dict(window_size=4), r'shape mismatch[\s\S]*set window_size=2'),
        ('swin', dict(use_abs_pos_embed=True), r'missing: absolute_pos_embed'),
        ('swin', dict(depths=(2, 2, 1, 1)), r'unexpected: stages\.2\.blocks\.1'),
        ('vit', dict(patch_bias=False), r'unexpected: patch_embed[\s\S]*patch_bias=True'),
        ('convnext', dict(layer_scale_init_value=0.0), r'unexpected: stages\.0\.0\.gamma'),
        ('convnext', dict(use_grn=True), r'missing: stages\.0\.0\.grn\.gamma'),
    ],
)
def test_other_settings_are_refused_with_a_remedy(make, build, message, tmp_path, monkeypatch):
    source = randomised(getattr(backbones, f'timm_{make}')())
    torch.save(source.state_dict(), tmp_path / 'weights.pth')
    if 'depths' in build:
        monkeypatch.setattr(backbones, 'DEPTHS', build.pop('depths'))
    library = dict(vit='mmseg', swin='mmdet', convnext='mmpretrain')[make]
    model = getattr(backbones, f'openmmlab_{make}')(library, **build)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_backbone(model, tmp_path / 'weights.pth')
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_part_that_the_model_lacks_is_refused(tmp_path):
    """Of a file, whose other parts are a classifier's."""
    source = backbones.openmmlab_swin('mmdet', use_abs_pos_embed=True, pretrain_img_size=64)
    file = _save(source, tmp_path / 'swin.pth', prefix='')
    with pytest.raises(CheckpointError, match=r'absolute_pos_embed[\s\S]*use_abs_pos_embed=True'):
        load_backbone(backbones.openmmlab_swin('mmdet'), file)
    vit = timm.models.deit.VisionTransformerDistilled(
        img_size=16, patch_size=4, embed_dim=16, depth=3, num_heads=2
    )
    torch.save(vit.state_dict(), tmp_path / 'deit.pth')
    with pytest.raises(CheckpointError, match='dist_token'):
        load_backbone(backbones.openmmlab_vit('mmpretrain'), tmp_path / 'deit.pth')


def test_registers_and_an_early_norm_of_a_vit_are_no_head(tmp_path):
    """Of bare files, as DINOv2, DINOv3 and CLIP have them."""
    weights = backbones.timm_vit().state_dict()
    for key, shape in {
        'reg_token': (1, 4, 16),
        'register_tokens': (1, 4, 16),
        'storage_tokens': (1, 4, 16),
        'norm_pre.weight': (16,),
    }.items():
        torch.save(weights | {key: torch.ones(shape)}, tmp_path / 'vit.pth')
        for library in ('mmpretrain', 'mmseg'):
            with pytest.raises(CheckpointError, match=f'1 unexpected: {key}'):
                load_backbone(backbones.openmmlab_vit(library), tmp_path / 'vit.pth')
    source = backbones.openmmlab_vit('mmpretrain', pre_norm=True)
    file = _save(source, tmp_path / 'clip.pth', prefix='')
    with pytest.raises(CheckpointError, match=r'unexpected: pre_norm[\s\S]*set pre_norm=True'):
        load_backbone(backbones.openmmlab_vit('mmpretrain', patch_cfg=dict(bias=False)), file)
    assert load_backbone(backbones.openmmlab_vit('mmpretrain', pre_norm=True), file).complete


def test_tables_of_integers_are_no_weights(tmp_path):
    source = randomised(mmpretrain.models.LeViT('128s', img_size=64))
    integers = {k: v for k, v in source.state_dict().items() if v.dtype == torch.int64}
    table = next(key for key in integers if key.endswith('attention_bias_idxs'))
    model = mmpretrain.models.LeViT('128s', img_size=64)
    assert load_backbone(model, _save(source, tmp_path / 'own.pth')).complete
    assert torch.equal(model.state_dict()[table], integers[table])
    images = torch.rand(1, 3, 64, 64)
    model.eval()
    assert torch.equal(model(images)[-1], source(images)[-1])
    key = next(name for name, _ in source.named_parameters())
    rounded = source.state_dict()[key].to(torch.int8)
    file = _save(source, tmp_path / 'rounded.pth', **{f'backbone.{key}': rounded})
    with pytest.raises(CheckpointError, match=re.escape(f'1 such: {key} (torch.int8)')):
        load_backbone(model, file)


def test_the_second_swin_is_no_first_one(tmp_path):
    """It has the norm of a merging behind it, so that the tables' permutations are not its own."""
    swin = timm.models.swin_transformer_v2.SwinTransformerV2
    source = swin(64, embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=2)
    torch.save(source.state_dict(), tmp_path / 'v2.pth')
    arch = dict(embed_dims=16, depths=(1, 1), num_heads=(1, 2))
    second = dict(arch, extra_norm_every_n_blocks=0)
    for model in (
        mmpretrain.models.SwinTransformerV2(second, window_size=2, out_indices=(0, 1)),
        mmpretrain.models.SwinTransformer(arch, window_size=2, out_indices=(0, 1)),
    ):
        with pytest.raises(CheckpointError, match='missing'):
            load_backbone(model, tmp_path / 'v2.pth')


@pytest.mark.parametrize('kind', ['PyramidVisionTransformer', 'HRNet', 'ResNeSt'])
def test_any_backbone_takes_its_own_names_and_no_less(kind, tmp_path):
    settings = dict(
        PyramidVisionTransformer=dict(embed_dims=16, num_layers=[1, 1, 1, 1]),
        HRNet=dict(extra=NARROW_HRNET),
        ResNeSt=dict(depth=50, base_channels=16, stem_channels=16),
    )[kind]

    def build():
        # Other tests leave the scopes of their runs.
        with DefaultScope.overwrite_default_scope('mmdet'):
            return import_module('mmdet.registry').MODELS.build(dict(settings, type=kind))

    source = randomised(build())
    file = _save(source, tmp_path / 'own.pth')
    model = build()
    match = load_backbone(model, file)
    assert match.complete
    loaded = model.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in source.state_dict().items())
    weights = torch.load(file)['state_dict']
    parameters = [key for key in weights if not key.endswith('num_batches_tracked')]
    for key in parameters[7 :: len(parameters) // 3]:
        torch.save({k: v for k, v in weights.items() if k != key}, tmp_path / 'less.pth')
        with pytest.raises(CheckpointError, match='1 missing'):
            load_backbone(model, tmp_path / 'less.pth')
    torch.save(weights | {'backbone.further.weight': torch.ones(2)}, tmp_path / 'more.pth')
    with pytest.raises(CheckpointError, match='1 unexpected: further'):
        load_backbone(model, tmp_path / 'more.pth')
