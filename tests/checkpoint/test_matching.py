"""Backbones found in, loaded from and exported from checkpoint files."""

import pickle

import pytest
import torch
from mmdet.models.backbones import ResNet as MMDetResNet
from mmpretrain.models.backbones import ResNet as MMPretrainResNet
from mmseg.models.backbones import ResNet as MMSegResNet
from torch import nn
from torchvision.models import resnet34, resnet50

import vito_mm  # noqa: F401  lets torch.load read MMEngine's checkpoints
from tests.helpers.features import assert_same_features
from vito_mm.checkpoint import CheckpointError, load_backbone

KINDS = (
    'training',
    'ddp',
    'torchvision',
    'mmpretrain',
    'model_entry',
    'without_counters',
    'moco',
    'dino_training',
    'poodle',
    'deepspeed',
    'vince',
    'resnet18_entry',
    'numpy',
    'lightly',
    'detectron2',
    'safetensors',
)
STOCK = {
    'mmseg': lambda: MMSegResNet(18),
    'mmdet': lambda: MMDetResNet(18),
    'mmpretrain': lambda: MMPretrainResNet(18, out_indices=(0, 1, 2, 3)),
}


@pytest.mark.parametrize(
    ('kind', 'library'),
    [*((kind, 'mmdet') for kind in KINDS), ('training', 'mmseg'), ('training', 'mmpretrain')],
)
def test_every_kind_of_file_fills_every_library(kind, library, checkpoints, online):
    model = STOCK[library]()
    match = load_backbone(model, checkpoints[kind])
    assert match.complete
    assert match.which == 'online'
    assert any('a std of 1' in text for text in match.warnings()) == (kind == 'detectron2')
    assert_same_features(model, online)


@pytest.mark.parametrize(
    ('kind', 'prefix'),
    [
        ('training', 'target_net.module.0.'),
        ('moco', 'module.encoder_k.'),
        ('dino_training', 'teacher.backbone.'),
        ('poodle', 'teacher_backbone.'),
        ('deepspeed', 'module.teacher.backbone.'),
    ],
)
def test_target_network(kind, prefix, checkpoints, target):
    model = MMDetResNet(18)
    match = load_backbone(model, checkpoints[kind], which='target')
    assert match.prefix == prefix
    assert_same_features(model, target)


def test_a_whole_backbone_beside_a_bigger_one(online, tmp_path):
    """All names of the smaller one are among the bigger one's; shapes decide."""
    big = {f'big.{k}': v for k, v in resnet50().state_dict().items()}
    small = {f'small.{k}': v for k, v in online.state_dict().items()}
    torch.save(big | small, tmp_path / 'both.pth')
    assert load_backbone(MMDetResNet(18), tmp_path / 'both.pth').prefix == 'small.'


def test_two_backbones_are_told_apart_or_told_of(online, tmp_path):
    weights = {k: v for k, v in online.state_dict().items() if k[:3] != 'fc.'}
    both = {f'{name}.{k}': v for name in ('left', 'right') for k, v in weights.items()}
    torch.save(both, tmp_path / 'both.pth')
    match = load_backbone(MMDetResNet(18), tmp_path / 'both.pth')
    assert (match.prefix, match.alternative_prefixes) == ('left.', ['right.'])
    assert "'right.' holds such a backbone too" in match.warnings()[0]


def test_no_target_network(checkpoints):
    with pytest.raises(CheckpointError, match=r'no target network.*which="online"'):
        load_backbone(MMDetResNet(18), checkpoints['mmpretrain'], which='target')
    with pytest.raises(ValueError, match='which'):
        load_backbone(MMDetResNet(18), checkpoints['mmpretrain'], which='teacher')


def test_log_line(checkpoints, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'vito_mm.checkpoint.loading.print_log', lambda message, *args: lines.append(message)
    )
    load_backbone(MMDetResNet(18), checkpoints['training'])
    assert lines == [
        f'ResNet: loaded 120/120 backbone keys from {checkpoints["training"]} '
        '(prefix "backbone.", online network, step 30); '
        'assumed, as the file does not tell: symmetric padding, norm eps 1e-05'
    ]


def test_stock_pretrained_init_reads_training_checkpoint(checkpoints, online):
    init_cfg = dict(type='Pretrained', checkpoint=checkpoints['training'], prefix='backbone.')
    model = MMSegResNet(18, init_cfg=init_cfg)
    model.init_weights()
    assert_same_features(model, online)


