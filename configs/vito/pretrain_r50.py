"""VITO, ResNet-50, 300 epochs of 1.28 M clips, global batch 4096 on 8 GPUs.

    tools/dist_train.sh configs/vito/pretrain_r50.py 8

Another number of GPUs: keep the global batch by train_dataloader.batch_size, or scale the learning
rate to the batch by --auto-scale-lr.
"""

_base_ = [
    '../_base_/models/vito_r50.py',
    '../_base_/datasets/videos_vito.py',
    '../_base_/schedules/lars_300e.py',
    '../_base_/pretrain_runtime.py',
]

# Your videos: a folder, or a manifest (JSON lines or CSV) in ann_file. On the command line:
# --videos FOLDER_OR_MANIFEST
data_root = 'data/videos'
ann_file = ''

train_dataloader = dict(
    batch_size=512,
    num_workers=12,
    dataset=dict(data_root=data_root, ann_file=ann_file),
)
