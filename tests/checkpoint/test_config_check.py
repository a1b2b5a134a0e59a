"""The verdict on a config and a checkpoint without training."""

import pickle
import re
import shlex
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS

from tests.conftest import REPO
from tests.helpers import third_parties
from tests.helpers.demo_network import demo_checkpoint, demo_weights
from tests.helpers.processes import run_tool
from vito_mm.checkpoint import CheckpointError, check_config
from vito_mm.checkpoint.config_check import READS_ANY

PASCAL = REPO / 'configs' / 'miniscenes' / 'seg_pascal.py'
MMSEG = 'mmseg::fcn/fcn_r50-d8_4xb4-40k_voc12aug-512x512.py'
MMDET_R18 = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
MMDET = 'mmdet::mask_rcnn/mask-rcnn_r50-caffe_fpn_ms-poly-1x_coco.py'
SUPERVISED_INPUT = """
model['data_preprocessor'] = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
)
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        file = tmp_path / 'config.py'
        file.write_text(text)
        return file

    return write


def _small(base, extra='', **backbone):
    """A stock config at depth 18."""
    return f'_base_ = {base!r}\nmodel = dict(backbone=dict(depth=18, {extra}))\n'


def test_one_missing_key(tmp_path):
    content = demo_weights()
    del content['layer3.1.bn2.bias']
    torch.save(content, tmp_path / 'less.pth')
    with pytest.raises(CheckpointError, match=r'119/120[\s\S]*missing: layer3\.1\.bn2\.bias'):
        check_config(PASCAL, tmp_path / 'less.pth')
    config = Config.fromfile(PASCAL)
    config.model.backbone.allow_partial = True
    assert not check_config(config, tmp_path / 'less.pth').match.complete


def test_the_file_that_the_config_names(write, checkpoints):
    config = write(_small(MMSEG, f"type='VITOResNet', checkpoint={checkpoints['moco']!r}"))
    check = check_config(config)
    assert check.checkpoint == checkpoints['moco']
    assert any('model.pretrained=' in warning for warning in check.warnings)
    with pytest.raises(CheckpointError, match='names no checkpoint'):
        check_config(write(_small(MMSEG, 'type="VITOResNet"')))


def test_what_replaces_the_weights_afterwards_is_an_error(write, checkpoints):
    text = _small(MMSEG, f"type='VITOResNet', checkpoint={checkpoints['training']!r}")
    with pytest.raises(CheckpointError, match=r"load_from='other\.pth' replaces"):
        check_config(write(text + "load_from = 'other.pth'\n"))
    text = _small(MMDET, f"type='VITOResNet', checkpoint={checkpoints['training']!r}")
    whole = "model['init_cfg'] = dict(type='Pretrained', checkpoint='whole.pth')\n"
    with pytest.raises(CheckpointError, match=r"model\.init_cfg loads 'whole\.pth' over"):
        check_config(write(text + whole))


def test_caffe_settings_of_a_stock_detector(write, checkpoints):
    """The file tells its input, so that another one is an error unless that is allowed."""
    ours = f"type='VITOResNet', checkpoint={checkpoints['training']!r}"
    with pytest.raises(CheckpointError, match=r'BGR, std=\[1, 1, 1\] instead of RGB'):
        check_config(write(_small(MMDET, ours)))
    check = check_config(write(_small(MMDET, f'{ours}, allow_partial=True')))
    assert check.match.complete
    text = '\n'.join(check.warnings)
    assert 'frozen_stages=1, norm_eval=True, norm_cfg.requires_grad=False' in text
    assert 'channels arrive as BGR, std=[1, 1, 1] instead of RGB' in text
    assert 'std=[58.395, 57.12, 57.375], bgr_to_rgb=True' in text


@pytest.mark.parametrize(
    ('prefix', 'kind', 'message'),
    [
        ('backbone.', 'training', None),
        ('backbone', 'training', None),
        ('module.backbone.', 'ddp', None),
        (
            'backbone.',
            'ddp',
            r"'backbone\.' leaves 120 of 120 keys .* give prefix='module\.backbone\.'",
        ),
        ('target_net.module.0.', 'training', None),
        (None, 'torchvision', None),
        (None, 'training', r"prefix='' leaves .* of 120 .* give prefix='backbone\.'"),
        ('encoder.', 'training', r"prefix='encoder\.' leaves 120 of 120 keys"),
        (None, 'model_entry', r'export_checkpoint\.py'),
        ('backbone.', 'lightly', 'with sequential names'),
        (None, 'namespace', r'export_checkpoint\.py'),
    ],
)
def test_plain_init_cfg(prefix, kind, message, write, checkpoints):
    """The way without vito_mm; MMEngine itself decides whether the verdict is right."""
    init_cfg = dict(type='Pretrained', checkpoint=checkpoints[kind])
    if prefix:
        init_cfg['prefix'] = prefix
    config = write(_small(MMDET, f'init_cfg={init_cfg!r}, style="pytorch"') + SUPERVISED_INPUT)
    which = 'target' if 'target' in (prefix or '') else 'online'
    if kind == 'namespace' and READS_ANY:
        message = None  # MMEngine reads any file there
    assert _stock_init_loads_all(config, checkpoints[kind], which) == (message is None)
    if message is None:
        assert check_config(config).match.complete
    else:
        with pytest.raises(CheckpointError, match=message):
            check_config(config)


def _stock_init_loads_all(config, checkpoint, which):
    from mmdet.models.backbones import ResNet

    from vito_mm.checkpoint import load_backbone

    expected = ResNet(18)
    load_backbone(expected, checkpoint, which)
    backbone = dict(Config.fromfile(config).model.backbone)
    backbone.pop('type')
    model = ResNet(**backbone)
    try:
        model.init_weights()
    except (AssertionError, RuntimeError, pickle.UnpicklingError):
        # MMEngine notices when nothing has the prefix, and cannot read a Namespace.
        return False
    wanted = expected.state_dict()
    return all(torch.equal(v, wanted[k]) for k, v in model.state_dict().items() if 'num_' not in k)


def test_a_stock_resnet_that_names_another_file(write, checkpoints):
    check = check_config(write(_small(MMSEG, "type='ResNet'")), checkpoints['training'])
    assert check.match.complete
    assert (
        'model.backbone is ResNet and starts from open-mmlab://resnet50_v1c, not from'
        in check.warnings[-1]
    )


def test_the_same_file_under_another_name_is_the_same(write, checkpoints, monkeypatch):
    init_cfg = dict(type='Pretrained', checkpoint=checkpoints['training'], prefix='wrong.')
    config = write(_small(MMDET, f'init_cfg={init_cfg!r}, style="pytorch"'))
    monkeypatch.chdir(Path(checkpoints['training']).parent)
    with pytest.raises(CheckpointError, match=r"prefix='wrong\.' leaves 120"):
        check_config(config, 'training.pth')


def test_pretrained_means_another_thing_in_each_library(checkpoints):
    """mmseg hands it to the backbone, mmpretrain loads the whole model by it."""
    backbone = dict(type='VITOResNet', depth=18, checkpoint=checkpoints['training'])
    model = dict(type='ImageClassifier', pretrained='other.pth', backbone=backbone)
    with pytest.raises(CheckpointError, match=r"model\.pretrained loads 'other\.pth' over"):
        check_config(Config(dict(default_scope='mmpretrain', model=model)))
    backbone = dict(type='ResNet', depth=18)
    head = dict(type='FCNHead', in_channels=512, channels=4, num_classes=3, num_convs=1)
    model = dict(type='EncoderDecoder', backbone=backbone, decode_head=head)
    model['pretrained'] = checkpoints['torchvision']
    check = check_config(Config(dict(default_scope='mmseg', model=model)))
    assert (check.checkpoint, check.warnings) == (checkpoints['torchvision'], [])
    model['pretrained'] = checkpoints['training']
    with pytest.raises(CheckpointError, match="give prefix='backbone"):
        check_config(Config(dict(default_scope='mmseg', model=model)))


class Two(BaseModel):
    """A model of two backbones and a part without a type."""

    def __init__(self, backbone, ir_backbone=None, neck=None):
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.ir_backbone = ir_backbone and MODELS.build(ir_backbone)

    forward = None


def test_every_backbone_of_a_config_is_checked(checkpoints, tmp_path):
    ours = dict(type='VITOResNet', depth=18, checkpoint=checkpoints['training'])
    init_cfg = dict(type='Pretrained', checkpoint=checkpoints['training'], prefix='wrong.')
    for other, message in (
        (dict(ours, checkpoint=str(tmp_path / 'gone.pth')), 'no checkpoint .*gone'),
        (dict(type='ResNet', depth=18, init_cfg=init_cfg), r'model\.ir_backbone\.init_cfg .*wrong'),
    ):
        model = dict(type=Two, backbone=ours, ir_backbone=other, neck=dict(type=None))
        with pytest.raises(CheckpointError, match=message):
            check_config(Config(dict(default_scope='mmdet', model=model)))


@pytest.mark.parametrize(
    ('mean', 'std', 'told'),
    [([127.5], [127.5], True), ([123.675, 116.28, 103.53] * 2, [58.395, 57.12, 57.375] * 2, False)],
)
def test_other_numbers_of_channels(mean, std, told, checkpoints):
    backbone = dict(type='VITOResNet', depth=18, checkpoint=checkpoints['training'])
    preprocessor = dict(mean=mean, std=std, to_rgb=True)
    model = dict(type='ImageClassifier', backbone=backbone, data_preprocessor=preprocessor)
    refused = pytest.raises(CheckpointError, match='data preprocessor') if told else nullcontext()
    with refused:
        check = check_config(Config(dict(default_scope='mmpretrain', model=model)))
        assert not any('data preprocessor' in warning for warning in check.warnings)


def test_the_preprocessor_that_is_called_is_judged(checkpoints):
    """A semi-supervised detector has one around its detector's, which is never called."""
    right = dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    )
    caffe = dict(right, mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)
    for outer, inner, is_bgr in ((right, caffe, False), (caffe, right, True)):
        backbone = dict(type='VITOResNet', depth=18, checkpoint=checkpoints['training'])
        model = dict(
            type='SoftTeacher',
            detector=dict(
                type='SingleStageDetector',
                backbone=backbone,
                bbox_head=dict(type='torch.nn.Identity'),
                data_preprocessor=inner,
            ),
            data_preprocessor=dict(type='MultiBranchDataPreprocessor', data_preprocessor=outer),
            semi_train_cfg=dict(),
        )
        with pytest.raises(CheckpointError, match='BGR') if is_bgr else nullcontext():
            check_config(Config(dict(default_scope='mmdet', model=model)))
        model['detector']['backbone']['allow_partial'] = True
        check = check_config(Config(dict(default_scope='mmdet', model=model)))
        assert (check.place, check.match.complete) == ('model.detector.backbone', True)
        assert any('BGR' in warning for warning in check.warnings) == is_bgr


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            "_base_ = 'mmseg::hrnet/fcn_hr18_4xb2-40k_cityscapes-512x1024.py'",
            r'missing: [\s\S]*another architecture',
        ),
        ('lr = 1', 'has no model'),
    ],
)
def test_configs_that_a_resnet_does_not_fit(text, message, write, checkpoints):
    with pytest.raises(CheckpointError, match=message):
        check_config(write(text), checkpoints['training'])


