"""Backbones found in, loaded from and exported from checkpoint files."""

import pickle
import runpy
from pathlib import Path

import pytest
import torch
from mmdet.models.backbones import ResNet as MMDetResNet
from mmpretrain.models.backbones import ResNet as MMPretrainResNet
from mmseg.models.backbones import ResNet as MMSegResNet
from torch import nn
from torchvision.models import resnet18, resnet34, resnet50

import vito_mm  # noqa: F401  lets torch.load read MMEngine's checkpoints
from vito_mm.transfer import CheckpointError, export_backbone, load_backbone, resnet_keys

KINDS = ('training', 'ddp', 'torchvision', 'mmpretrain', 'model_entry', 'without_counters')
STOCK = {
    'mmseg': lambda: MMSegResNet(18),
    'mmdet': lambda: MMDetResNet(18),
    'mmpretrain': lambda: MMPretrainResNet(18, out_indices=(0, 1, 2, 3)),
}


def _stages(model, images):
    x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = layer(x)
        yield x


@torch.no_grad()
def _assert_same_features(model, torchvision_model):
    images = torch.rand(2, 3, 64, 64)
    expected = list(_stages(torchvision_model, images))
    model.eval()  # returns None in OpenMMLab's ResNets
    for found, wanted in zip(model(images), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(('depth', 'model'), [(18, resnet18), (34, resnet34), (50, resnet50)])
def test_key_names_are_torchvisions(depth, model):
    with torch.device('meta'):
        keys = {k for k in model().state_dict() if not k.startswith('fc.')}
    assert set(resnet_keys(depth)) == keys


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('library', STOCK)
def test_every_kind_of_file_fills_every_library(kind, library, checkpoints, online):
    model = STOCK[library]()
    match = load_backbone(model, checkpoints[kind])
    assert match.complete
    assert match.which == 'online'
    _assert_same_features(model, online)


def test_target_network(checkpoints, target):
    model = MMDetResNet(18)
    match = load_backbone(model, checkpoints['training'], which='target')
    assert match.prefix == 'target_net.module.0.'
    _assert_same_features(model, target)


def test_no_target_network(checkpoints):
    with pytest.raises(CheckpointError, match=r'no target network.*which="online"'):
        load_backbone(MMDetResNet(18), checkpoints['mmpretrain'], which='target')
    with pytest.raises(ValueError, match='which'):
        load_backbone(MMDetResNet(18), checkpoints['mmpretrain'], which='teacher')


def test_log_line(checkpoints, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'vito_mm.transfer.checkpoint.print_log', lambda message, *args: lines.append(message)
    )
    load_backbone(MMDetResNet(18), checkpoints['training'])
    assert lines == [
        f'ResNet: loaded 120/120 backbone keys from {checkpoints["training"]} '
        '(prefix "backbone.", online network, step 30)'
    ]


def test_stock_pretrained_init_reads_training_checkpoint(checkpoints, online):
    init_cfg = dict(type='Pretrained', checkpoint=checkpoints['training'], prefix='backbone.')
    model = MMSegResNet(18, init_cfg=init_cfg)
    model.init_weights()
    _assert_same_features(model, online)


# What must not pass


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'There is no checkpoint'),
        (b'', 'no PyTorch checkpoint: it is empty'),
        (b'<!DOCTYPE html><html>', 'no PyTorch checkpoint.*DOCTYPE'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
        (b'PK\x03\x04' + b'0' * 1000, 'damaged or incomplete'),
    ],
)
def test_no_checkpoint(content, message, tmp_path):
    file = tmp_path / 'vito.pth'
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        load_backbone(MMDetResNet(18), file)
    assert str(file) in str(error.value)


def test_truncated_file(checkpoints, tmp_path):
    file = tmp_path / 'half.pth'
    with open(checkpoints['training'], 'rb') as whole:
        file.write_bytes(whole.read(100_000))
    with pytest.raises(CheckpointError, match='damaged or incomplete'):
        load_backbone(MMDetResNet(18), file)


def test_folder_and_address_and_misspelt_name(checkpoints, tmp_path):
    torch.save({}, tmp_path / 'iter_100.pth')
    with pytest.raises(CheckpointError, match=r'is a folder.*iter_100\.pth'):
        load_backbone(MMDetResNet(18), tmp_path)
    with pytest.raises(CheckpointError, match=r'iter_100\.pth'):
        load_backbone(MMDetResNet(18), tmp_path / 'iter_1000.pth')
    with pytest.raises(CheckpointError, match='Download'):
        load_backbone(MMDetResNet(18), 'https://example.org/vito.pth')


class _Config:
    """Stands for any class of a user's own code in a checkpoint."""


def test_unsafe_pickle_is_not_run(tmp_path):
    file = tmp_path / 'unsafe.pth'
    torch.save({'state_dict': {}, 'config': _Config()}, file)
    with pytest.raises(CheckpointError, match=r'_Config.*re-save the weights'):
        load_backbone(MMDetResNet(18), file)
    file.write_bytes(pickle.dumps(_Config()))
    with pytest.raises(CheckpointError, match=r'unsafe\.pth'):
        load_backbone(MMDetResNet(18), file)


