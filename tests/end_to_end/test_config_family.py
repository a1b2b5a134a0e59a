"""Every pre-training config takes a real optimizer step, at tiny width."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tests.conftest import REPO
from vito_mm.launch import build_runner

FAMILY = sorted(
    path.relative_to(REPO / 'configs')
    for folder in ('vito', 'baselines')
    for path in (REPO / 'configs' / folder).rglob('*.py')
)

# Backbones at a sixteenth, or a quarter, of the shipped widths.
TINY = {
    'ResNet': (16, dict(depth=18, stem_channels=16, base_channels=16)),
    'SwinTransformer': (
        4,
        dict(
            arch=dict(embed_dims=24, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]),
            window_size=4,
            pad_small_map=True,
        ),
    ),
}


def narrow(part: dict, divisor: int) -> None:
    """Divide every width within a part of the model."""
    for key, value in part.items():
        if isinstance(value, dict):
            narrow(value, divisor)
        elif key.endswith('_channels'):
            part[key] = (
                value // divisor
                if isinstance(value, int)
                else tuple(channels // divisor for channels in value)
            )


def shrink(cfg: Config, videos, images) -> None:
    divisor, changes = TINY[cfg.model.backbone.type]
    cfg.model.backbone.update(changes)
    for part in ('neck', 'projector', 'head'):
        if part in cfg.model:
            narrow(cfg.model[part], divisor)
    if 'micro_batch_size' in cfg.model:
        cfg.model.micro_batch_size = 2
    loader = cfg.train_dataloader
    loader.update(batch_size=4, num_workers=0, persistent_workers=False, prefetch_factor=None)
    for dataset in loader.dataset.get('datasets', [loader.dataset]):
        dataset.data_root = str(images if 'extensions' in dataset else videos)
        for pipeline in dataset.pipeline.augment.pipelines.values():
            pipeline.crop.scale = 32
    cfg.train_cfg = dict(type='ClipTrainLoop', max_iters=1)
    cfg.auto_scale_lr.base_batch_size = 4


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    for index in range(4):
        image = np.random.default_rng(index).integers(0, 256, (48, 64, 3), np.uint8)
        cv2.imwrite(str(folder / f'{index}.png'), image)
    return folder


def run(cfg: Config, work_dir, *hooks: Hook) -> Runner:
    """Train as long as the config says."""
    cfg.work_dir, cfg.launcher, cfg.log_level = str(work_dir), 'none', 'WARNING'
    cfg.experiment_name = f'{work_dir.parent.name}_{work_dir.name}'
    runner = build_runner(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner


@pytest.mark.parametrize('path', FAMILY, ids=str)
def test_config_takes_a_step(path, videos, images, tmp_path):
    cfg = Config.fromfile(REPO / 'configs' / path)
    shrink(cfg, videos, images)
    runner = run(cfg, tmp_path / 'run')
    assert runner.iter == 1
    saved = torch.load(tmp_path / 'run' / 'iter_1.pth')
    assert any(key.startswith('backbone.') for key in saved['state_dict'])
    assert all(value.isfinite().all() for value in saved['state_dict'].values())
    # The step was made, on all that is trained: momenta of it are there.
    trained = [p for p in runner.model.parameters() if p.requires_grad]
    assert len(saved['optimizer']['state']) == len(trained) > 0
    assert not runner.optim_wrapper.skipped_last_step
    loss, _ = runner.message_hub.get_scalar('train/loss').data
    assert np.isfinite(loss).all()


@pytest.mark.parametrize(
    ('backbone', 'channels'),
    [
        (dict(type='ResNeXt', depth=50, groups=4, width_per_group=4, out_indices=(2, 3)), 1024),
        (dict(type='ConvNeXt', arch=dict(depths=[1] * 4, channels=[16, 32, 48, 64])), 48),
        (dict(type='MobileNetV2', out_indices=(4, 6)), 96),
    ],
    ids=lambda value: value.get('type') if isinstance(value, dict) else '',
)
def test_any_backbone_of_mmpretrain_does(backbone, channels, videos, images, tmp_path):
    last = {1024: 2048, 48: 64, 96: 320}[channels]
    if backbone['type'] == 'ConvNeXt':
        backbone = backbone | dict(out_indices=(2, 3), gap_before_final_norm=False)
    cfg = Config.fromfile(REPO / 'configs/vito/pretrain_r50.py')
    shrink(cfg, videos, images)
    cfg.model.backbone = backbone
    cfg.model.neck.in_channels = (channels, last)
    cfg.model.projector.in_channels = channels + last
    run(cfg, tmp_path / 'run')
    assert (tmp_path / 'run' / 'iter_1.pth').exists()


class Rates(Hook):
    """Learning rates with which each iteration begins: of the predictor, of the rest."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.predictor, self.rest = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        for group in runner.optim_wrapper.optimizer.param_groups:
            rates = self.predictor if group.get('fix_lr') else self.rest
            rates.append((runner.iter, round(group['lr'], 4)))


