"""VITO where attention has something to choose: 96 px, a total stride of 16, narrow stages.

The last two stages have 6 x 6 and 12 x 12 positions; at 64 px and a stride of 32 they have 2 x 2
and 4 x 4.

    tools/make_miniscenes.py data/attention --preset attention
    tools/train.py configs/miniscenes/pretrain_r18_stride16.py
"""

_base_ = './pretrain_r18.py'

model = dict(
    backbone=dict(stem_channels=16, base_channels=16, strides=(1, 1, 2, 2)),
    neck=dict(in_channels=(64, 128)),
    projector=dict(in_channels=192),
)

# At the base's rate of 0.1 the masks of 36 positions stay all but even to the end; at the full rate
# they narrow before there are features to choose by.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(neck=dict(lr_mult=0.3))))

crop = dict(scale=96)

train_dataloader = dict(
    dataset=dict(
        data_root='data/attention/videos',
        pipeline=dict(augment=dict(pipelines=dict(A1=dict(crop=crop), A2=dict(crop=crop)))),
    ),
)
