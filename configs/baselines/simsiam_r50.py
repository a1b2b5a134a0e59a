"""SimSiam (https://arxiv.org/abs/2011.10566) on pairs of frames, by mmpretrain's own algorithm.

Its own recipe: SGD at 0.05 x 512 / 256 on a batch of 512, without warm-up.
"""

_base_ = '../vito/pretrain_r50.py'

model = dict(
    _delete_=True,
    type='SimSiam',
    data_preprocessor={{_base_.data_preprocessor}},
    backbone=dict(type='ResNet', depth=50, norm_cfg={{_base_.norm_cfg}}, zero_init_residual=True),
    neck=dict(
        type='NonLinearNeck',
        in_channels=2048,
        hid_channels=2048,
        out_channels=2048,
        num_layers=3,
        with_last_bn_affine=False,
        with_avg_pool=True,
        norm_cfg={{_base_.norm_cfg}},
    ),
    head=dict(
        type='LatentPredictHead',
        predictor=dict(
            type='NonLinearNeck',
            in_channels=2048,
            hid_channels=512,
            out_channels=2048,
            with_avg_pool=False,
            with_last_bn=False,
            with_last_bias=True,
            norm_cfg={{_base_.norm_cfg}},
        ),
        loss=dict(type='CosineSimilarityLoss'),
    ),
)

lr = 0.1
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=lr, weight_decay=1e-4, momentum=0.9),
    paramwise_cfg=dict(_delete_=True, custom_keys=dict(predictor=dict(fix_lr=True))),
)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        T_max=300,
        eta_min=0.0,
        begin=0,
        end=300,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
auto_scale_lr = dict(base_batch_size=512)
# By iteration: the schedule is, and ClipTrainLoop has but one epoch to set the rate in.
custom_hooks = [
    dict(type='SimSiamHook', priority='HIGH', fix_pred_lr=True, lr=lr, adjust_by_epoch=False)
]

train_dataloader = dict(batch_size=64, dataset=dict(pipeline=dict(sample=dict(num_views=2))))