def test_rate_of_the_predictor_of_simsiam_stays(videos, images, tmp_path):
    cfg = Config.fromfile(REPO / 'configs/baselines/simsiam_r50.py')
    shrink(cfg, videos, images)
    cfg.train_cfg = dict(type='ClipTrainLoop', max_iters=3)
    cfg.param_scheduler = [dict(type='CosineAnnealingLR', T_max=4, by_epoch=False)]
    rates = Rates()
    run(cfg, tmp_path / 'run', rates)
    assert set(rates.predictor) == {(0, 0.1), (1, 0.1), (2, 0.1)}
    assert set(rates.rest) == {(0, 0.1), (1, 0.0854), (2, 0.05)}


def value(cfg: Config, where: str) -> object:
    for key in where.split('.'):
        cfg = cfg[key]
    return cfg


SAMPLE = 'train_dataloader.dataset.pipeline.sample'
CROPS = tuple(
    f'train_dataloader.dataset.pipeline.augment.pipelines.{view}.crop.crop_ratio_range'
    for view in ('A1', 'A2')
)

# What BYOL's public code does and mmpretrain does not.
BYOLS_DETAILS = {
    **{where.replace('crop_ratio_range', 'type'): 'BYOLCrop' for where in CROPS},
    'optim_wrapper.optimizer.formula': 'byol',
    'default_hooks.target_ema.statistics': 'own',
}

