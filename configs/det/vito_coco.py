"""COCO by the paper's protocol: FCOS*, 30 epochs, AdamW of 1e-3, batch 128, 800x1024.

    mim train mmdet configs/det/vito_coco.py --gpus 8 --launcher pytorch

Another checkpoint, or random weights (the one in `checkpoint` of the base is only the default):
    --cfg-options model.backbone.checkpoint=FILE
    --cfg-options model.backbone.checkpoint=None
Less than 100 % of the backbone's keys in the file is an error.

Metric: box mAP on val2017, mean of five runs (randomness.seed=0 ... 4). Published: 44.0 from VITO
on VideoNet, 300 epochs (200 epochs: 43.6), 43.9 from MoCLR on ImageNet, 39.0 from random weights.
Compare the best of a sweep for each checkpoint (options --checkpoints, --seeds):
    tools/transfer.py --tasks coco --sweep lr=0.0003,0.001,0.003 wd=0.0001,0.01

FCOS* is FCOS with ATSS assignment, an IoU-aware branch and task alignment. mmdet's TOOD, without
a line of its code changed, has all four:
    FCOS            FPN from stage 3, one point for each place of five levels, four distances to
                    the sides of the box, GIoU loss; no anchors regressed (anchor_type)
    ATSS            ATSSAssigner in the first four epochs
    IoU awareness   QualityFocalLoss: the target of a class score is the alignment metric, scaled
                    to the IoU of the object's best box; a map without classes multiplies the
                    class scores, at inference too, as an IoU branch does
    task alignment  T-head (features of both tasks taken from common ones, boxes moved to where
                    the task agrees) and TaskAlignedAssigner (score x IoU^6) from epoch five on
Known differences. The paper does not say how the four are put together: TOOD replaces ATSS after
four epochs and predicts quality within the class score, where FCOS* may keep ATSS throughout and a
separate IoU output. A portrait image is resized to 1024 x 800 like a landscape one and then cropped
to 800 rows, because mmdet's Resize knows long and short sides only.

[ours], where the paper is silent: the learning rate's course (a linear warm-up of 1000 steps, then
a cosine to zero), no gradient clipping, evaluation of whole images with sides of at most 1024 and
800, and TOOD's own settings.
"""

_base_ = ['mmdet::tood/tood_r50_fpn_1x_coco.py', '../_base_/models/detection_r50.py']

model = dict(backbone={{_base_.detection_backbone}})

# mmdet writes width first: images of 800 rows and 1024 columns.
image_size = (1024, 800)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    # Scale jitter of 0.8-1.25.
    dict(type='RandomResize', scale=image_size, ratio_range=(0.8, 1.25), keep_ratio=True),
    # An image whose crop shows no object is a negative one, not skipped.
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

# Batch 128 = 8 GPUs x 16. On fewer, train_dataloader.batch_size x GPUs x
# optim_wrapper.accumulative_counts = 128.
train_dataloader = dict(batch_size=16, num_workers=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
auto_scale_lr = dict(enable=False, base_batch_size=128)

max_epochs = 30
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    # The length in steps follows from the data.
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
# Five seeds and a sweep: keep what a resume needs.
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