@pytest.mark.parametrize(
    'name', ['nowhere.py', 'mmdet::retinanet/no_such.py', 'no_such_package::a/b.py']
)
def test_configs_that_are_not_there(name, checkpoints):
    with pytest.raises(FileNotFoundError, match='there is no config'):
        check_config(name, checkpoints['training'])


@pytest.fixture(scope='module')
def packages(tmp_path_factory):
    third_parties.install(tmp_path_factory.mktemp('packages'))


@pytest.mark.parametrize('name', third_parties.CASES)
def test_configs_of_other_packages(name, packages, checkpoints, tmp_path):
    """Resolved as the build does."""
    base = third_parties.write_config(tmp_path, name)
    stock = check_config(base, checkpoints['torchvision']) if name != 'tiny_change' else None
    assert stock is None or stock.match.complete
    for kind in third_parties.CASES[name][1]:
        config = third_parties.with_two_changes(base, kind, checkpoints['training'])
        check = check_config(config)
        assert check.match.complete
        assert check.place == third_parties.PLACES.get(name, 'model.backbone')


def test_a_model_that_cannot_be_built_is_not_complete(packages, checkpoints):
    ours = dict(type='VITOResNet', depth=18, checkpoint=checkpoints['training'])
    model = dict(type='Alone', backbone=ours)
    with pytest.raises(CheckpointError, match=r"cannot be built.*'tiny_alone' has no ResNet"):
        check_config(Config(dict(default_scope='tiny_alone', model=model)))
    model = dict(type='FCOS', backbone=ours, neck=dict(type='NoSuchNeck'), bbox_head=dict())
    with pytest.raises(CheckpointError, match=r'cannot be built.*NoSuchNeck'):
        check_config(Config(dict(default_scope='mmdet', model=model)))
    model = dict(type=Two, backbone=dict(type='ResNet', depth=18), neck=dict(backbone=ours))
    with pytest.raises(CheckpointError, match=r'does not build model\.neck\.backbone'):
        check_config(Config(dict(default_scope='mmdet', model=model)))