# What must not pass


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'There is no checkpoint'),
        (b'', 'no PyTorch checkpoint: it is empty'),
        (b'<!DOCTYPE html><html>', 'no PyTorch checkpoint.*DOCTYPE'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
        (b'PK\x03\x04' + b'0' * 1000, 'damaged or incomplete'),
        ('half', 'damaged or incomplete'),
        ({'epoch': 3}, 'holds no weights'),
        (nn.Linear(2, 2).state_dict(), 'no key of a ResNet'),
        (
            {'conv1.weight': torch.zeros(2, 2)},
            r'99 missing: .*and 89 more[\s\S]*nearest prefix',
        ),
    ],
)
def test_no_checkpoint(content, message, checkpoints, tmp_path):
    file = tmp_path / 'vito.pth'
    if content == 'half':
        with open(checkpoints['training'], 'rb') as complete:
            content = complete.read(100_000)
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(CheckpointError, match=message) as error:
        load_backbone(MMDetResNet(18), file)
    assert str(file) in str(error.value)


def test_folder_and_address_and_misspelt_name(checkpoints, tmp_path):
    torch.save({}, tmp_path / 'iter_100.pth')
    with pytest.raises(CheckpointError, match=r'is a folder.*iter_100\.pth'):
        load_backbone(MMDetResNet(18), tmp_path)
    with pytest.raises(CheckpointError, match=r'iter_100\.pth'):
        load_backbone(MMDetResNet(18), tmp_path / 'iter_1000.pth')
    for address in ('https://example.org/vito.pth', 'open-mmlab://resnet50_v1c'):
        with pytest.raises(CheckpointError, match=f'{address} is an address.*Download'):
            load_backbone(MMDetResNet(18), address)


class _Config:
    """Stands for any class of a user's own code in a checkpoint."""


def test_unsafe_pickle_is_not_run(tmp_path):
    file = tmp_path / 'unsafe.pth'
    torch.save({'state_dict': {}, 'config': _Config()}, file)
    with pytest.raises(CheckpointError, match=r'no weights.*_Config'):
        load_backbone(MMDetResNet(18), file)
    file.write_bytes(pickle.dumps(_Config()))
    with pytest.raises(CheckpointError, match=r'unsafe\.pth'):
        load_backbone(MMDetResNet(18), file)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda v: v * float('nan'), 'not finite.*conv1.*diverged'),
        (lambda v: (v * 100).to(torch.int8), r'no floating-point weights.*conv1\.weight'),
        (lambda v: v.to(torch.complex64), 'no floating-point weights'),
    ],
)
def test_values_that_are_no_weights(change, message, checkpoints, tmp_path):
    content = torch.load(checkpoints['torchvision'])
    changed = {k: change(v) if v.is_floating_point() else v for k, v in content.items()}
    torch.save(changed, tmp_path / 'odd.pth')
    with pytest.raises(CheckpointError, match=message):
        load_backbone(MMDetResNet(18), tmp_path / 'odd.pth')


def test_half_precision_is_taken(tmp_path, online):
    halves = {k: v.half() if v.is_floating_point() else v for k, v in online.state_dict().items()}
    torch.save(halves, tmp_path / 'half.pth')
    model = MMDetResNet(18)
    load_backbone(model, tmp_path / 'half.pth')
    assert torch.equal(model.conv1.weight, online.conv1.weight.half().float())


def test_a_model_without_memory_and_a_program(checkpoints, tmp_path):
    with torch.device('meta'):
        model = MMDetResNet(18)
    with pytest.raises(CheckpointError, match='meta device'):
        load_backbone(model, checkpoints['training'])
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / 'program.pth')
    with pytest.raises(CheckpointError, match='TorchScript archive'):
        load_backbone(MMDetResNet(18), tmp_path / 'program.pth')


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


def test_other_depth(checkpoints, tmp_path):
    with pytest.raises(CheckpointError, match=r'holds a ResNet-18 and .* a ResNet-34'):
        load_backbone(MMDetResNet(34), checkpoints['training'])
    with pytest.raises(CheckpointError, match=r'shape mismatch: '):
        load_backbone(MMDetResNet(50), checkpoints['training'])
    torch.save(resnet34().state_dict(), tmp_path / 'deeper.pth')
    with pytest.raises(CheckpointError, match=r'unexpected: layer1.2'):
        load_backbone(MMDetResNet(18), tmp_path / 'deeper.pth')


@pytest.mark.parametrize('stock', [MMDetResNet, MMSegResNet, MMPretrainResNet])
def test_deep_stem_is_named(stock, checkpoints):
    with pytest.raises(CheckpointError, match=r'missing: stem.0[\s\S]*deep_stem=False'):
        load_backbone(stock(18, deep_stem=True), checkpoints['training'])
