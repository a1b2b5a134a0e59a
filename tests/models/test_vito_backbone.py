"""VITOBackbone: any backbone of a library, started strictly in every scope."""

import copy
import pickle
from importlib import import_module

import mmdet.models
import mmpretrain.models
import mmseg.models
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope

import vito_mm  # noqa: F401  registers and publishes
from tests.helpers import backbones
from tests.helpers.backbones import DEPTHS, HEADS, WIDTH, randomised
from vito_mm.checkpoint import CheckpointError, check_config
from vito_mm.models import VITOBackbone, VITOResNet

SWIN = dict(embed_dims=WIDTH, depths=DEPTHS, num_heads=HEADS, window_size=2)
STOCK = {name: import_module(f'{name}.models').backbones for name in ('mmdet', 'mmseg')}


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A training checkpoint of a Swin with the outputs of pre-training."""
    source = randomised(backbones.openmmlab_swin('mmpretrain', out_indices=(2, 3)))
    file = tmp_path_factory.mktemp('checkpoint') / 'iter_10.pth'
    weights = {f'backbone.{key}': value for key, value in source.state_dict().items()}
    torch.save({'state_dict': weights, 'meta': {'iter': 10}}, file)
    return str(file)


def _assert_loaded(backbone, checkpoint):
    loaded = backbone.state_dict()
    for key, value in torch.load(checkpoint)['state_dict'].items():
        assert torch.equal(loaded[key.removeprefix('backbone.')], value), key


def _build(scope, **settings):
    with DefaultScope.overwrite_default_scope(scope):
        return ROOT_MODELS.build(dict(type='VITOBackbone', stock='SwinTransformer') | settings)


@pytest.mark.parametrize('library', STOCK)
def test_is_the_librarys_own_class_and_loads_everything(library, checkpoint):
    backbone = _build(library, checkpoint=checkpoint, **SWIN)
    assert isinstance(backbone, STOCK[library].SwinTransformer)
    assert not isinstance(backbone, VITOResNet)
    backbone.train()
    with pytest.raises(CheckpointError, match='nothing called its init_weights'):
        backbone(torch.zeros(1, 3, 64, 64))
    copied = copy.deepcopy(backbone)
    backbone.init_weights()
    for each in (backbone, copied, pickle.loads(pickle.dumps(backbone))):
        assert type(each) is type(backbone)
        _assert_loaded(each, checkpoint)
    assert (backbone.norm0.weight == 1).all()  # new, as the stock class initialises it


def test_where_the_class_comes_from():
    arch = dict(depths=DEPTHS, channels=[WIDTH] * 4)
    for settings in (
        dict(type='VITOBackbone', stock='mmpretrain.ConvNeXt', arch=arch),
        dict(type='vito_mm.VITOBackbone', stock='ConvNeXt', library='mmpretrain', arch=arch),
        dict(type='mmpretrain.VITOBackbone', stock='ConvNeXt', arch=arch),
    ):
        with DefaultScope.overwrite_default_scope('mmdet'):
            backbone = ROOT_MODELS.build(settings)
        assert isinstance(backbone, mmpretrain.models.ConvNeXt)
    with DefaultScope.overwrite_default_scope('mmseg'):
        resnet = ROOT_MODELS.build(dict(type='VITOBackbone', stock='ResNetV1c', depth=18))
        assert isinstance(resnet, mmseg.models.ResNetV1c)
        assert resnet.norm_eval is False
        resnext = ROOT_MODELS.build(dict(type='mmdet.VITOBackbone', stock='ResNeXt', depth=50))
        assert isinstance(resnext, mmdet.models.ResNeXt)
        assert resnext.norm_eval is False  # mmdet's own default is True
        with pytest.raises(ValueError, match=r'mmseg.*has no NoSuch'):
            ROOT_MODELS.build(dict(type='VITOBackbone', stock='NoSuch'))
        with pytest.raises(ValueError, match="stock='SwinTransformer'"):
            ROOT_MODELS.build(dict(type='VITOBackbone'))
    with DefaultScope.overwrite_default_scope('mmengine'):
        assert isinstance(VITOBackbone(18, stock='ResNet'), mmpretrain.models.ResNet)
        assert isinstance(VITOResNet(18), VITOBackbone)


@pytest.mark.parametrize(
    ('library', 'other'),
    [
        ('mmdet', dict(init_cfg=dict(type='Pretrained', checkpoint='https://x/y.pth'))),
        ('mmdet', dict(pretrained='https://x/y.pth', convert_weights=True)),
        ('mmseg', dict(init_cfg=dict(type='Pretrained', checkpoint='https://x/y.pth'))),
        ('mmseg', dict(pretrained='https://x/y.pth')),
    ],
)
def test_nothing_else_is_loaded(library, other, checkpoint):
    """The stock classes look into init_cfg by themselves."""
    backbone = _build(library, checkpoint=checkpoint, **SWIN, **other)
    backbone.init_weights()
    _assert_loaded(backbone, checkpoint)


def test_a_vision_transformer_of_mmseg(tmp_path):
    source = randomised(backbones.timm_vit())
    torch.save(source.state_dict(), tmp_path / 'vit.pth')
    settings = dict(img_size=16, patch_size=4, embed_dims=16, num_layers=3, num_heads=2)
    backbone = _build(
        'mmseg',
        stock='VisionTransformer',
        checkpoint=str(tmp_path / 'vit.pth'),
        patch_bias=True,
        final_norm=True,
        pretrained='https://x/y.pth',
        **settings,
    )
    backbone.init_weights()
    weight = backbone.layers[1].attn.attn.in_proj_weight
    assert torch.equal(weight, source.blocks[1].attn.qkv.weight)


# Checking a config


def _config(library, **backbone):
    settings = dict(type='SwinTransformer', **SWIN, out_indices=(0, 1, 2, 3)) | backbone
    model = dict(
        type='mmdet.SingleStageDetector',
        backbone=settings,
        bbox_head=dict(type='torch.nn.Identity'),
    )
    return Config(
        dict(default_scope=library, model=model, custom_imports=dict(imports=['vito_mm']))
    )


@pytest.mark.parametrize('library', STOCK)
def test_check_of_a_config(library, checkpoint):
    check = check_config(_config(library), checkpoint)
    assert check.match.complete
    assert any('6 new' in text or '4 new' in text for text in check.warnings)
    (advice,) = (text for text in check.warnings if 'not from this file' in text)
    typed = dict(each.split('=', 1) for each in advice.split('--cfg-options ')[1].split())
    assert typed['model.backbone.stock'] == 'SwinTransformer'
    cfg = _config(library)
    cfg.merge_from_dict(typed)
    check = check_config(cfg)
    assert check.match.complete
    assert not any('not from' in text for text in check.warnings)


@pytest.mark.parametrize('library', STOCK)
def test_what_the_stock_class_loses_is_found_by_doing_it(library, checkpoint, tmp_path):
    def check(file, **settings):
        init_cfg = dict(type='Pretrained', checkpoint=str(file))
        return check_config(_config(library, init_cfg=init_cfg, **settings))

    assert check(checkpoint).match.complete  # both take what stands after backbone.
    torch.save(randomised(backbones.timm_swin()).state_dict(), tmp_path / 'timm.pth')
    with pytest.raises(CheckpointError, match=r'timm names[\s\S]*stock=SwinTransformer'):
        check(tmp_path / 'timm.pth')
    assert check_config(_config(library), tmp_path / 'timm.pth').match.complete
    if library == 'mmdet':  # which loses this keyword
        with pytest.raises(CheckpointError, match=r'MMEngine would go on'):
            check_config(_config(library, pretrained=checkpoint))


def test_a_convnext_of_mmpretrain_in_mmdet(tmp_path):
    source = randomised(backbones.openmmlab_convnext(out_indices=(2, 3)))
    weights = {f'backbone.{key}': value for key, value in source.state_dict().items()}
    torch.save({'state_dict': weights}, tmp_path / 'iter_1.pth')
    arch = dict(depths=DEPTHS, channels=[WIDTH * 2**stage for stage in range(4)])
    cfg = _config('mmdet')
    cfg.model.backbone = dict(type='mmpretrain.ConvNeXt', arch=arch, out_indices=(1, 2, 3))
    check = check_config(cfg, str(tmp_path / 'iter_1.pth'))
    assert any('stock=mmpretrain.ConvNeXt' in text for text in check.warnings)
    cfg.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'iter_1.pth'), prefix='wrong.'
    )
    with pytest.raises(CheckpointError, match=r"give prefix='backbone\.'"):
        check_config(cfg)
    cfg.model.backbone.init_cfg.prefix = 'backbone.'
    assert check_config(cfg).match.complete
