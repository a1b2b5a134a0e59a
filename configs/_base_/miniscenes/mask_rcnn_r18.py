"""Mask R-CNN of ResNet-18 (half width) at demo size, for images of 128 x 96 px and one CPU core.

COCO and LVIS configs share it as variables: MMEngine lets no two bases define the same key.
"""

# Objects of 35 to 70 px: three levels and one anchor size each will do.
channels = 64
demo_model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        depth=18,
        stem_channels=32,
        base_channels=32,
        checkpoint='work_dirs/pretrain_r18/iter_1000.pth',
        norm_cfg=dict(type='BN'),
    ),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=channels, start_level=1, num_outs=3),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[2.5], strides=[8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels, featmap_strides=[8, 16, 32]),
        bbox_head=dict(in_channels=channels, fc_out_channels=256, reg_class_agnostic=True),
        mask_roi_extractor=dict(out_channels=channels, featmap_strides=[8, 16, 32]),
        mask_head=dict(
            num_convs=2, in_channels=channels, conv_out_channels=channels, class_agnostic=True
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32), mask_size=28),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=200, max_per_img=50),
        rcnn=dict(max_per_img=20),
    ),
)

demo_train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(128, 96)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
demo_test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 96)),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]

# 10 epochs of 15 steps.
demo_optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10.0),
)
demo_param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=15, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=15, T_max=135, end=150, by_epoch=False),
]
demo_train_cfg = dict(max_epochs=10, val_interval=10)
demo_default_hooks = dict(
    logger=dict(interval=5), checkpoint=dict(interval=10, save_optimizer=False)
)