def test_configs_by_their_names_in_a_package(checkpoints, tmp_path):
    for name, file in (
        ('mmseg::fcn/fcn_r18b-d8_4xb2-80k_cityscapes-512x1024.py', checkpoints['torchvision']),
        ('mmpretrain::resnet/resnet18_8xb32_in1k.py', checkpoints['torchvision']),
        ('vito_mm::miniscenes/seg_pascal.py', demo_checkpoint(tmp_path / 'demo.pth')),
    ):
        assert check_config(name, file).match.complete


def test_pre_training_configs(checkpoints, tmp_path):
    checkpoint = demo_checkpoint(tmp_path / 'demo.pth')
    config = Config.fromfile(REPO / 'configs' / 'miniscenes' / 'pretrain_r18.py')
    assert 'starts from random weights' in check_config(config, checkpoint).warnings[-1]
    config.model.backbone.update(type='VITOResNet', checkpoint=checkpoint)
    check = check_config(config)
    assert (check.match.complete, check.warnings, check.note) == (True, [], '')
    backbone = dict(type='VITOResNet', depth=18, checkpoint=checkpoints['training'])
    neck = dict(type='NonLinearNeck', in_channels=512, hid_channels=16, out_channels=16)
    head = dict(type='LatentPredictHead', predictor=dict(neck, in_channels=16))
    head['loss'] = dict(type='CosineSimilarityLoss')
    model = dict(type='BYOL', backbone=backbone, neck=neck, head=head)
    assert check_config(Config(dict(default_scope='mmpretrain', model=model))).match.complete


