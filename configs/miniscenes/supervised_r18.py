"""The upper line of the study: supervised, on frames of the videos, with their labels.

    benchmarks/study.py --rows supervised

mmpretrain's classifier with the network, the crops and the schedule of pretrain_r18.py; its images
are what benchmarks/study.py writes.
"""

_base_ = './pretrain_r18.py'

data_root = 'data/miniscenes/frames'

model = dict(
    _delete_=True,
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        num_classes=8,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(type='ResNet', depth=18, stem_channels=32, base_channels=32, out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=8, in_channels=256),
)

train_dataloader = dict(
    _delete_=True,
    batch_size=96,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                type='BYOLCrop',
                scale=64,
                crop_ratio_range=(0.4, 1.0),
                interpolation='bicubic',
            ),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='PackInputs'),
        ],
    ),
)
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=1000)
default_hooks = dict(
    _delete_=True,
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='AtomicCheckpointHook', interval=250, max_keep_ckpts=1, by_epoch=False),
    non_finite=dict(type='NonFiniteHook', max_in_row=10),
    run_record=dict(type='RunRecordHook'),
)
