"""Cityscapes by UperNet, ResNet-50 from a checkpoint: upernet_ade20k.py's optimizer, 80k steps.

    mim train mmseg configs/protocols/upernet_cityscapes.py --gpus 4 --launcher pytorch

Checkpoint or random weights: see upernet_ade20k.py.

Metric: mIoU on val. Data as mmseg prepares them, in data/cityscapes. PooDLe and Midway read frozen
backbones out here: `--frozen-backbone` of tools/transfer.py, model.backbone.frozen=True. [ours],
as their configs are not public: mmseg's schedule of 80k steps of 8 crops of 512 x 1024, and
evaluation of whole images.
"""

_base_ = [
    'mmseg::upernet/upernet_r50_4xb2-80k_cityscapes-512x1024.py',
    '../_base_/schedules/ibot_adamw.py',
]

model = dict(
    pretrained=None,
    backbone=dict(type='VITOResNet', checkpoint='work_dirs/pretrain_r50/iter_93750.pth'),
)

max_iters = 80_000
optim_wrapper = {{_base_.ibot_optim_wrapper}}
param_scheduler = [
    {{_base_.ibot_warm_up}},
    dict(type='PolyLR', power=1.0, eta_min=0.0, begin=1500, end=max_iters, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))

# 4 GPUs x 2 images.
auto_scale_lr = dict(enable=False, base_batch_size=8)

custom_imports = dict(imports=['vito_mm'], allow_failed_imports=False)
