"""Exported files: whole, telling of their origin, and the same features in each program."""

import hashlib
import json

import pytest
import timm
import torch
from mmdet.models.backbones import ResNet as MMDetResNet
from mmpretrain.models.backbones import ResNet as MMPretrainResNet
from mmseg.models.backbones import ResNet as MMSegResNet
from safetensors import safe_open
from torchvision.models import resnet18, resnext50_32x4d, wide_resnet50_2

from tests.helpers.features import Detectron2ResNet18, assert_same_features, stages
from tests.helpers.processes import run_tool
from vito_mm.checkpoint import Checkpoint, CheckpointError, export_backbone, load_backbone
from vito_mm.checkpoint.export import LAYOUTS

ENDINGS = ('pth', 'safetensors')


@pytest.mark.parametrize('which', ['online', 'target'])
def test_openmmlab(which, checkpoints, online, target, tmp_path):
    source = online if which == 'online' else target
    file = tmp_path / 'new' / 'vito.pth'
    export_backbone(checkpoints['training'], file, which)
    content = torch.load(file)
    assert content['meta'] == {
        'architecture': 'resnet18',
        'source': checkpoints['training'],
        'which': which,
        'step': 30,
        'config_sha256': hashlib.sha256(b'model = dict()').hexdigest(),
        'preprocessing': {
            'mean': [123.675, 116.28, 103.53],
            'std': [58.395, 57.12, 57.375],
            'channel_order': 'rgb',
        },
        'conventions': {
            'padding': 'symmetric',
            'stride_in': '3x3',
            'eps': 1e-5,
            'convolution': 'Conv2d',
            'whole_image': False,
            'assumed': ['padding', 'stride_in', 'eps', 'convolution'],
            'origin': 'the config or metadata in it',
            'notice': '',
        },
    }
    assert [p.name for p in file.parent.iterdir()] == ['vito.pth']
    for stock in (MMDetResNet, MMSegResNet, MMPretrainResNet):
        model = stock(
            18,
            out_indices=(0, 1, 2, 3),
            init_cfg=dict(type='Pretrained', checkpoint=str(file)),
        )
        model.init_weights()
        assert_same_features(model, source)


def test_torchvision(checkpoints, online, tmp_path):
    file = tmp_path / 'vito.pth'
    export_backbone(checkpoints['training'], file, layout='torchvision')
    model = resnet18()
    missing, unexpected = model.load_state_dict(torch.load(file), strict=False)
    assert (missing, unexpected) == (['fc.weight', 'fc.bias'], [])
    images = torch.rand(1, 3, 64, 64)
    for x, y in zip(stages(model.eval(), images), stages(online, images), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize('ending', ENDINGS)
def test_timm(ending, checkpoints, online, tmp_path):
    file = tmp_path / f'vito.{ending}'
    export_backbone(checkpoints['training'], file, layout='timm')
    model = timm.create_model('resnet18', num_classes=0, checkpoint_path=str(file)).eval()
    images = torch.rand(1, 3, 64, 64)
    expected = stages(online, images)[-1]
    torch.testing.assert_close(model.forward_features(images), expected)


@pytest.mark.parametrize('ending', ENDINGS)
def test_detectron2(ending, checkpoints, online, tmp_path):
    file = tmp_path / f'vito.{ending}'
    export_backbone(checkpoints['training'], file, layout='detectron2')
    content = Checkpoint.read(file).content
    if ending == 'pth':  # what DetectionCheckpointer asks of a file to match names by their ends
        assert content['__author__']
        assert content['matching_heuristics'] is True
    weights = content['model' if ending == 'pth' else 'state_dict']
    model = Detectron2ResNet18()
    model.load_state_dict(weights, strict=True)
    images = torch.rand(1, 3, 64, 64)
    for x, y in zip(model.eval()(images), stages(online, images), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize(
    ('layout', 'ending'), [*((layout, 'pth') for layout in LAYOUTS), ('detectron2', 'safetensors')]
)
def test_nothing_is_lost_on_the_way_through_any_layout(layout, ending, checkpoints, tmp_path):
    first = export_backbone(checkpoints['training'], tmp_path / 'first.pth', 'target')
    there = tmp_path / f'there.{ending}'
    export_backbone(tmp_path / 'first.pth', there, layout=layout)
    back = export_backbone(there, tmp_path / 'back.pth')
    assert back['meta'] == first['meta']
    assert back['state_dict'].keys() == first['state_dict'].keys()
    assert all(torch.equal(v, back['state_dict'][k]) for k, v in first['state_dict'].items())
    assert load_backbone(MMDetResNet(18), there).which == 'target'


def test_what_is_not_known_is_said_to_be_assumed(checkpoints, tmp_path):
    meta = export_backbone(checkpoints['torchvision'], tmp_path / 'vito.pth')['meta']
    assert meta['preprocessing']['assumed'] is True
    assert 'step' not in meta
    assert 'config_sha256' not in meta


def test_safetensors_metadata_is_text(checkpoints, tmp_path):
    """The format holds strings only; other programs look for ``format``."""
    file = tmp_path / 'vito.safetensors'
    exported = export_backbone(checkpoints['training'], file)
    with safe_open(file, 'pt') as opened:
        metadata = opened.metadata()
    assert metadata['format'] == 'pt'
    assert json.loads(metadata['vito_mm']) == exported['meta'] == Checkpoint.read(file).meta


def test_onto_itself_and_wrong_network(checkpoints, tmp_path):
    file = tmp_path / 'vito.pth'
    first = export_backbone(checkpoints['training'], file)
    assert export_backbone(file, file)['meta'] == first['meta']
    with pytest.raises(CheckpointError, match='exported from the online network'):
        export_backbone(file, tmp_path / 'target.pth', which='target')
    assert not (tmp_path / 'target.pth').exists()


def test_half_a_resnet_is_refused(tmp_path):
    file = tmp_path / 'half.pth'
    torch.save({k: v for k, v in resnet18().state_dict().items() if 'layer4' not in k}, file)
    with pytest.raises(CheckpointError, match=r'no complete ResNet[\s\S]*missing: layer4'):
        export_backbone(file, tmp_path / 'out.pth')


@pytest.mark.parametrize('model', [resnext50_32x4d, wide_resnet50_2])
def test_relatives_of_the_resnet_are_refused(model, tmp_path):
    torch.save(model().state_dict(), tmp_path / 'relative.pth')
    with pytest.raises(CheckpointError, match='ResNeXt or a wide ResNet'):
        export_backbone(tmp_path / 'relative.pth', tmp_path / 'out.pth')


def test_command(checkpoints, tmp_path, monkeypatch, capsys):
    def run(*words):
        run_tool(monkeypatch, 'export_checkpoint.py', *words)

    out = tmp_path / 'vito.safetensors'
    run(checkpoints['training'], out, '--layout', 'timm', '--which', 'target')
    found = capsys.readouterr().out
    assert '120 tensors in the timm layout' in found
    assert '"which": "target"' in found
    assert out.is_file()
    with pytest.raises(SystemExit, match='no target network'):
        run(checkpoints['mmpretrain'], tmp_path / 'x.pth', '--which', 'target')
