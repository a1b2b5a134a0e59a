"""VITO with Swin-S, the second architecture of https://arxiv.org/abs/2210.06433.

The paper gives no recipe for it. Ours: AdamW at 1.5e-4 x batch / 256 as MoCo v3 has it for vision
transformers (https://arxiv.org/abs/2104.02057), gradients clipped, and micro-batches that fit.
Any backbone of mmpretrain works in this way: it takes its ``out_indices`` and their channels.
"""

_base_ = './pretrain_r50.py'

model = dict(
    micro_batch_size=64,
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        arch='small',
        img_size=224,
        drop_path_rate=0.1,
        out_indices=(2, 3),
    ),
    neck=dict(in_channels=(384, 768)),
    projector=dict(in_channels=1152),
)

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2.4e-3, weight_decay=0.1),
    paramwise_cfg=dict(
        _delete_=True,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'relative_position_bias_table': dict(decay_mult=0.0)},
    ),
    clip_grad=dict(max_norm=3.0),
)
