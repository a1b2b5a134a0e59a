"""VITO on MiniScenes: a ResNet-18 of half width at 64 px, minutes on two CPU cores.

The method is unchanged.

    tools/make_miniscenes.py data/miniscenes
    tools/train.py configs/miniscenes/pretrain_r18.py

The other configs of this folder start from the checkpoint that it leaves.
"""

_base_ = ['../vito/pretrain_r50.py']

data_root = 'data/miniscenes/videos'
ann_file = 'manifest.jsonl'

model = dict(
    # 1,000 steps instead of 93,750: a target that follows faster than the paper's 0.99.
    base_momentum=0.97,
    # haiku's blocks without a bottleneck do not begin as identities.
    backbone=dict(depth=18, stem_channels=32, base_channels=32, zero_init_residual=False),
    neck=dict(in_channels=(128, 256)),
    projector=dict(in_channels=384, hid_channels=512, out_channels=128),
)

crop = dict(scale=64)

train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    dataset=dict(
        data_root=data_root,
        ann_file=ann_file,
        pipeline=dict(augment=dict(pipelines=dict(A1=dict(crop=crop), A2=dict(crop=crop)))),
    ),
)

auto_scale_lr = dict(base_batch_size=32)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=1e-2),
    # AdamW has no layer-wise rate to leave parameters out of. At the full rate the attention MLPs,
    # which have no norm, settle on a corner within some dozen steps.
    paramwise_cfg=dict(
        _delete_=True,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys=dict(neck=dict(lr_mult=0.1)),
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=980, eta_min=0.0, begin=20, end=1000, by_epoch=False),
]
train_cfg = dict(max_iters=1000)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=250, max_keep_ckpts=1, by_epoch=False)
)
log_processor = dict(window_size=20)
