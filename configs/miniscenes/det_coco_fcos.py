"""configs/det/vito_coco.py, the paper's FCOS*, at demo size: ResNet-18, MiniScenes as COCO.

    mim train mmdet configs/miniscenes/det_coco_fcos.py

Images of 128 x 96 px; about two minutes on one CPU core. The classes are COCO's 80, of which
MiniScenes uses eight.
"""

_base_ = '../det/vito_coco.py'

data_root = 'data/miniscenes/coco/'

# Objects of 35 to 70 px: three levels will do.
channels = 64
strides = [8, 16, 32]
model = dict(
    backbone=dict(
        depth=18,
        stem_channels=32,
        base_channels=32,
        checkpoint='work_dirs/pretrain_r18/iter_1000.pth',
        norm_cfg=dict(type='BN'),
    ),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=channels, num_outs=3),
    bbox_head=dict(
        in_channels=channels,
        feat_channels=channels,
        stacked_convs=2,
        anchor_generator=dict(octave_base_scale=3, strides=strides),
    ),
    train_cfg=dict(initial_epoch=2),
    test_cfg=dict(nms_pre=200, max_per_img=20),
)

image_size = (128, 96)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=image_size, ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type='RandomCrop', crop_size=image_size, allow_negative_crop=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
auto_scale_lr = dict(base_batch_size=4)

# The map that multiplies all class scores starts at 0.01. 360 steps would leave it there, and the
# scores of a location hardly differ.
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(cls_prob_module=dict(lr_mult=10.0))),
)

# 12 epochs of 30 steps.
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=30),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=True,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(logger=dict(interval=5), checkpoint=dict(save_optimizer=False))
randomness = dict(seed=0)
