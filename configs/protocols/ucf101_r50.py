"""UCF101, split 1, ResNet-50 from a checkpoint: mean of frame features, fine-tuned.

    mim train mmpretrain configs/protocols/ucf101_r50.py

Several checkpoints, any network and any videos in class folders, with one report:
    tools/probe.py ucf101 CHECKPOINT random --data FOLDER

Another checkpoint, or random weights (the one in `checkpoint` is only the default):
    --cfg-options model.backbone.checkpoint=FILE
    --cfg-options model.backbone.checkpoint=None

Metric: top-1 on the test list, ten clips a video. Published: 85.3 from VITO on VideoNet, 82.1 from
CycleContrast, 80.5 from MoCo (https://arxiv.org/abs/2210.06433, table 3).

The protocol is CycleContrast's (https://arxiv.org/abs/2105.06463): 32 frames at 16 per second, five
clips of each training video an epoch, Adam at 1e-4, five epochs of the classifier alone and then 16
of all, dropout of 0.9.
"""

default_scope = 'mmpretrain'
custom_imports = dict(
    imports=['vito_mm', 'vito_mm.probes.video_classifier'], allow_failed_imports=False
)

model = dict(
    type='vito_mm.FrameAverageClassifier',
    backbone=dict(
        type='VITOResNet',
        depth=50,
        checkpoint='work_dirs/pretrain_r50/iter_93750.pth',
    ),
    num_classes=101,
    in_channels=2048,
    dropout=0.9,
)

data_root = 'data/ucf101/videos'
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='RepeatDataset',
        times=5,
        dataset=dict(
            type='vito_mm.ClassFolderVideos',
            data_root=data_root,
            ann_file='../ucfTrainTestlist/trainlist01.txt',
            pipeline=[
                dict(type='vito_mm.SampleClips', num_frames=32, fps=16),
                dict(type='DecodeFrames', short_side=256),
                dict(type='vito_mm.PackClips', size=224, crop_area=(0.08, 1.0)),
            ],
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='vito_mm.ClassFolderVideos',
        data_root=data_root,
        ann_file='../ucfTrainTestlist/testlist01.txt',
        # A video that cannot be read is an error: another must not stand in for it.
        max_attempts=1,
        pipeline=[
            dict(type='vito_mm.SampleClips', num_frames=32, fps=16, num_clips=10),
            dict(type='DecodeFrames', short_side=256),
            dict(type='vito_mm.PackClips', size=224),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator

# Five epochs of the classifier, then 16 of all.
train_cfg = dict(by_epoch=True, max_epochs=21, val_interval=21)
val_cfg = dict()
test_cfg = dict()
custom_hooks = [dict(type='vito_mm.ClassifierFirstHook', epochs=5)]
optim_wrapper = dict(optimizer=dict(type='Adam', lr=1e-4))
param_scheduler = dict(type='MultiStepLR', milestones=[11, 15, 19], gamma=0.3, by_epoch=True)
auto_scale_lr = dict(enable=False, base_batch_size=32)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='vito_mm.AtomicCheckpointHook', interval=1, max_keep_ckpts=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
