"""VITOResNet in the scopes of mmseg, mmdet and mmpretrain."""

import copy
import pickle

import mmdet.models
import mmpretrain.models
import mmseg.models
import pytest
import torch
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope

import vito_mm  # noqa: F401  registers and publishes
from vito_mm.transfer import CheckpointError

STOCK = {
    'mmseg': mmseg.models.backbones.ResNet,
    'mmdet': mmdet.models.backbones.ResNet,
    'mmpretrain': mmpretrain.models.backbones.ResNet,
}


def _build(library, **kwargs):
    config = dict(type='VITOResNet', depth=18, **kwargs)
    with DefaultScope.overwrite_default_scope(library):
        return ROOT_MODELS.build(config)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A training checkpoint with weights that no initialisation makes."""
    torch.manual_seed(0)
    weights = {
        f'backbone.{k}': torch.rand(v.shape) if v.is_floating_point() else torch.tensor(5)
        for k, v in STOCK['mmseg'](18).state_dict().items()
    }
    file = tmp_path_factory.mktemp('checkpoint') / 'iter_10.pth'
    torch.save({'state_dict': weights, 'meta': {'iter': 10}}, file)
    return str(file)


def _assert_loaded(backbone, checkpoint):
    weights = torch.load(checkpoint)['state_dict']
    found = backbone.state_dict()
    assert len(found) == len(weights) == 120
    for key, value in found.items():
        assert torch.equal(value, weights[f'backbone.{key}']), key


@pytest.mark.parametrize('library', STOCK)
def test_is_the_librarys_own_resnet_and_loads_everything(library, checkpoint):
    backbone = _build(library, checkpoint=checkpoint)
    assert isinstance(backbone, STOCK[library])
    assert not isinstance(backbone, tuple(c for name, c in STOCK.items() if name != library))
    backbone.init_weights()
    _assert_loaded(backbone, checkpoint)


@pytest.mark.parametrize('library', STOCK)
def test_defaults_train_everything(library):
    backbone = _build(library)
    backbone.train()
    assert not backbone.norm_eval
    assert all(p.requires_grad for p in backbone.parameters())
    assert all(m.training for m in backbone.modules())


def test_keywords_of_the_stock_class():
    backbone = _build('mmseg', dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1), contract_dilation=True)
    assert [f.shape[-1] for f in backbone(torch.zeros(1, 3, 64, 64))] == [16, 8, 8, 8]
    assert _build('mmdet', base_channels=8).base_channels == 8
    with pytest.raises(TypeError, match='no_such_keyword'):
        _build('mmdet', no_such_keyword=1)


@pytest.mark.parametrize('library', STOCK)
def test_same_features_as_stock_with_same_weights(library, checkpoint):
    backbone = _build(library, checkpoint=checkpoint, out_indices=(0, 1, 2, 3))
    backbone.init_weights()
    stock = STOCK[library](18, out_indices=(0, 1, 2, 3))
    stock.load_state_dict(backbone.state_dict())
    images = torch.rand(1, 3, 32, 32)
    backbone.eval(), stock.eval()
    for found, wanted in zip(backbone(images), stock(images), strict=True):
        assert torch.equal(found, wanted)


def test_scoped_name_and_explicit_library():
    config = dict(type='vito_mm.VITOResNet', depth=18, library='mmdet')
    assert isinstance(ROOT_MODELS.build(config), STOCK['mmdet'])
    with pytest.raises(ValueError, match='library must be one of'):
        ROOT_MODELS.build(dict(config, library='mmcls'))


def test_unclear_library_is_an_error():
    with (
        DefaultScope.overwrite_default_scope('mmengine'),
        pytest.raises(ValueError, match=r'default_scope.*library='),
    ):
        ROOT_MODELS.build(dict(type='vito_mm.VITOResNet', depth=18))


def test_missing_file_matters_only_when_training(tmp_path):
    backbone = _build('mmdet', checkpoint=str(tmp_path / 'gone.pth'))
    with pytest.raises(CheckpointError, match=r'gone.pth'):
        backbone.init_weights()


@pytest.mark.parametrize('copying', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies(copying, checkpoint):
    backbone = _build('mmseg', checkpoint=checkpoint)
    backbone.init_weights()
    copied = copying(backbone)
    assert type(copied) is type(backbone)
    _assert_loaded(copied, checkpoint)


@pytest.fixture
def log(monkeypatch):
    lines = []
    monkeypatch.setattr(
        'vito_mm.models.backbones.vito_resnet.print_log', lambda line, *args: lines.append(line)
    )
    return lines


@pytest.mark.parametrize(
    ('library', 'other'),
    [
        ('mmseg', dict(pretrained='open-mmlab://resnet50_v1c')),
        ('mmdet', dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'))),
        ('mmpretrain', dict(init_cfg=[dict(type='Pretrained', checkpoint='torchvision://x')])),
    ],
)
def test_other_weights_are_dropped_with_a_warning(library, other, checkpoint, log):
    backbone = _build(library, checkpoint=checkpoint, **other)
    assert 'is ignored' in log[0]
    backbone.init_weights()
    _assert_loaded(backbone, checkpoint)


def test_frozen_parts_are_warned_of(checkpoint, log):
    _build('mmdet', checkpoint=checkpoint, frozen_stages=1, norm_eval=True)
    assert 'frozen_stages=1, norm_eval=True' in log[0]
    _build('mmdet', checkpoint=checkpoint)
    assert len(log) == 1


def test_loaded_last_and_once_inside_a_segmentor(checkpoint):
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = ROOT_MODELS.build(
            dict(
                type='EncoderDecoder',
                backbone=dict(type='VITOResNet', depth=18, checkpoint=checkpoint),
                decode_head=dict(
                    type='FCNHead', in_channels=512, channels=4, num_classes=3, num_convs=1
                ),
            )
        )
    model.init_weights()
    _assert_loaded(model.backbone, checkpoint)
    model.backbone.conv1.weight.data.zero_()
    model.backbone.init_weights()  # MMEngine only warns of a second call; nothing is reloaded
    assert not model.backbone.conv1.weight.any()
