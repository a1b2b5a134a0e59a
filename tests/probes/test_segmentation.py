"""The linear segmentation probe: what it trains, and that it trains nothing else."""

import json
from math import cos, pi

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from mmseg.models.backbones import ResNet
from mmseg.registry import MODELS

from tests.conftest import REPO
from tests.helpers.processes import run_tool
from tests.helpers.segmentation_world import write_world
from vito_mm.checkpoint import CheckpointError
from vito_mm.probes.image_folders import ProbeError
from vito_mm.probes.linear_segmentation_head import LinearSegmentationHead
from vito_mm.probes.loading import load_encoder
from vito_mm.probes.segmentation import (
    RECIPES,
    check_probe,
    probe_config,
)
from vito_mm.probes.segmentation_config import read_segmentation_config
from vito_mm.probes.training import train_and_evaluate


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp('world'))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A training checkpoint of a thin ResNet-18 whose running statistics are not the first ones."""
    torch.manual_seed(0)
    backbone = ResNet(depth=18, base_channels=16, stem_channels=16)
    backbone.init_weights()
    for name, buffer in backbone.named_buffers():
        if 'running' in name:
            buffer.uniform_(0.8, 1.2).sub_(1.0 if 'mean' in name else 0.0)
    weights = {f'backbone.{key}': value for key, value in backbone.state_dict().items()}
    file = tmp_path_factory.mktemp('checkpoint') / 'iter_9.pth'
    torch.save({'state_dict': weights, 'meta': {'iter': 9}}, file)
    return file


@pytest.fixture(scope='module')
def probed(world, checkpoint, tmp_path_factory):
    """Work dir and metrics of a short probe of two stages."""
    cfg = read_segmentation_config(world)
    work_dir = tmp_path_factory.mktemp('run')
    cfg = probe_config(cfg, checkpoint, work_dir, stages=(3, 4), steps=40, lr=1e-2, batch_size=8)
    return work_dir, train_and_evaluate(cfg)


def test_only_the_head_has_moved(probed, checkpoint):
    work_dir, metrics = probed
    assert metrics.keys() == {'mIoU', 'aAcc', 'mAcc', 'seconds'}
    assert metrics['mIoU'] > 60  # a guess gives 11 to 20
    before = torch.load(checkpoint)['state_dict']
    after = torch.load(work_dir / 'iter_40.pth')['state_dict']
    assert {key for key in after if key.startswith('backbone.')} == set(before)
    for key, value in before.items():
        assert torch.equal(value, after[key]), key
    head = {key: value for key, value in after.items() if key not in before}
    assert set(head) == {
        *('decode_head.conv_seg.weight', 'decode_head.conv_seg.bias'),
        *(f'decode_head.norm.{k}' for k in ('running_mean', 'running_var', 'num_batches_tracked')),
    }
    assert head['decode_head.conv_seg.weight'].shape == (3, 64 + 128, 1, 1)
    assert head['decode_head.conv_seg.weight'].std() > 0.03  # 0.01 at the start
    assert head['decode_head.norm.num_batches_tracked'] == 40
    assert head['decode_head.norm.running_var'].std() > 0


def test_config_in_the_work_dir_is_the_whole_probe(probed):
    """It can be read by itself, and tools/test.py gets the same metric from it."""
    from vito_mm.launch import build_runner

    work_dir, metrics = probed
    cfg = Config.fromfile(work_dir / 'psp.py')
    cfg.load_from = str(work_dir / 'iter_40.pth')
    cfg.work_dir, cfg.experiment_name = str(work_dir / 'again'), 'again'
    assert build_runner(cfg).test()['mIoU'] == pytest.approx(metrics['mIoU'], abs=0.01)


def test_same_seed_same_metrics_and_random_weights_have_their_own(world, tmp_path, checkpoint):
    base = read_segmentation_config(world)

    def run(file, name, seed=0):
        cfg = probe_config(base, file, tmp_path / name, steps=3, batch_size=4, seed=seed)
        train_and_evaluate(cfg)
        return tmp_path / name / 'iter_3.pth'

    files = [run(checkpoint, 'one'), run(checkpoint, 'two'), run(None, 'three')]
    one, two, random = (torch.load(file)['state_dict'] for file in files)
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert not torch.equal(one['backbone.conv1.weight'], random['backbone.conv1.weight'])
    assert one['decode_head.conv_seg.weight'].shape == (3, 128, 1, 1)


@pytest.mark.parametrize(
    'name', ['seg/vito_pascal_stock.py', 'seg/vito_ade20k_stock.py', 'miniscenes/seg_pascal.py']
)
def test_shipped_configs_become_frozen_linear_probes(name, tmp_path):
    cfg = probe_config(Config.fromfile(REPO / 'configs' / name), None, tmp_path, workers=0)
    model = MODELS.build(cfg.model)
    model.train()
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.SyncBatchNorm)]
    assert norms
    assert not any(norm.training for norm in norms)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert trained == {'decode_head.conv_seg.weight', 'decode_head.conv_seg.bias'}
    model.eval()
    features = model.extract_feat(torch.rand(1, 3, 64, 64))
    assert model.decode_head(features).shape[1] == model.num_classes
    assert cfg.val_dataloader == dict(cfg.val_dataloader, num_workers=0, persistent_workers=False)


def test_depth_and_network_can_be_chosen(world, tmp_path):
    cfg = probe_config(read_segmentation_config(world), None, tmp_path, depth=50, which='target')
    assert (cfg.model.backbone.depth, cfg.model.backbone.which) == (50, 'target')
    assert cfg.model.decode_head.in_channels == 8 * 16 * 4
    with pytest.raises(ProbeError, match=r'--stages must be among 1 to 4, got \[4, 5\]'):
        probe_config(read_segmentation_config(world), None, tmp_path, stages=(5, 4))


def test_a_checkpoint_that_is_not_whole_is_told_before_the_run(world, checkpoint, tmp_path):
    base = read_segmentation_config(world)
    check_probe(probe_config(base, checkpoint, tmp_path))
    with pytest.raises(CheckpointError, match='gone'):
        check_probe(probe_config(base, tmp_path / 'gone.pth', tmp_path))
    content = torch.load(checkpoint)
    del content['state_dict']['backbone.layer3.0.conv1.weight']
    torch.save(content, tmp_path / 'partial.pth')
    with pytest.raises(CheckpointError, match=r'layer3\.0\.conv1\.weight'):
        check_probe(probe_config(base, tmp_path / 'partial.pth', tmp_path))


@pytest.mark.parametrize('order', ['rgb', 'bgr'])
def test_a_checkpoint_brings_its_input_and_its_conventions(world, checkpoint, tmp_path, order):
    """Features in a run are those of the encoder of the file."""
    content = torch.load(checkpoint)
    pixels = dict(mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0], channel_order=order)
    content['meta'] |= dict(preprocessing=pixels, conventions=dict(padding='same', eps=1e-2))
    torch.save(content, tmp_path / 'own.pth')
    base = read_segmentation_config(world)
    cfg = probe_config(base, tmp_path / 'own.pth', tmp_path / 'run', stages=(1,), steps=1)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
    model.init_weights()
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    bgr = [torch.from_numpy(frame[..., ::-1].copy()).permute(2, 0, 1) for frame in frames]
    with torch.no_grad():
        inputs = model.data_preprocessor(dict(inputs=bgr))['inputs']
        (found,) = model.eval().backbone(inputs)
    expected = load_encoder(tmp_path / 'own.pth', device='cpu')(frames, 'res2')
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    plain = load_encoder(checkpoint, device='cpu')(frames, 'res2')
    assert (plain - expected).abs().max() > 0.1
    # The config that a file without a word on its input gets.
    cfg = probe_config(base, checkpoint, tmp_path / 'run')
    assert cfg.model.data_preprocessor == base.model.data_preprocessor


def test_other_configs_are_refused(tmp_path):
    with pytest.raises(ProbeError, match='no config file'):
        read_segmentation_config(tmp_path / 'nowhere.py')
    for name in ('det/vito_coco_stock.py', 'vito/pretrain_r50.py'):
        with pytest.raises(ProbeError, match='not a segmentation config'):
            read_segmentation_config(REPO / 'configs' / name)
    swin = tmp_path / 'swin.py'
    swin.write_text(
        "model = dict(type='EncoderDecoder', backbone=dict(type='SwinTransformer'), "
        "decode_head=dict(type='UPerHead', num_classes=2))"
    )
    with pytest.raises(ProbeError, match=r"'SwinTransformer' and not a ResNet: .*--backbone"):
        read_segmentation_config(swin, needs_resnet=True)


def test_missing_data_are_named_with_the_option_that_helps(world, tmp_path):
    key = 'val_dataloader.dataset.data_root'
    with pytest.raises(ProbeError, match=rf'{tmp_path}/gone .*--cfg-options {key}=FOLDER'):
        read_segmentation_config(world, [f'{key}={tmp_path}/gone'])
    key = 'train_dataloader.dataset.dataset.data_prefix.seg_map_path'
    with pytest.raises(ProbeError, match=r'maps/nothing \(from train_dataloader\.dataset\.dataset'):
        read_segmentation_config(world, [f'{key}=maps/nothing'])


def test_an_option_that_is_new_to_the_config_is_told(world, monkeypatch):
    told = []
    monkeypatch.setattr('vito_mm.launch.print_log', lambda text, **_: told.append(text))
    words = ['val_dataloder.batch_size=3', 'val_dataloader.batch_size=2']
    assert read_segmentation_config(world, words).val_dataloader.batch_size == 2
    (warning,) = told
    assert 'val_dataloder' in warning


def write_transformer(file, num_layers):
    """Write a config of mmpretrain with a transformer of some blocks."""
    part = dict(
        type='VisionTransformer',
        arch=dict(embed_dims=24, num_layers=num_layers, num_heads=2, feedforward_channels=48),
        img_size=64,
    )
    file.write_text(
        f'model = dict(backbone={part!r})\ndata_preprocessor = dict(mean=[1, 2, 3], std=[4, 5, 6])'
    )


def test_a_transformer_is_probed_by_its_blocks(world, tmp_path):
    """With the normalisation of its weights, and frozen."""
    write_transformer(tmp_path / 'vit.py', num_layers=3)
    name = str(tmp_path / 'vit.py')
    base = read_segmentation_config(world)
    cfg = probe_config(
        base, None, tmp_path / 'run', stages=(1, 3), steps=3, batch_size=4, backbone=name
    )
    assert cfg.model.data_preprocessor.mean == [1, 2, 3]
    assert not cfg.model.data_preprocessor.bgr_to_rgb
    assert cfg.model.decode_head.in_channels == [24, 24]
    check_probe(cfg)
    before = MODELS.build(cfg.model.backbone).state_dict()
    assert 0 <= train_and_evaluate(cfg)['mIoU'] <= 100
    after = torch.load(tmp_path / 'run/iter_3.pth')['state_dict']
    assert all(torch.equal(after[f'backbone.{key}'], value) for key, value in before.items())
    with pytest.raises(ProbeError, match=r'--stages: .* 3 stages'):
        probe_config(base, None, tmp_path / 'run', stages=(4,), backbone=name)


def test_the_last_map_is_probed_by_default(world, tmp_path, monkeypatch, capsys):
    """Of a transformer of two blocks as well, by the command."""
    write_transformer(tmp_path / 'vit.py', num_layers=2)
    few = ('--steps', 1, '--batch-size', 2, '--workers', 0, '--work-dir', tmp_path / 'runs')
    network = ('--backbone', tmp_path / 'vit.py', '--config', world)
    run_tool(monkeypatch, 'probe.py', 'segment', 'random', *network, *few)
    assert '| random' in capsys.readouterr().out
    cfg = Config.fromfile(tmp_path / 'runs/random/psp.py')
    images = torch.rand(1, 3, 64, 64)
    (found,) = MODELS.build(cfg.model.backbone)(images)
    encoder = load_encoder(None, network=str(tmp_path / 'vit.py'), device='cpu')
    assert torch.equal(found, encoder.compute(images, 'ln1'))


# DINOv3's recipe


def rates(cfg, steps):
    """The learning rate of every step, from the optimizer and schedulers that a run builds."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        optimizer = build_optim_wrapper(torch.nn.Linear(1, 1), cfg.optim_wrapper)
        schedulers = [
            PARAM_SCHEDULERS.build(dict(each), default_args=dict(optimizer=optimizer))
            for each in cfg.param_scheduler
        ]
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return found


