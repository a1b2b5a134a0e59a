"""VITOResNet in the scopes of mmseg, mmdet and mmpretrain."""

import copy
import pickle
from collections import OrderedDict
from importlib import import_module

import mmdet.models
import mmpretrain.models
import mmseg.models
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import load_state_dict
from torchvision.models import resnet50

import vito_mm  # noqa: F401  registers and publishes
from tests.helpers import third_parties
from vito_mm.checkpoint import CheckpointError
from vito_mm.models import VITOResNet

STOCK = {
    'mmseg': mmseg.models.backbones.ResNet,
    'mmdet': mmdet.models.backbones.ResNet,
    'mmpretrain': mmpretrain.models.backbones.ResNet,
}


def _build(library, **kwargs):
    config = dict(type='VITOResNet', depth=18) | kwargs
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


@pytest.fixture(scope='module')
def packages(tmp_path_factory):
    third_parties.install(tmp_path_factory.mktemp('packages'))


@pytest.fixture
def log(monkeypatch):
    lines = []
    for module in ('vito_mm.models.backbones.vito_backbone', 'vito_mm.checkpoint.loading'):
        monkeypatch.setattr(f'{module}.print_log', lambda line, *args: lines.append(line))
    return lines


def _assert_loaded(backbone, checkpoint):
    weights = torch.load(checkpoint)['state_dict']
    found = backbone.state_dict()
    assert len(found) == len(weights) == 120
    for key, value in found.items():
        assert torch.equal(value, weights[f'backbone.{key}']), key


@pytest.mark.parametrize('library', STOCK)
def test_is_the_librarys_own_resnet_and_loads_everything(library, checkpoint):
    backbone = _build(library, checkpoint=checkpoint, out_indices=(0, 1, 2, 3))
    assert isinstance(backbone, STOCK[library])
    assert not isinstance(backbone, tuple(c for name, c in STOCK.items() if name != library))
    backbone.init_weights()
    _assert_loaded(backbone, checkpoint)
    stock = STOCK[library](18, out_indices=(0, 1, 2, 3))
    stock.load_state_dict(backbone.state_dict())
    images = torch.rand(1, 3, 32, 32)
    backbone.eval(), stock.eval()
    for found, wanted in zip(backbone(images), stock(images), strict=True):
        assert torch.equal(found, wanted)
    backbone.train()  # by default all of it
    assert all(p.requires_grad for p in backbone.parameters())
    assert all(m.training for m in backbone.modules())


def test_keywords_of_the_stock_class():
    backbone = _build('mmseg', dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1), contract_dilation=True)
    assert [f.shape[-1] for f in backbone(torch.zeros(1, 3, 64, 64))] == [16, 8, 8, 8]
    assert _build('mmdet', base_channels=8).base_channels == 8
    with pytest.raises(TypeError, match='no_such_keyword'):
        _build('mmdet', no_such_keyword=1)


def test_scoped_name_and_explicit_library():
    config = dict(type='vito_mm.VITOResNet', depth=18, library='mmdet')
    assert isinstance(ROOT_MODELS.build(config), STOCK['mmdet'])
    with pytest.raises(ValueError, match='no scope'):
        ROOT_MODELS.build(dict(config, library='mmcls'))


# The class that ResNet would have been at the same place


@pytest.mark.parametrize('library', STOCK)
@pytest.mark.parametrize('scope', [None, 'mmengine', *STOCK])
def test_a_prefix_decides_in_every_scope(library, scope):
    with DefaultScope.overwrite_default_scope(scope):
        backbone = ROOT_MODELS.build(dict(type=f'{library}.VITOResNet', depth=18))
    assert isinstance(backbone, STOCK[library])
    assert isinstance(backbone, VITOResNet)


