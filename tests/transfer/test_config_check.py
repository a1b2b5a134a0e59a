"""The verdict on a config and a checkpoint without training."""

import pickle
import runpy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from tests.conftest import REPO
from vito_mm.transfer import CheckpointError, check_config

from .demo_network import demo_checkpoint, demo_weights

PASCAL = REPO / 'configs' / 'miniscenes' / 'seg_pascal.py'
MMSEG = 'mmseg::fcn/fcn_r50-d8_4xb4-40k_voc12aug-512x512.py'
MMDET = 'mmdet::mask_rcnn/mask-rcnn_r50-caffe_fpn_ms-poly-1x_coco.py'


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


def test_complete(tmp_path):
    check = check_config(PASCAL, demo_checkpoint(tmp_path / 'demo.pth'))
    assert check.match.complete
    assert (check.place, len(check.match.weights)) == ('model.backbone', 120)
    assert check.remarks == []
    assert 'name this file by --cfg-options model.backbone.checkpoint=' in check.note


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
    assert any('model.pretrained=' in remark for remark in check.remarks)
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
    check = check_config(
        write(_small(MMDET, f"type='VITOResNet', checkpoint={checkpoints['training']!r}"))
    )
    assert check.match.complete
    text = '\n'.join(check.remarks)
    assert 'frozen_stages=1, norm_eval=True, norm_cfg.requires_grad=False' in text
    assert 'channels arrive as BGR and the weights were trained on RGB' in text
    assert 'std=[1, 1, 1] instead of [58.395, 57.12, 57.375], which makes inputs 58 times' in text
    assert 'bgr_to_rgb=True' in text


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
    config = write(_small(MMDET, f'init_cfg={init_cfg!r}, style="pytorch"'))
    which = 'target' if 'target' in (prefix or '') else 'online'
    assert _stock_init_loads_all(config, checkpoints[kind], which) == (message is None)
    if message is None:
        assert check_config(config).match.complete
    else:
        with pytest.raises(CheckpointError, match=message):
            check_config(config)


def _stock_init_loads_all(config, checkpoint, which):
    from mmdet.models.backbones import ResNet

    from vito_mm.transfer import load_backbone

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
        in check.remarks[-1]
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
    model = dict(type='EncoderDecoder', pretrained=checkpoints['torchvision'], backbone=backbone)
    check = check_config(Config(dict(default_scope='mmseg', model=model)))
    assert (check.checkpoint, check.remarks) == (checkpoints['torchvision'], [])
    model['pretrained'] = checkpoints['training']
    with pytest.raises(CheckpointError, match="give prefix='backbone"):
        check_config(Config(dict(default_scope='mmseg', model=model)))


def test_every_backbone_of_a_config_is_checked(checkpoints, tmp_path):
    ours = dict(type='VITOResNet', depth=18, checkpoint=checkpoints['training'])
    init_cfg = dict(type='Pretrained', checkpoint=checkpoints['training'], prefix='wrong.')
    for other, message in (
        (dict(ours, checkpoint=str(tmp_path / 'gone.pth')), 'no checkpoint .*gone'),
        (dict(type='ResNet', depth=18, init_cfg=init_cfg), r'model\.ir_backbone\.init_cfg .*wrong'),
    ):
        model = dict(type='Two', backbone=ours, ir_backbone=other, neck=dict(type=None))
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
    check = check_config(Config(dict(default_scope='mmpretrain', model=model)))
    assert any('data preprocessor' in remark for remark in check.remarks) == told


def test_the_preprocessor_that_is_called_is_judged(checkpoints):
    """A semi-supervised detector has one around its detector's, which is never called."""
    right = dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    )
    caffe = dict(right, mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)
    backbone = dict(type='VITOResNet', depth=18, checkpoint=checkpoints['training'])
    for outer, inner, told in ((right, caffe, False), (caffe, right, True)):
        model = dict(
            type='SoftTeacher',
            detector=dict(type='FasterRCNN', backbone=backbone, data_preprocessor=inner),
            data_preprocessor=dict(type='MultiBranchDataPreprocessor', data_preprocessor=outer),
        )
        check = check_config(Config(dict(default_scope='mmdet', model=model)))
        assert any('BGR' in remark for remark in check.remarks) == told


def test_a_backbone_within_another_model(write, checkpoints):
    """Semi-supervised detectors hold a detector, BiSeNet and ICNet a backbone within theirs."""
    base = 'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py'
    change = f'dict(depth=18, type="VITOResNet", checkpoint={checkpoints["training"]!r})'
    text = f'_base_ = {base!r}\nmodel = dict(detector=dict(backbone={change}))\n'
    check = check_config(write(text))
    assert (check.place, check.match.complete) == ('model.detector.backbone', True)
    assert any('BGR' in remark for remark in check.remarks)


def test_configs_without_a_resnet(write, checkpoints):
    with pytest.raises(CheckpointError, match=r'no ResNet among .*model\.backbone: HRNet'):
        check_config(
            write("_base_ = 'mmseg::hrnet/fcn_hr18_4xb2-40k_cityscapes-512x1024.py'"),
            checkpoints['training'],
        )
    with pytest.raises(CheckpointError, match='has no model'):
        check_config(write('lr = 1'), checkpoints['training'])
    with pytest.raises(CheckpointError, match=r'no config file nowhere\.py'):
        check_config('nowhere.py', checkpoints['training'])


def _run(monkeypatch, *args):
    monkeypatch.setattr('sys.argv', ['check_checkpoint.py', *map(str, args)])
    runpy.run_path(str(REPO / 'tools' / 'check_checkpoint.py'), run_name='__main__')


def test_command(tmp_path, monkeypatch, capsys):
    checkpoint = demo_checkpoint(tmp_path / 'demo.pth')
    _run(monkeypatch, PASCAL, checkpoint)
    out = capsys.readouterr().out
    assert out.startswith('complete: model.backbone gets 120/120 backbone keys from')
    with pytest.raises(SystemExit, match=r'NOT complete\. There is no checkpoint'):
        _run(monkeypatch, PASCAL, tmp_path / 'gone.pth')
    frozen = ('--cfg-options', 'model.backbone.frozen_stages=1')
    _run(monkeypatch, PASCAL, checkpoint, *frozen)
    assert 'WARNING: the config keeps frozen_stages=1' in capsys.readouterr().out
    with pytest.raises(SystemExit) as error:
        _run(monkeypatch, PASCAL, checkpoint, '--strict', *frozen)
    assert error.value.code == 1