def test_dinov3_has_its_numbers(tmp_path):
    """On ADE20K, whose config of mmseg has the rest: sizes of 0.5 to 2 times 512, flips."""
    base = Config.fromfile(REPO / 'configs/seg/vito_ade20k_stock.py')
    cfg = probe_config(base, None, tmp_path, stages=None, recipe='dinov3')
    assert cfg.train_cfg.max_iters == 40_000
    assert cfg.train_dataloader.batch_size == 16
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-3, weight_decay=1e-3)
    assert 'clip_grad' not in cfg.optim_wrapper
    assert cfg.param_scheduler[0].end == 1501
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(512, 512), stride=(341, 341))
    assert cfg.model.decode_head.dropout_ratio == 0.1
    assert cfg.model.decode_head.in_channels == 2048
    (crop,) = [s for s in cfg.train_dataloader.dataset.pipeline if s.type == 'RandomCrop']
    assert tuple(crop.crop_size) == tuple(cfg.model.data_preprocessor.size) == (512, 512)
    assert cfg.train_dataloader.dataset.pipeline == base.train_dataloader.dataset.pipeline

    cfg = probe_config(base, None, tmp_path, recipe='dinov3', steps=400, lr=2.0)
    warm_up = [min(1, 1e-6 + (1 - 1e-6) * step / 15) for step in range(400)]
    expected = [2 * w * (1 + cos(pi * step / 400)) / 2 for step, w in enumerate(warm_up)]
    np.testing.assert_allclose(rates(cfg, 400), expected, rtol=1e-6)