def test_no_weights(tmp_path):
    file = tmp_path / 'meta.pth'
    torch.save({'epoch': 3}, file)
    with pytest.raises(CheckpointError, match='holds no weights'):
        load_backbone(MMDetResNet(18), file)


def test_other_architecture(tmp_path):
    file = tmp_path / 'linear.pth'
    torch.save(nn.Linear(2, 2).state_dict(), file)
    with pytest.raises(CheckpointError, match='no key of a ResNet'):
        load_backbone(MMDetResNet(18), file)
    torch.save({'conv1.weight': torch.zeros(2, 2)}, file)
    with pytest.raises(CheckpointError, match=r'99 missing: .*\(89 more\)[\s\S]*nearest prefix'):
        load_backbone(MMDetResNet(18), file)


def test_one_missing_key(checkpoints, tmp_path):
    file = tmp_path / 'one_less.pth'
    content = torch.load(checkpoints['torchvision'])
    del content['layer3.1.bn2.running_var']
    torch.save(content, file)
    model = MMDetResNet(18)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r'119/120[\s\S]*1 missing: layer3.1.bn2.running_var'):
        load_backbone(model, file)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    match = load_backbone(model, file, allow_partial=True)
    assert match.missing == ['layer3.1.bn2.running_var']
    assert torch.equal(model.conv1.weight, content['conv1.weight'])


def test_other_depth(checkpoints):
    with pytest.raises(CheckpointError, match=r'missing: [\s\S]*compare depth'):
        load_backbone(MMDetResNet(34), checkpoints['training'])
    with pytest.raises(CheckpointError, match=r'misshaped: '):
        load_backbone(MMDetResNet(50), checkpoints['training'])


def test_deeper_checkpoint_is_not_cut_silently(tmp_path):
    file = tmp_path / 'resnet34.pth'
    torch.save(resnet34().state_dict(), file)
    with pytest.raises(CheckpointError, match=r'unexpected: layer1.2'):
        load_backbone(MMDetResNet(18), file)


@pytest.mark.parametrize('stock', [MMDetResNet, MMSegResNet, MMPretrainResNet])
def test_deep_stem_is_named(stock, checkpoints):
    with pytest.raises(CheckpointError, match=r'missing: stem.0[\s\S]*deep_stem=False'):
        load_backbone(stock(18, deep_stem=True), checkpoints['training'])


# Export


@pytest.mark.parametrize('which', ['online', 'target'])
def test_export(which, checkpoints, online, target, tmp_path):
    source = online if which == 'online' else target
    file = tmp_path / 'new' / 'vito.pth'
    export_backbone(checkpoints['training'], file, which)
    content = torch.load(file)
    assert content['meta'] == {
        'architecture': 'resnet18',
        'source': checkpoints['training'],
        'which': which,
        'step': 30,
    }
    assert [p.name for p in file.parent.iterdir()] == ['vito.pth']

    model = resnet18()
    missing, unexpected = model.load_state_dict(content['state_dict'], strict=False)
    assert (missing, unexpected) == (['fc.weight', 'fc.bias'], [])
    again = export_backbone(file, tmp_path / 'again.pth')
    assert again['meta'] == content['meta']
    assert all(torch.equal(v, again['state_dict'][k]) for k, v in content['state_dict'].items())

    in_mmdet = MMDetResNet(18)
    assert load_backbone(in_mmdet, file).which == which
    _assert_same_features(in_mmdet, source)


def test_export_onto_itself_and_wrong_network(checkpoints, tmp_path):
    file = tmp_path / 'vito.pth'
    first = export_backbone(checkpoints['training'], file)
    assert export_backbone(file, file)['meta'] == first['meta']
    with pytest.raises(CheckpointError, match='exported from the online network'):
        export_backbone(file, tmp_path / 'target.pth', which='target')
    assert not (tmp_path / 'target.pth').exists()


def test_export_refuses_half_a_resnet(tmp_path):
    file = tmp_path / 'half.pth'
    torch.save({k: v for k, v in resnet18().state_dict().items() if 'layer4' not in k}, file)
    with pytest.raises(CheckpointError, match=r'no whole ResNet[\s\S]*missing: layer4'):
        export_backbone(file, tmp_path / 'out.pth')


# Tools

TOOLS = Path(__file__).parents[2] / 'tools'
CONFIG = str(Path(__file__).parents[2] / 'configs' / 'miniscenes' / 'seg_pascal.py')


def _run_tool(monkeypatch, name, *args):
    monkeypatch.setattr('sys.argv', [name, *map(str, args)])
    runpy.run_path(str(TOOLS / name), run_name='__main__')


def test_export_and_check_tools(checkpoints, tmp_path, monkeypatch, capsys):
    file = tmp_path / 'vito.pth'
    _run_tool(monkeypatch, 'export_checkpoint.py', checkpoints['training'], file)
    _run_tool(monkeypatch, 'check_checkpoint.py', CONFIG, file)
    assert 'complete: 120/120 keys' in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r'NOT complete\. There is no checkpoint'):
        _run_tool(monkeypatch, 'check_checkpoint.py', CONFIG, tmp_path / 'gone.pth')
    args = (checkpoints['mmpretrain'], tmp_path / 'x.pth', '--which', 'target')
    with pytest.raises(SystemExit, match='no target network'):
        _run_tool(monkeypatch, 'export_checkpoint.py', *args)
