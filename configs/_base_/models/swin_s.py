"""VITO's model with Swin-S, the second architecture of https://arxiv.org/abs/2210.06433.

The configs share it as a variable: MMEngine lets no two bases define the same key. Any backbone of
mmpretrain works in this way: the model takes its ``out_indices`` and their channels.
"""

swin_s_model = dict(
    # Micro-batches that fit.
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
