"""Configs as users of mmseg and mmdet have them, on MiniScenes and of the tests' network."""

import json
from pathlib import Path

HALF_RESNET18 = 'depth=18, stem_channels=32, base_channels=32'

DETECTOR = f"""
_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'
default_scope = 'mmdet'
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict({HALF_RESNET18}, frozen_stages=-1, norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=32),
    bbox_head=dict(num_classes=8, in_channels=32, feat_channels=32, stacked_convs=1),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(96, 72)),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(96, 72)),
    dict(type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
root = '@ROOT@'
train_dataloader = dict(
    batch_size=2,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='RepeatDataset', times=2, dataset=dict(
        type='CocoDataset', data_root=root, ann_file='annotations/instances_train2017.json',
        metainfo=dict(classes=@CLASSES@), data_prefix=dict(img='train2017/'), pipeline=pipeline,
        filter_cfg=dict(filter_empty_gt=True))),
)
val_dataloader = dict(
    batch_size=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CocoDataset', data_root=root, test_mode=True,
        ann_file='annotations/instances_val2017.json', metainfo=dict(classes=@CLASSES@),
        data_prefix=dict(img='val2017/'), pipeline=test_pipeline),
)
val_evaluator = dict(
    type='CocoMetric', ann_file=root + '/annotations/instances_val2017.json', metric='bbox')
train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=7)
val_cfg = dict(type='ValLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
load_from = 'gone.pth'
"""
"""An epoch-based detector without auto_scale_lr, seed and hook for checkpoints, but with weights of
its own; the placeholders are replaced by :func:`write`."""

SEGMENTER = f"""
_base_ = 'mmseg::_base_/models/fcn_r50-d8.py'
default_scope = 'mmseg'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict({HALF_RESNET18}, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
    decode_head=dict(num_classes=21, in_channels=256, channels=32),
    auxiliary_head=None,
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=(64, 64)),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
half = dict(
    type='PascalVOCDataset', data_root='@ROOT@', pipeline=pipeline,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    ann_file='ImageSets/Segmentation/train.txt')
other = dict(
    type='PascalVOCDataset', data_root='@ROOT@', pipeline=pipeline,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
    ann_file='ImageSets/Segmentation/aug.txt')
train_dataloader = dict(
    batch_size=2,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='ConcatDataset', datasets=[half, other]),
)
val_dataloader = dict(
    batch_size=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='PascalVOCDataset', data_root='@ROOT@', pipeline=test_pipeline,
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/val.txt'),
)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU', 'mDice'])
test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, dict(type='TestLoop')
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=5)
val_cfg = dict(type='ValLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
"""
"""A segmenter counted in iterations, on two data sets, with mmseg's ResNetV1c."""


PURE = f"""
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, ValLoop
from mmseg.datasets import PascalVOCDataset
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs, RandomCrop
from mmcv.transforms import LoadImageFromFile
from mmseg.evaluation import IoUMetric
from mmseg.models import EncoderDecoder, FCNHead, SegDataPreProcessor
from mmseg.models.backbones import ResNet
from mmseg.models.losses import CrossEntropyLoss
from torch.optim import SGD
model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(type=SegDataPreProcessor, pad_val=0, seg_pad_val=255, size=(64, 64)),
    backbone=dict(type=ResNet, {HALF_RESNET18}, norm_cfg=dict(type='BN')),
    decode_head=dict(
        type=FCNHead, in_channels=256, channels=32, in_index=3, num_convs=1, num_classes=21,
        norm_cfg=dict(type='BN'), loss_decode=dict(type=CrossEntropyLoss)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadAnnotations),
    dict(type=RandomCrop, crop_size=(64, 64)),
    dict(type=PackSegInputs),
]
train_dataloader = dict(
    batch_size=2,
    sampler=dict(type=InfiniteSampler, shuffle=True),
    dataset=dict(
        type=PascalVOCDataset, data_root='@ROOT@', pipeline=pipeline,
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/train.txt'),
)
val_dataloader = dict(
    batch_size=1,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=PascalVOCDataset, data_root='@ROOT@', pipeline=[*pipeline[:2], pipeline[3]],
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/val.txt'),
)
val_evaluator = dict(type=IoUMetric, iou_metrics=['mIoU'])
train_cfg = dict(type=IterBasedTrainLoop, max_iters=2, val_interval=2)
val_cfg = dict(type=ValLoop)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.01))
"""
"""The same in little as a pure Python config, which names classes and no scope."""


def write(folder: Path, text: str, root: Path) -> Path:
    """Write one of the configs for a data set.

    Args:
        folder: Where the file goes.
        text: The config.
        root: Folder of the data set.

    Returns:
        Path: The file.
    """
    file = folder / {DETECTOR: 'detector.py', PURE: 'pure.py'}.get(text, 'segmenter.py')
    listed = root / 'annotations' / 'instances_train2017.json'
    if listed.exists():
        content = json.loads(listed.read_text())
        used = {each['category_id'] for each in content['annotations']}
        names = [each['name'] for each in content['categories'] if each['id'] in used]
        text = text.replace('@CLASSES@', repr(tuple(names)))
        text = text.replace('num_classes=8', f'num_classes={len(names)}')
    file.write_text(text.replace('@ROOT@', str(root)))
    return file
