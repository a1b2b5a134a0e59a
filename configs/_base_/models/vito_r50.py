"""VITO with ResNet-50, section 3 of https://arxiv.org/abs/2210.06433.

The projector is that of BYOL and DetCon (https://arxiv.org/abs/2103.10957): 4096 hidden, 256 out.
"""

norm_cfg = dict(type='SyncBN', requires_grad=True)

data_preprocessor = dict(
    type='ViewPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
    non_blocking=True,
)

model = dict(
    type='VITO',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='ResNet',
        depth=50,
        out_indices=(2, 3),
        norm_cfg=norm_cfg,
        # As in BYOL's code: haiku's bottleneck blocks begin as identities.
        zero_init_residual=True,
    ),
    neck=dict(type='MultiScaleAttentionPooling', in_channels=(1024, 2048), pooling='attention'),
    projector=dict(
        type='NonLinearNeck',
        in_channels=3072,
        hid_channels=4096,
        out_channels=256,
        num_layers=2,
        with_bias=True,
        with_last_bn=False,
        with_last_bias=False,
        with_avg_pool=False,
        norm_cfg=norm_cfg,
    ),
    head=dict(type='InfoNCEHead', temperature=0.1),
    # The paper's momentum; mmpretrain's own configs state 1 minus this.
    base_momentum=0.99,
)
