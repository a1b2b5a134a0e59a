"""Swin-S of the fine-tuning configs, from a checkpoint: mmseg's or mmdet's own class.

They share it as a variable: MMEngine lets no two bases define the same key.
"""

swin_s_backbone = dict(
    _delete_=True,
    type='VITOBackbone',
    stock='SwinTransformer',
    checkpoint='work_dirs/pretrain_swin_s/iter_93750.pth',
    embed_dims=96,
    depths=[2, 2, 18, 2],
    num_heads=[3, 6, 12, 24],
    window_size=7,
    out_indices=(0, 1, 2, 3),
    # As in mmseg's configs of Swin-S; mmdet's have 0.2.
    drop_path_rate=0.3,
)

# Without weight decay in both libraries' configs of Swin.
swin_s_paramwise = dict(
    custom_keys=dict(
        absolute_pos_embed=dict(decay_mult=0.0),
        relative_position_bias_table=dict(decay_mult=0.0),
        norm=dict(decay_mult=0.0),
    )
)
