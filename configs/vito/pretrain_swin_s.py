"""VITO with Swin-S, the second architecture of https://arxiv.org/abs/2210.06433.

The paper gives no recipe for it. Ours: AdamW at 1.5e-4 x batch / 256 as MoCo v3 has it for vision
transformers (https://arxiv.org/abs/2104.02057), gradients clipped, and micro-batches that fit.
"""

_base_ = ['./pretrain_r50.py', '../_base_/models/swin_s.py']

model = {{_base_.swin_s_model}}

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