def test_a_config_that_never_imports_vito_mm(write, checkpoints):
    text = f'type={{!r}}, checkpoint={checkpoints["training"]!r}'
    for kind, told in (('VITOResNet', True), ('vito_mm.VITOResNet', False)):
        warnings = check_config(write(_small(MMSEG, text.format(kind)))).warnings
        assert any('custom_imports=' in warning for warning in warnings) == told


@pytest.mark.parametrize('name', ['tiny_rotate', 'python_mmdet', MMDET_R18])
def test_the_advice_works_when_typed(name, packages, checkpoints, tmp_path, monkeypatch, capsys):
    is_file = '::' not in name
    config = third_parties.write_config(tmp_path, name) if is_file else name
    file = checkpoints['training']
    run_tool(monkeypatch, 'check_checkpoint.py', config, file)
    advice = re.search(r'not from this file\. Set (.*)', capsys.readouterr().out)[1]
    run_tool(monkeypatch, 'check_checkpoint.py', config, *shlex.split(advice))
    out = capsys.readouterr().out
    assert 'complete: model.backbone gets 120/120' in out
    assert 'starts from' not in out
    other = checkpoints['moco']
    run_tool(monkeypatch, 'check_checkpoint.py', config, other, *shlex.split(advice))
    advice += re.search(r'name this file by --cfg-options(.*)', capsys.readouterr().out)[1]
    run_tool(monkeypatch, 'check_checkpoint.py', config, *shlex.split(advice))
    assert f'from {other}' in capsys.readouterr().out


def test_the_advice_for_a_file_that_command_lines_cannot_name(write, tmp_path, monkeypatch, capsys):
    file = tmp_path / 'vito, "final" (2).pth'
    demo_checkpoint(file)
    run_tool(monkeypatch, 'check_checkpoint.py', PASCAL, file)
    advice = re.search(r'name this file by (.*) in the config', capsys.readouterr().out)[1]
    run_tool(monkeypatch, 'check_checkpoint.py', write(f'_base_ = {str(PASCAL)!r}\n{advice}\n'))
    out = capsys.readouterr().out
    assert out.startswith('complete')
    assert 'Note' not in out


def test_command(tmp_path, monkeypatch, capsys):
    checkpoint = demo_checkpoint(tmp_path / 'demo.pth')
    run_tool(monkeypatch, 'check_checkpoint.py', PASCAL, checkpoint)
    out = capsys.readouterr().out
    assert out.startswith('complete: model.backbone gets 120/120 backbone keys from')
    assert 'name this file by --cfg-options model.backbone.checkpoint=' in out
    assert 'WARNING' not in out
    with pytest.raises(SystemExit, match=r'NOT complete\. There is no checkpoint'):
        run_tool(monkeypatch, 'check_checkpoint.py', PASCAL, tmp_path / 'gone.pth')
    with pytest.raises(SystemExit, match=r'NOT complete\. open-mmlab://resnet50_v1c is an address'):
        run_tool(monkeypatch, 'check_checkpoint.py', MMSEG)
    frozen = ('--cfg-options', 'model.backbone.frozen_stages=1')
    run_tool(monkeypatch, 'check_checkpoint.py', PASCAL, checkpoint, *frozen)
    assert 'WARNING: the config keeps frozen_stages=1' in capsys.readouterr().out
    with pytest.raises(SystemExit) as error:
        run_tool(monkeypatch, 'check_checkpoint.py', PASCAL, checkpoint, '--strict', *frozen)
    assert error.value.code == 1
    capsys.readouterr()
    wholly = (*frozen, 'model.backbone.norm_eval=True', 'model.backbone.frozen=True')
    run_tool(monkeypatch, 'check_checkpoint.py', PASCAL, checkpoint, '--strict', *wholly)
    assert 'WARNING' not in capsys.readouterr().out
