"""Exported backbones other than ResNets: the same features in each program, or refused."""

import mmpretrain.models
import pytest
import timm
import torch
from mmdet.models.backbones import ResNeXt
from mmengine.config import Config
from mmpretrain.models.backbones import ResNet

from tests.helpers import backbones
from tests.helpers.backbones import openmmlab_features, randomised
from tests.helpers.processes import run_tool
from vito_mm.checkpoint import CheckpointError, export_backbone, load_backbone
from vito_mm.checkpoint.architectures import TIMM, config_of_weights, timm_name

MODELS = {
    'swin_tiny_patch4_window7_224': lambda: mmpretrain.models.SwinTransformer(
        'tiny', out_indices=(2, 3)
    ),
    'convnextv2_atto': lambda: mmpretrain.models.ConvNeXt(
        'atto',
        out_indices=(2, 3),
        use_grn=True,
        layer_scale_init_value=0.0,
        gap_before_final_norm=False,
        linear_pw_conv=False,
    ),
    'vit_tiny_patch16_224': lambda: mmpretrain.models.VisionTransformer(
        'deit-tiny', out_type='raw'
    ),
}


def _save(model, file, config=None):
    weights = {f'backbone.{key}': value for key, value in model.state_dict().items()}
    meta = dict(iter=7) | (dict(cfg=config) if config else {})
    torch.save({'state_dict': weights, 'meta': meta}, file)
    return str(file)


@pytest.mark.parametrize('name', MODELS)
@torch.no_grad()
def test_timm(name, tmp_path):
    source = randomised(MODELS[name]())
    out = tmp_path / 'timm.safetensors'
    meta = export_backbone(_save(source, tmp_path / 'iter_7.pth'), out, layout='timm')['meta']
    assert (meta['architecture'], meta['step'], meta['which']) == (name, 7, 'online')
    model = timm.create_model(name, num_classes=0, checkpoint_path=str(out)).eval()
    images = torch.rand(1, 3, 224, 224)
    found, wanted = model.forward_features(images), openmmlab_features(source, images)[-1]
    if 'convnext' in name:
        found = model.head.norm(found)
    elif 'swin' in name:
        found = found.permute(0, 3, 1, 2)
    torch.testing.assert_close(
        found / wanted.abs().max(), wanted / wanted.abs().max(), atol=1e-5, rtol=0
    )
    back = export_backbone(out, tmp_path / 'back.pth')
    assert back['meta'] | dict(pretrained_cfg=meta['pretrained_cfg']) == meta
    for key, value in back['state_dict'].items():
        own = source.state_dict()[key.removeprefix('backbone.')]
        assert torch.equal(value.reshape(own.shape), own)


@pytest.mark.parametrize(
    'name', ['swin_small_patch4_window7_224', 'convnext_tiny', 'vit_base_patch32_224']
)
def test_names_are_those_of_such_models(name):
    assert name in TIMM.values()
    with torch.device('meta'):
        weights = timm.create_model(name).state_dict()
    assert timm_name(config_of_weights(weights, 'online')) == name


@torch.no_grad()
def test_the_stock_swin_of_each_library_reads_an_exported_file(tmp_path):
    source = randomised(backbones.openmmlab_swin('mmpretrain'))
    file = str(tmp_path / 'out.pth')
    exported = export_backbone(_save(source, tmp_path / 'iter_7.pth'), file)
    assert exported['meta']['architecture'] == 'SwinTransformer'
    images = torch.rand(1, 3, 64, 75)
    wanted = source(images)
    init_cfg = dict(type='Pretrained', checkpoint=file, prefix='backbone.')
    for library in ('mmpretrain', 'mmdet', 'mmseg'):
        model = backbones.openmmlab_swin(library, init_cfg=Config(dict(x=init_cfg)).x)
        model.init_weights()
        model.eval()
        for x, y in zip(model(images), wanted, strict=True):
            torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ('make', 'layout', 'message'),
    [
        (lambda: backbones.openmmlab_swin('mmdet'), 'timm', 'timm has no model for'),
        (lambda: backbones.openmmlab_swin('mmdet'), 'torchvision', 'layout openmmlab'),
        (lambda: backbones.openmmlab_convnext(), 'detectron2', 'layout openmmlab'),
        (lambda: ResNet(18, stem_channels=16, base_channels=16), 'timm', '16 channels.*has 64'),
        (lambda: ResNet(18, stem_channels=16, base_channels=16), 'torchvision', 'no such model'),
    ],
)
def test_programs_without_such_a_model(make, layout, message, tmp_path):
    file = _save(randomised(make()), tmp_path / 'in.pth')
    with pytest.raises(CheckpointError, match=message):
        export_backbone(file, tmp_path / 'out.pth', layout=layout)
    assert not (tmp_path / 'out.pth').exists()
    assert export_backbone(file, tmp_path / 'out.pth')['state_dict']


def test_incomplete_ones_are_refused(tmp_path):
    source = backbones.openmmlab_swin('mmdet')
    torch.save(
        {k: v for k, v in source.state_dict().items() if k != 'stages.1.blocks.0.norm2.bias'},
        tmp_path / 'less.pth',
    )
    with pytest.raises(CheckpointError, match=r'missing: stages\.1\.blocks\.0\.norm2\.bias'):
        export_backbone(tmp_path / 'less.pth', tmp_path / 'out.pth')


def test_the_stored_or_the_named_config_tells_what_weights_do_not(tmp_path, monkeypatch, capsys):
    backbone = "dict(type='ResNeXt', depth=50, groups=32, width_per_group=4)"
    source = ResNeXt(depth=50, groups=32, base_width=4)
    text = f"model = dict(type='VITO', backbone={backbone})\n"
    file = _save(source, tmp_path / 'told.pth', text)
    exported = export_backbone(file, tmp_path / 'out.pth')
    assert exported['meta']['architecture'] == 'ResNeXt'
    assert exported['state_dict'].keys() == source.state_dict().keys()
    file = _save(source, tmp_path / 'untold.pth')
    with pytest.raises(SystemExit, match='--config'):
        run_tool(monkeypatch, 'export_checkpoint.py', file, tmp_path / 'no.pth')
    (tmp_path / 'run.py').write_text(text)
    words = (file, tmp_path / 'named.pth', '--config', tmp_path / 'run.py')
    run_tool(monkeypatch, 'export_checkpoint.py', *words)
    assert 'ResNeXt' in capsys.readouterr().out
    load_backbone(ResNeXt(depth=50, groups=32, base_width=4), tmp_path / 'named.pth')
