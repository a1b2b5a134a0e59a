"""configs/seg/vito_pascal_stock.py at demo size: ResNet-18, MiniScenes as PASCAL VOC, 96 px.

About a minute on one CPU core. The classes are VOC's 21, of which MiniScenes uses nine.
"""

_base_ = ['../seg/vito_pascal_stock.py', '../_base_/miniscenes/fcn_r18.py']

data_root = 'data/miniscenes/voc'

model = {{_base_.demo_model}}

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(160, 120), ratio_range=(0.75, 1.25), keep_ratio=True),
    dict(type='RandomCrop', crop_size={{_base_.demo_crop_size}}, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
dataset_train = dict(
    type='PascalVOCDataset',
    data_root=data_root,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    ann_file='ImageSets/Segmentation/train.txt',
    pipeline=train_pipeline,
)
dataset_aug = dict(
    type='PascalVOCDataset',
    data_root=data_root,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
    ann_file='ImageSets/Segmentation/aug.txt',
    pipeline=train_pipeline,
)
# No worker processes: starting them takes longer than they save.
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(datasets=[dataset_train, dataset_aug]),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=8)

optim_wrapper = {{_base_.demo_optim_wrapper}}
# 200 steps of 8 images.
max_iters = 200
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=15, by_epoch=False),
    dict(type='PolyLR', eta_min=0.0, power=0.9, begin=15, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=max_iters, save_optimizer=False)
)
randomness = dict(seed=0)