@pytest.fixture
def no_scope(monkeypatch):
    """Other tests leave the scopes of their runs."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())


@pytest.mark.usefixtures('no_scope')
def test_without_a_scope_the_registry_decides_and_a_notebook_gets_that_of_mmpretrain():
    import_module('vito_mm.probes.linear_segmentation_head')  # has models for mmseg
    for library, stock in STOCK.items():
        registry = import_module(f'{library}.registry').MODELS
        assert isinstance(registry.build(dict(type='VITOResNet', depth=18)), stock)
    for scope in (None, 'mmengine', 'vito_mm'):
        with DefaultScope.overwrite_default_scope(scope):
            assert isinstance(VITOResNet(18), STOCK['mmpretrain'])
            backbone = ROOT_MODELS.build(dict(type='vito_mm.VITOResNet', depth=18))
            assert isinstance(backbone, STOCK['mmpretrain'])


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        (name, kind)
        for name, (_, kinds) in third_parties.CASES.items()
        for kind in (*kinds, 'vito_mm.VITOResNet')
        # Another prefix decides alone, see above.
        if kind is None or not kind.startswith('mm')
    ],
)
def test_two_changes_are_enough_in_other_packages(name, kind, checkpoint, packages, tmp_path):
    base = third_parties.write_config(tmp_path, name)
    cfg = Config.fromfile(third_parties.with_two_changes(base, kind, checkpoint))
    model = third_parties.build(cfg)
    (backbone,) = (module for module in model.modules() if isinstance(module, VITOResNet))
    module, _, stock = third_parties.CASES[name][0].rpartition('.')
    assert isinstance(backbone, getattr(import_module(module), stock))
    model.init_weights()
    weights = torch.load(checkpoint)['state_dict']
    loaded = backbone.state_dict()
    assert len(loaded) == (100 if name == 'python_pose' else 120)  # no counters in frozen norm
    for key, value in loaded.items():
        assert torch.equal(value, weights[f'backbone.{key}']), key
    assert type(pickle.loads(pickle.dumps(backbone))) is type(backbone)


def test_a_scope_that_has_no_resnet_to_be_is_named(packages):
    model = dict(type='Alone', backbone=dict(type='VITOResNet', depth=18))
    with DefaultScope.overwrite_default_scope('tiny_alone'):
        with pytest.raises(ValueError, match=r'tiny_alone.*mmdet\.VITOResNet.*library='):
            ROOT_MODELS.build(model)
        for remedy in (dict(type='mmdet.VITOResNet'), dict(library='mmdet')):
            model['backbone'].update(remedy)
            assert isinstance(ROOT_MODELS.build(model).backbone, STOCK['mmdet'])
            model['backbone'].update(type='VITOResNet')


def test_a_registry_below_a_package_has_its_own(packages):
    """As that of a user's project whose parent is mmdet's registry."""

    class ResNet(STOCK['mmdet']):
        pass

    registry = Registry('model', parent=import_module('mmdet.registry').MODELS, scope='tiny_child')
    with DefaultScope.overwrite_default_scope('tiny_child'):
        config = dict(type='VITOResNet', depth=18)
        assert isinstance(ROOT_MODELS.build(config), STOCK['mmdet'])
        registry.register_module(module=ResNet)
        assert isinstance(ROOT_MODELS.build(config), ResNet)
        config = dict(type='mmdet.VITOResNet', depth=18)
        assert not isinstance(ROOT_MODELS.build(config), ResNet)


def test_random_weights_are_said_to_be_random(log):
    _build('mmdet').init_weights()
    assert log == ['VITOResNet: checkpoint=None, the stock initialisation stands']


def test_missing_file_matters_only_when_training(tmp_path):
    backbone = _build('mmdet', checkpoint=str(tmp_path / 'gone.pth'))
    with pytest.raises(CheckpointError, match=r'no checkpoint .*gone.pth.*--cfg-options model'):
        backbone.init_weights()


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


# What a config adds, leaves out or changes

CONTEXT = dict(
    cfg=dict(type='ContextBlock', ratio=1 / 4),
    stages=(False, True, True, True),
    position='after_conv3',
)
KEYWORDS = {
    'dilations': dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    'contract_dilation': dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True),
    'multi_grid': dict(dilations=(1, 1, 1, 2), multi_grid=(1, 2, 4)),
    'with_cp': dict(with_cp=True),
    'frozen_stages': dict(frozen_stages=1, norm_eval=True),
    'norm_cfg': dict(norm_cfg=dict(type='SyncBN', requires_grad=True)),
    'out_indices': dict(out_indices=(3,)),
    'zero_init_residual': dict(zero_init_residual=False),
    'caffe': dict(style='caffe'),
    'dcn': dict(
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    ),
    'plugins': dict(plugins=[CONTEXT]),
}


@pytest.fixture(scope='module')
def checkpoint50(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp('checkpoint') / 'r50.pth'
    weights = resnet50().state_dict()
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in weights.items()}}, file)
    return str(file)


@pytest.mark.parametrize(
    ('library', 'name'),
    [('mmseg', name) for name in KEYWORDS]
    + [('mmdet', name) for name in KEYWORDS if name not in ('contract_dilation', 'multi_grid')],
)
def test_every_keyword_means_what_it_means_in_the_stock_class(
    library, name, checkpoint, checkpoint50
):
    keywords = KEYWORDS[name]
    # Only bottleneck blocks have all of these.
    is_deep = name in ('caffe', 'dcn', 'plugins')
    depth, file = (50, checkpoint50) if is_deep else (18, checkpoint)
    backbone = _build(library, depth=depth, checkpoint=file, **keywords)
    with DefaultScope.overwrite_default_scope(library):
        # mmdet's and mmpretrain's own default is to keep batch norm in evaluation mode.
        stock = STOCK[library](depth, **(dict(norm_eval=False) | keywords))
    backbone.init_weights()
    assert str(stock).split('(', 1)[1] == str(backbone).split('(', 1)[1]
    loaded = backbone.state_dict()
    for key, value in torch.load(file)['state_dict'].items():
        if not key.startswith('backbone.fc.'):
            assert torch.equal(loaded[key.removeprefix('backbone.')], value), key
    backbone.train()
    stock.train()
    assert [p.requires_grad for p in backbone.parameters()] == [
        p.requires_grad for p in stock.parameters()
    ]
    assert [m.training for m in backbone.modules()] == [m.training for m in stock.modules()]


@pytest.mark.parametrize(
    ('name', 'number', 'example'),
    [('dcn', 26, 'layer2.0.conv2.conv_offset.weight'), ('plugins', 104, 'layer2.0.context_block')],
)
def test_what_the_config_adds_is_new_not_missing(name, number, example, checkpoint50, log):
    _build('mmdet', depth=50, checkpoint=checkpoint50, **KEYWORDS[name]).init_weights()
    assert 'loaded 318/318 backbone keys' in log[0]
    assert f'{number} new: {example}' in log[1]


def test_a_stage_that_the_model_does_not_have_is_told(checkpoint, log):
    three = dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,))
    backbone = _build('mmdet', checkpoint=checkpoint, **three)
    backbone.init_weights()
    assert 'loaded 90/90' in log[0]
    assert 'stage 4 of the checkpoint is skipped' in log[1]


def test_group_norm_cannot_take_batch_norm(checkpoint):
    backbone = _build('mmdet', checkpoint=checkpoint, norm_cfg=dict(type='GN', num_groups=32))
    with pytest.raises(CheckpointError, match=r"unexpected: bn1[\s\S]*norm_cfg=dict\(type='BN'\)"):
        backbone.init_weights()


def test_settings_that_waste_the_weights_are_warned_of_once_loaded(checkpoint, log):
    backbone = _build('mmdet', checkpoint=checkpoint, frozen_stages=1, norm_eval=True)
    assert not log  # a model that is built to be tested needs no advice
    backbone.init_weights()
    assert 'frozen_stages=1, norm_eval=True' in log[1]
    assert 'about 2 AP' in log[1]
    log.clear()
    _build('mmdet', checkpoint=checkpoint).init_weights()
    probe = dict(frozen_stages=4, norm_eval=True)  # wholly frozen is meant so
    _build('mmdet', checkpoint=checkpoint, **probe).init_weights()
    assert ['loaded' in line for line in log] == [True, True]


def test_settings_that_compute_something_else_are_warned_of(checkpoint50, log):
    for keywords in (dict(style='caffe'), dict(norm_cfg=dict(type='BN', eps=0))):
        _build('mmdet', depth=50, checkpoint=checkpoint50, **keywords).init_weights()
    warnings = [line for line in log if 'loaded' not in line]
    assert 'moves the stride' in warnings[0]
    assert 'norm_cfg.eps=0' in warnings[1]
    assert len(warnings) == 2


CAFFE = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)
USUAL = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)


@pytest.mark.parametrize(
    ('is_nested', 'changes', 'told'),
    [
        (False, {}, []),
        (False, CAFFE, ['arrive as BGR, std=[1, 1, 1] instead of RGB']),
        (False, dict(bgr_to_rgb=False), ['arrive as BGR, mean=']),
        (False, dict(std=[255.0] * 3, mean=[0.0] * 3), ['mean=[0, 0, 0], std=[255, 255, 255]']),
        (True, CAFFE, ['arrive as BGR']),
    ],
)
def test_input_that_the_checkpoint_was_not_trained_on(is_nested, changes, told, checkpoint, log):
    """Known although a module does not know the model around it."""
    backbone = dict(type='VITOResNet', depth=18, checkpoint=checkpoint, out_indices=(0, 1, 2, 3))
    head = dict(type='FCNHead', in_channels=512, channels=16, num_classes=3, num_convs=1)
    if is_nested:
        head |= dict(in_channels=128, in_index=0)
        backbone = dict(
            type='BiSeNetV1',
            backbone_cfg=backbone,
            context_channels=(128, 256, 512),
            spatial_channels=(64, 64, 64, 128),
            out_channels=128,
        )
    preprocessor = dict(type='SegDataPreProcessor') | USUAL | changes
    config = dict(
        type='EncoderDecoder', backbone=backbone, decode_head=head, data_preprocessor=preprocessor
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        ROOT_MODELS.build(config).init_weights()
    warnings = [line for line in log if 'data preprocessor' in line]
    assert len(warnings) == bool(told)
    assert all(text in warnings[0] for text in told)


@pytest.mark.parametrize('around', [torch.nn.Sequential, lambda x: torch.nn.ModuleList([x])])
def test_training_without_the_weights_is_refused(around, checkpoint):
    """MMEngine initialises children that are BaseModules, not those within plain modules."""

    class Model(BaseModule):
        def __init__(self, backbone):
            super().__init__()
            self.body = around(backbone)

    backbone = _build('mmdet', checkpoint=checkpoint)
    model = Model(backbone)
    model.init_weights()
    images = torch.zeros(2, 3, 64, 64)
    model.eval()
    backbone(images)
    model.train()
    with pytest.raises(CheckpointError, match=r'nothing called its init_weights'):
        backbone(images)
    resumed = copy.deepcopy(backbone)
    resumed.load_state_dict(STOCK['mmdet'](18).state_dict())
    backbone.init_weights()
    for filled in (backbone, resumed):
        filled(images)


def test_input_is_judged_where_a_model_wraps_its_parts_to_copy_them(checkpoint, log):
    """As MoCo and BYOL do, which leaves the backbone in a module that is gone."""

    class Model(BaseModel):
        def __init__(self, backbone):
            super().__init__(dict(type='ImgDataPreprocessor', **CAFFE))
            self.backbone = backbone
            copy.deepcopy(torch.nn.Sequential(self.backbone, torch.nn.Identity()))

        def forward(self, *args):
            raise NotImplementedError

    model = Model(_build('mmdet', checkpoint=checkpoint))
    model.init_weights()
    assert any('arrive as BGR' in line for line in log)


def test_weights_that_are_replaced_afterwards_are_told(checkpoint, log):
    """``load_from`` and an init_cfg of the whole model come after the backbone (mmseg #1473)."""
    model = torch.nn.ModuleDict({'backbone': _build('mmdet', checkpoint=checkpoint)})
    model['backbone'].init_weights()
    other = {f'backbone.{k}': v for k, v in STOCK['mmdet'](18).state_dict().items()}
    load_state_dict(model, {'head.weight': torch.zeros(1)})
    assert len(log) == 1
    load_state_dict(model, other)
    assert 'other weights replace those of' in log[1]
    model.load_state_dict(other)
    assert len(log) == 2


def test_weights_are_loaded_once(checkpoint):
    backbone = _build('mmseg', checkpoint=checkpoint)
    backbone.init_weights()
    _assert_loaded(backbone, checkpoint)
    backbone.conv1.weight.data.zero_()
    backbone.init_weights()  # MMEngine only warns of a second call
    assert not backbone.conv1.weight.any()
