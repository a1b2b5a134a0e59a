"""The upper line of the study with ResNet-50 at 112 px; see supervised_r18.py. Not run yet."""

_base_ = './supervised_r18.py'

data_root = 'data/study/frames'

model = dict(
    backbone=dict(depth=50, stem_channels=64, base_channels=64), head=dict(in_channels=2048)
)
train_dataloader = dict(
    batch_size=256,
    num_workers=12,
    dataset=dict(
        data_root=data_root,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                type='BYOLCrop',
                scale=112,
                crop_ratio_range=(0.4, 1.0),
                interpolation='bicubic',
            ),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='PackInputs'),
        ],
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=200, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=3800, eta_min=0.0, begin=200, end=4000, by_epoch=False),
]
train_cfg = dict(max_iters=4000)
