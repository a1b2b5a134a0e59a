"""A tiny data set in mmseg's layout and a config of mmseg for it, for tests of the probe."""

from pathlib import Path

import numpy as np
from PIL import Image

CONFIG = """
default_scope = 'mmseg'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    pretrained='open-mmlab://resnet18_v1c',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size=(48, 48),
    ),
    backbone=dict(
        type='ResNetV1c', depth=18, base_channels=16, stem_channels=16, norm_cfg=norm_cfg,
        strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), norm_eval=False,
    ),
    decode_head=dict(
        type='PSPHead', in_channels=128, in_index=3, channels=16, pool_scales=(1, 2),
        num_classes=3, norm_cfg=norm_cfg,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type='FCNHead', in_channels=64, in_index=2, channels=16, num_classes=3,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]


def dataset(part):
    return dict(
        type='BaseSegDataset',
        data_root={root!r},
        metainfo=dict(classes=('low', 'mid', 'high'), palette=[[0, 0, 0], [9, 9, 9], [99, 9, 9]]),
        data_prefix=dict(img_path=f'images/{{part}}', seg_map_path=f'maps/{{part}}'),
        img_suffix='.png',
        seg_map_suffix='.png',
        pipeline=[*load, dict(type='PackSegInputs')],
    )


train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='RepeatDataset', times=2, dataset=dataset('train')),
)
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dataset('val'),
)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_dataloader, test_evaluator = val_dataloader, val_evaluator
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01),
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.0))),
)
param_scheduler = [dict(type='MultiStepLR', milestones=[1], by_epoch=True)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
val_cfg, test_cfg = dict(type='ValLoop'), dict(type='TestLoop')
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
custom_hooks = [dict(type='EMAHook')]
load_from = 'other.pth'
visualizer = dict(
    type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'
)
del dataset
"""


def write_world(folder: Path) -> Path:
    """Write eight images to learn from and four to test with, of three levels of grey in bands.

    Args:
        folder: Where to write.

    Returns:
        Path: The config.
    """
    rng = np.random.default_rng(0)
    for part, count in (('train', 8), ('val', 4)):
        for kind in ('images', 'maps'):
            (folder / kind / part).mkdir(parents=True)
        for index in range(count):
            classes = np.repeat(rng.permutation(3), 16)[:, None].repeat(48, axis=1)
            classes = classes if index % 2 else classes.T
            image = 40 + 80 * classes[..., None] + rng.integers(-15, 15, (48, 48, 3))
            Image.fromarray(image.astype(np.uint8)).save(folder / f'images/{part}/{index}.png')
            Image.fromarray(classes.astype(np.uint8)).save(folder / f'maps/{part}/{index}.png')
    file = folder / 'psp.py'
    file.write_text(CONFIG.format(root=str(folder)))
    return file
