"""Mask R-CNN FPN, ResNet-50, on COCO from a checkpoint: mmdet's 1x schedule.

    mim train mmdet configs/det/vito_coco_stock.py --gpus 8 --launcher pytorch

Another checkpoint, or random weights (the one in `checkpoint` of the base is only the default):
    --cfg-options model.backbone.checkpoint=FILE
    --cfg-options model.backbone.checkpoint=None
Less than 100 % of the backbone's keys in the file is an error.

Metric: box mAP on val2017 (mask mAP is logged too). No row of the paper's table is this detector
(vito_coco.py is), so compare checkpoints with each other.

Batch norm is synchronised and trained and nothing is frozen; the rest is mmdet's. The learning
rate (0.02 for 8 GPUs x 2 images) is the stock one. A checkpoint deserves its own:
    tools/transfer.py --protocol stock --tasks coco --sweep lr=0.01,0.02,0.04
"""

_base_ = [
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    '../_base_/models/detection_r50.py',
]

model = dict(backbone={{_base_.detection_backbone}})

# 8 GPUs x 2 images.
auto_scale_lr = dict(enable=False, base_batch_size=16)
