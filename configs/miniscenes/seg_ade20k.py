"""configs/seg/vito_ade20k_stock.py at demo size: ResNet-18, MiniScenes as ADE20K, 96 px crops.

About a minute on one CPU core. The classes are ADE20K's 150, of which MiniScenes uses nine.
"""

_base_ = ['../seg/vito_ade20k_stock.py', '../_base_/miniscenes/fcn_r18.py']

data_root = 'data/miniscenes/ade20k'

model = {{_base_.demo_model}}

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(160, 120), ratio_range=(0.75, 1.25), keep_ratio=True),
    dict(type='RandomCrop', crop_size={{_base_.demo_crop_size}}, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
# No worker processes: starting them takes longer than they save.
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=8)

optim_wrapper = {{_base_.demo_optim_wrapper}}
# 300 steps of 8 images. With 120, training ends while classes are still being learned, and the
# result is a matter of luck from any weights.
max_iters = 300
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=15, by_epoch=False),
    dict(type='PolyLR', eta_min=0.0, power=0.9, begin=15, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=max_iters, save_optimizer=False)
)
randomness = dict(seed=0)
