"""BDD100K detection by Faster R-CNN with FPN, ResNet-50 from a checkpoint: the model zoo's 1x.

    tools/prepare_bdd100k.py data/bdd100k
    mim train mmdet configs/protocols/faster_rcnn_bdd100k.py --gpus 8 --launcher pytorch

Checkpoint or random weights:
    --cfg-options model.backbone.checkpoint=FILE
    --cfg-options model.backbone.checkpoint=None

Metric: box mAP on val, over the ten classes of 2020's labels. Published by BDD100K's model zoo
(https://github.com/SysCV/bdd100k-models, det): 31.0 from a supervised ResNet-50, whose stem, stage
2 and batch statistics stay as they were. Its recipe: 12 epochs of 32 images of 1280 x 720, SGD of
0.04 that falls after 8 and 11.

PooDLe (https://arxiv.org/abs/2408.11208) evaluates on BDD100K's detection by mmdet, with a light
and a heavier head on a frozen backbone. [ours], as its configs are not public: this detector for
the heavier, by `--frozen-backbone` of tools/transfer.py or model.backbone.frozen=True. Nothing is
frozen here, and batch norm is synchronised and trained, as in det/vito_coco_stock.py. Sweep the
rate:
    tools/transfer.py --checkpoints FILE --tasks faster_rcnn_bdd100k --sweep lr=0.02,0.04,0.08
"""

_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    '../_base_/models/detection_r50.py',
]

model = dict(backbone={{_base_.detection_backbone}}, roi_head=dict(bbox_head=dict(num_classes=10)))

data_root = 'data/bdd100k/'
# In the order of the categories that tools/prepare_bdd100k.py writes.
metainfo = dict(
    classes=(
        *('pedestrian', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle'),
        *('traffic light', 'traffic sign'),
    )
)
image_size = (1280, 720)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_size, keep_ratio=True),
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
    num_workers=4,
    dataset=dict(
        data_root=data_root,
        ann_file='labels/det_20/det_train_coco.json',
        data_prefix=dict(img='images/100k/train/'),
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='labels/det_20/det_val_coco.json',
        data_prefix=dict(img='images/100k/val/'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'labels/det_20/det_val_coco.json')
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=0.04))
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))

# 8 GPUs x 4 images.
auto_scale_lr = dict(enable=False, base_batch_size=32)
