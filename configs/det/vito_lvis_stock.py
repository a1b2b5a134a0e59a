"""Mask R-CNN FPN, ResNet-50, on LVIS v1 from a checkpoint: mmdet's 1x schedule.

    mim train mmdet configs/det/vito_lvis_stock.py --gpus 8 --launcher pytorch

Another checkpoint, or random weights (the one in `checkpoint` of the base is only the default):
    --cfg-options model.backbone.checkpoint=FILE
    --cfg-options model.backbone.checkpoint=None
Less than 100 % of the backbone's keys in the file is an error.

Metric: box AP on val (mask AP is logged too), by FasterLVISMetric, since the lvis package's own
evaluation fails on the current numpy. No row of the paper's table is this detector (vito_lvis.py
is), so compare checkpoints with each other.

Batch norm is synchronised and trained and nothing is frozen; the rest is mmdet's, with images of
rare classes repeated (ClassBalancedDataset). The learning rate (0.02 for 8 GPUs x 2 images) is the
stock one. A checkpoint deserves its own:
    tools/transfer.py --protocol stock --tasks lvis --sweep lr=0.01,0.02,0.04
"""

_base_ = [
    'mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py',
    '../_base_/models/detection_r50.py',
]

model = dict(backbone={{_base_.detection_backbone}})

val_evaluator = dict(type='FasterLVISMetric')
test_evaluator = dict(type='FasterLVISMetric')

# 8 GPUs x 2 images.
auto_scale_lr = dict(enable=False, base_batch_size=16)
