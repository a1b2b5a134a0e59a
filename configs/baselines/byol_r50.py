"""BYOL (https://arxiv.org/abs/2006.07733) on pairs of frames, by mmpretrain's own algorithm.

As in BYOL's code, residual branches begin at zero, and the target network's batch norm counts for
itself (``TargetEMAHook``).
"""

_base_ = '../vito/pretrain_r50.py'

model = dict(
    _delete_=True,
    type='BYOL',
    base_momentum=0.01,  # mmpretrain's convention: 1 minus that of the paper
    data_preprocessor={{_base_.data_preprocessor}},
    backbone=dict(type='ResNet', depth=50, norm_cfg={{_base_.norm_cfg}}, zero_init_residual=True),
    neck=dict(
        type='NonLinearNeck',
        in_channels=2048,
        hid_channels=4096,
        out_channels=256,
        num_layers=2,
        with_bias=True,
        with_last_bn=False,
        with_avg_pool=True,
        norm_cfg={{_base_.norm_cfg}},
    ),
    head=dict(
        type='LatentPredictHead',
        predictor=dict(
            type='NonLinearNeck',
            in_channels=256,
            hid_channels=4096,
            out_channels=256,
            num_layers=2,
            with_bias=True,
            with_last_bn=False,
            with_avg_pool=False,
            norm_cfg={{_base_.norm_cfg}},
        ),
        loss=dict(type='CosineSimilarityLoss'),
    ),
)

train_dataloader = dict(dataset=dict(pipeline=dict(sample=dict(num_views=2))))
