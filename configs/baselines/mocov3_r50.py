"""MoCo v3 (https://arxiv.org/abs/2104.02057) on pairs of frames, by mmpretrain's own algorithm.

For 300 epochs its own rate, 0.3 x 4096 / 256, is that of the base. As in its authors' code,
residual branches begin at zero, and the target network's batch norm counts for itself
(``TargetEMAHook``).
"""

_base_ = '../vito/pretrain_r50.py'

model = dict(
    _delete_=True,
    type='MoCoV3',
    base_momentum=0.01,  # mmpretrain's convention: 1 minus that of the paper
    data_preprocessor={{_base_.data_preprocessor}},
    backbone=dict(type='ResNet', depth=50, norm_cfg={{_base_.norm_cfg}}, zero_init_residual=True),
    neck=dict(
        type='NonLinearNeck',
        in_channels=2048,
        hid_channels=4096,
        out_channels=256,
        num_layers=2,
        with_bias=False,
        with_last_bn=True,
        with_last_bn_affine=False,
        with_last_bias=False,
        with_avg_pool=True,
        norm_cfg={{_base_.norm_cfg}},
    ),
    head=dict(
        type='MoCoV3Head',
        predictor=dict(
            type='NonLinearNeck',
            in_channels=256,
            hid_channels=4096,
            out_channels=256,
            num_layers=2,
            with_bias=False,
            with_last_bn=False,
            with_last_bn_affine=False,
            with_last_bias=False,
            with_avg_pool=False,
            norm_cfg={{_base_.norm_cfg}},
        ),
        loss=dict(type='CrossEntropyLoss', loss_weight=2.0),
        temperature=1.0,
    ),
)

train_dataloader = dict(dataset=dict(pipeline=dict(sample=dict(num_views=2))))
