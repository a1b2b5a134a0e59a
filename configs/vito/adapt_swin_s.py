"""adapt_r50.py with Swin-S: from weights that are there, on your own videos."""

_base_ = ['./adapt_r50.py', '../_base_/models/swin_s.py']

model = {{_base_.swin_s_model}}

optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.0))),
    clip_grad=dict(max_norm=3.0),
)
