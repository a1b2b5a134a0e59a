"""iBOT's AdamW and warm-up for segmentation (https://arxiv.org/abs/2111.07832).

The configs share them as variables: MMEngine lets no two bases define the same key.
"""

ibot_optim_wrapper = dict(
    # [ours]: the rate. iBOT's are for transformers.
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    # iBOT's constructor decays neither biases nor norms.
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
ibot_warm_up = dict(type='LinearLR', start_factor=1e-6, begin=0, end=1500, by_epoch=False)
