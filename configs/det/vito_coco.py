"""Mask R-CNN FPN, ResNet-50, on COCO from a VITO checkpoint: mmdet's stock 1x schedule.

    mim train mmdet configs/det/vito_coco.py

Another checkpoint, or random weights (what stands in `checkpoint` below is only the default):
    --cfg-options model.backbone.checkpoint=FILE
    --cfg-options model.backbone.checkpoint=None
Less than 100 % of the backbone's keys in the file is an error.

As in mmdet's configs/selfsup_pretrain, batch norm is synchronised and trained; nothing is frozen.
The learning rate (0.02 for 16 images) is the stock one. A checkpoint deserves its own: sweep
optim_wrapper.optimizer.lr before comparing.
"""

_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        type='VITOResNet',
        checkpoint='work_dirs/pretrain_r50/iter_93750.pth',
        frozen_stages=-1,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        norm_eval=False,
        init_cfg=None,
    )
)

custom_imports = dict(imports=['vito_mm'], allow_failed_imports=False)
