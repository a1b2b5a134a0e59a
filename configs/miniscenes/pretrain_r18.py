"""VITO on MiniScenes: ResNet-18 at 64 px, minutes on two CPU cores. The method is unchanged.

    tools/make_miniscenes.py data/miniscenes
    tools/train.py configs/miniscenes/pretrain_r18.py

The other configs of this folder start from the checkpoint that it leaves.
"""

_base_ = ['../vito/pretrain_r50.py']

data_root = 'data/miniscenes/videos'
ann_file = 'manifest.jsonl'

model = dict(
    # 240 steps: with the paper's 0.99 the target would stay near its random start for half of them.
    base_momentum=0.9,
    backbone=dict(depth=18),
    neck=dict(in_channels=(256, 512)),
    projector=dict(in_channels=768, hid_channels=1024, out_channels=128),
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
    # AdamW has no layer-wise rate to leave parameters out of.
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=220, eta_min=0.0, begin=20, end=240, by_epoch=False),
]
train_cfg = dict(max_iters=240)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=240, max_keep_ckpts=1, by_epoch=False)
)
log_processor = dict(window_size=10)