def test_batch_norm_comes_before_the_linear_layer():
    torch.manual_seed(0)
    settings = dict(in_channels=4, num_classes=3, in_index=0, dropout_ratio=0.5)
    with DefaultScope.overwrite_default_scope('mmseg'):
        head = LinearSegmentationHead(**settings, norm_cfg=dict(type='BN'))
    maps = torch.randn(8, 4, 5, 6) * torch.tensor([1.0, 2, 3, 4]).view(4, 1, 1) + 7
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.uniform_(-1, 1)
        head.norm.running_mean.uniform_(-1, 1)
        head.norm.running_var.uniform_(1, 2)

        def classified(x, mean, variance):
            x = (x - mean.view(-1, 1, 1)) / (variance.view(-1, 1, 1) + 1e-5) ** 0.5
            x = x * head.norm.weight.view(-1, 1, 1) + head.norm.bias.view(-1, 1, 1)
            weight, bias = head.conv_seg.weight[:, :, 0, 0], head.conv_seg.bias
            return torch.einsum('kc,nchw->nkhw', weight, x) + bias.view(-1, 1, 1)

        expected = classified(maps, head.norm.running_mean, head.norm.running_var)
        torch.testing.assert_close(head.eval()([maps]), expected)
        # In training whole channels are left out before the statistics are taken.
        torch.manual_seed(1)
        found = head.train()([maps])
        torch.manual_seed(1)
        kept = torch.nn.functional.dropout2d(maps, 0.5)
        variance = kept.var(dim=(0, 2, 3), unbiased=False)
        expected = classified(kept, kept.mean(dim=(0, 2, 3)), variance)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_linear_segmentation_by_the_command(world, checkpoint, tmp_path, monkeypatch, capsys):
    """With windows that overlap; what is there is not made again, and other settings are told."""

    def command(*words):
        place = ('--config', world, '--work-dir', tmp_path / 'runs', '--workers', 0)
        few = ('--steps', 60, '--lr', 0.02, '--batch-size', 4, '--size', 32)
        names = ('probe.py', 'linear-segmentation', checkpoint, *place, *few)
        run_tool(monkeypatch, *names, *words)
        return capsys.readouterr().out

    out = command()
    (file,) = (tmp_path / 'runs').glob('*.json')
    found = json.loads(file.read_text())['parts']['result']
    assert 30 < found['mIoU'] <= 100
    assert f'{found["mIoU"]:.1f}' in out
    run = tmp_path / 'runs' / file.stem
    head = torch.load(run / 'iter_60.pth', weights_only=False)['state_dict']
    assert head['decode_head.conv_seg.weight'].shape == (3, 128, 1, 1)
    assert not torch.equal(head['decode_head.norm.weight'], torch.ones(128))
    cfg = Config.fromfile(run / 'psp.py')
    (step,) = [s for s in cfg.train_dataloader.dataset.dataset.pipeline if s.type == 'RandomCrop']
    assert step.crop_size == cfg.model.test_cfg.crop_size == (32, 32)
    assert cfg.model.test_cfg.stride == (21, 21)
    page = (tmp_path / 'runs/linear_segmentation.md').read_text()
    assert '| DINOv3 ViT-S/16 | 47.0 |' in page
    csv = (tmp_path / 'runs/linear_segmentation.csv').read_text().splitlines()
    assert csv[0] == 'network,mIoU,aAcc,mAcc,seconds'
    assert csv[1].startswith(f'{file.stem},{found["mIoU"]}')
    written = (run / 'iter_60.pth').stat().st_mtime_ns
    assert command() == out
    assert (run / 'iter_60.pth').stat().st_mtime_ns == written
    with pytest.raises(SystemExit, match='optim_wrapper'):
        command('--lr', 0.01)
    # Without its record, a run is made again from the start.
    file.unlink()
    command('--steps', 2)
    assert (run / 'last_checkpoint').read_text().endswith('iter_2.pth')


def test_sizes_that_a_transformer_does_not_take_are_refused(world, tmp_path):
    pytest.importorskip('timm')
    name = 'timm:vit_tiny_patch16_224'
    base = read_segmentation_config(world)
    settings = dict(stages=None, backbone=name, recipe='dinov3')
    with pytest.raises(ProbeError, match=r'--size.* 100 pixels'):
        probe_config(base, None, tmp_path, size=100, **settings)
    cfg = probe_config(base, None, tmp_path, size=64, **settings)
    assert (cfg.model.backbone.layers, cfg.model.decode_head.in_channels) == (['last'], 192)


def test_defaults_of_the_command_are_those_of_the_recipes(monkeypatch):
    from tests.tools.test_start_up import parser_of

    commands = parser_of('probe.py', monkeypatch)._actions[-1].choices
    for command, recipe in (('segment', 'short'), ('linear-segmentation', 'dinov3')):
        defaults = commands[command].parse_known_args
        monkeypatch.undo()
        args, _ = defaults(['random', '--config', 'x'])
        assert (args.recipe, args.steps) == (recipe, RECIPES[recipe].steps)
        assert args.lr == RECIPES[recipe].lr
        assert args.stages is None