ADAPTATION = {
    f'{SAMPLE}.num_views': 3,
    **dict.fromkeys(CROPS, (0.4, 1.0)),
    'model.base_momentum': 0.996,
    'train_dataloader.batch_size': 128,
    'optim_wrapper.optimizer.type': 'AdamW',
    'optim_wrapper.paramwise_cfg.layer_decay_rate': 1.0,
    'auto_scale_lr.base_batch_size': 128,
}
DIFFERENCES = {
    'vito/pretrain_r50.py': {
        **BYOLS_DETAILS,
        f'{SAMPLE}.num_views': 3,
        f'{SAMPLE}.segment': 2.56,
        'model.neck.pooling': 'attention',
        **dict.fromkeys(CROPS, (0.4, 1.0)),
    },
    'vito/pretrain_swin_s.py': {
        'model.backbone.arch': 'small',
        'model.backbone.out_indices': (2, 3),
        'model.neck.in_channels': (384, 768),
        'model.projector.in_channels': 384 + 768,
        'optim_wrapper.optimizer.type': 'AdamW',
        'optim_wrapper.optimizer.lr': 1.5e-4 * 4096 / 256,
        'auto_scale_lr.base_batch_size': 4096,
    },
    'vito/pretrain_r50_200e.py': {'train_cfg.max_epochs': 200},
    'vito/adapt_r50.py': ADAPTATION,
    'vito/adapt_swin_s.py': {**ADAPTATION, 'model.backbone.arch': 'small'},
    'vito/pretrain_r50_8xb64.py': {
        'train_dataloader.batch_size': 64,
        'optim_wrapper.optimizer.lr': 0.3 * 512 / 256,
        'auto_scale_lr.base_batch_size': 512,
    },
    'vito/pretrain_r50_walking_tours.py': {
        'train_dataloader.batch_size': 32,
        'model.head.mask_same_file': False,
        'optim_wrapper.optimizer.lr': 0.3,
        'auto_scale_lr.base_batch_size': 256,
        'train_cfg.clips_per_epoch': 100_000,
        'train_cfg.max_epochs': 300,
    },
    'vito/pretrain_r50_8xb512_micro64.py': {
        'train_dataloader.batch_size': 512,
        'model.micro_batch_size': 64,
    },
    'vito/pretrain_r50_1xb4096_micro64.py': {
        'train_dataloader.batch_size': 4096,
        'model.micro_batch_size': 64,
        'optim_wrapper.optimizer.lr': 4.8,
    },
    **{
        f'vito/ablations/pretrain_r50_crop{name}.py': dict.fromkeys(CROPS, (area, 1.0))
        for name, area in (('008', 0.08), ('020', 0.2), ('060', 0.6))
    },
    'vito/ablations/pretrain_r50_segment128.py': {f'{SAMPLE}.segment': 1.28},
    'vito/ablations/pretrain_r50_segment320.py': {f'{SAMPLE}.segment': 3.2},
    'vito/ablations/pretrain_r50_attention1.py': {
        'model.backbone.out_indices': (3,),
        'model.neck.in_channels': (2048,),
        'model.neck.pooling': 'attention',
    },
    'vito/ablations/pretrain_r50_average1.py': {
        'model.backbone.out_indices': (3,),
        'model.neck.pooling': 'average',
    },
    'vito/ablations/pretrain_r50_average2.py': {
        'model.backbone.out_indices': (2, 3),
        'model.neck.pooling': 'average',
    },
    'vito/ablations/pretrain_r50_delta.py': {f'{SAMPLE}.method': 'delta'},
    'vito/ablations/pretrain_r50_uniform.py': {f'{SAMPLE}.method': 'uniform'},
    'vito/ablations/pretrain_r50_single.py': {f'{SAMPLE}.method': 'single'},
    'vito/ablations/pretrain_r50_2views.py': {f'{SAMPLE}.num_views': 2},
    'vito/ablations/pretrain_r50_fixed_pair.py': {
        f'{SAMPLE}.num_views': 2,
        f'{SAMPLE}.method': 'delta',
        f'{SAMPLE}.fixed': True,
    },
    'vito/ablations/pretrain_r50_one_frame.py': {
        f'{SAMPLE}.method': 'single',
        f'{SAMPLE}.fixed': True,
    },
    'baselines/moclr_r50_frames.py': {
        **BYOLS_DETAILS,
        f'{SAMPLE}.method': 'single',
        f'{SAMPLE}.num_views': 2,
        'model.neck.pooling': 'average',
        'model.neck.in_channels': (2048,),
        **dict.fromkeys(CROPS, (0.08, 1.0)),
    },
    'baselines/moclr_r50_images.py': {
        **BYOLS_DETAILS,
        'train_dataloader.dataset.data_root': 'data/imagenet/train',
        'model.neck.pooling': 'average',
        **dict.fromkeys(CROPS, (0.08, 1.0)),
    },
    'baselines/vito_r50_images_and_videos.py': {
        'train_dataloader.dataset.type': 'ConcatDataset',
        'model.neck.in_channels': (1024, 2048),
    },
    'baselines/vito_r50_images.py': {
        'model.neck.in_channels': (1024, 2048),
        **dict.fromkeys(CROPS, (0.4, 1.0)),
    },
    'baselines/byol_r50.py': {
        f'{SAMPLE}.num_views': 2,
        'model.type': 'BYOL',
        'model.backbone.zero_init_residual': True,
        **BYOLS_DETAILS,
    },
    'baselines/simsiam_r50.py': {f'{SAMPLE}.num_views': 2, 'optim_wrapper.optimizer.lr': 0.1},
    'baselines/mocov3_r50.py': {
        f'{SAMPLE}.num_views': 2,
        'optim_wrapper.optimizer.lr': 0.3 * 4096 / 256,
        'model.backbone.zero_init_residual': True,
    },
}


def test_no_config_is_forgotten():
    assert {path.as_posix() for path in FAMILY} == set(DIFFERENCES)


@pytest.mark.parametrize('path', DIFFERENCES)
def test_a_variant_is_what_its_name_says(path):
    cfg = Config.fromfile(REPO / 'configs' / path)
    for where, expected in DIFFERENCES[path].items():
        found = value(cfg, where)
        assert (
            found == pytest.approx(expected)
            if isinstance(expected, float)
            else (tuple(found) if isinstance(expected, tuple) else found) == expected
        ), where


@pytest.mark.parametrize(
    ('name', 'begin', 'epochs'),
    [('pretrain_r50.py', 10, 300), ('pretrain_r50_200e.py', 10, 200), ('adapt_r50.py', 1, 10)],
)
def test_the_schedule_ends_with_the_run(name, begin, epochs):
    cfg = Config.fromfile(REPO / 'configs/vito' / name)
    warm_up, cosine = cfg.param_scheduler
    assert (warm_up.begin, warm_up.end, cosine.begin) == (0, begin, begin)
    assert cosine.end == cfg.train_cfg.max_epochs == epochs
    assert cosine.T_max == epochs - begin
