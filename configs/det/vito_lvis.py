"""LVIS v1 by the paper's protocol: as COCO's (vito_coco.py: detector, commands), 1203 classes.

    mim train mmdet configs/det/vito_lvis.py --gpus 8 --launcher pytorch

Metric: box AP on val by FasterLVISMetric, since the lvis package's own evaluation fails on the
current numpy; mean of five runs (randomness.seed=0 ... 4). Published: 25.7 from VITO on VideoNet,
300 epochs (200 epochs: 25.6), 25.8 from MoCLR on ImageNet, 21.1 from random weights.
Compare the best of a sweep for each checkpoint (options --checkpoints, --seeds):
    tools/transfer.py --tasks lvis --sweep lr=0.0003,0.001,0.003 wd=0.0001,0.01

The paper names no resampling of rare classes, so images are drawn uniformly (vito_lvis_stock.py
repeats them). Boxes are enough: masks are not read.

[ours], besides COCO's: detections from a score of 0.0001 on, as in mmdet's LVIS configs.
"""

_base_ = 'vito_coco.py'

model = dict(
    bbox_head=dict(num_classes=1203),
    # LVIS counts 300 detections of an image, many of them of low score.
    test_cfg=dict(score_thr=0.0001, max_per_img=300),
)

# 19,809 images take long to evaluate.
train_cfg = dict(val_interval=10)

dataset_type = 'LVISV1Dataset'
data_root = 'data/lvis_v1/'
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/lvis_v1_train.json',
        # LVIS names the folder (train2017 or val2017) with each image.
        data_prefix=dict(img=''),
    )
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/lvis_v1_val.json',
        data_prefix=dict(img=''),
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='FasterLVISMetric',
    ann_file=data_root + 'annotations/lvis_v1_val.json',
    metric='bbox',
)
test_evaluator = val_evaluator
