"""ADE20K by UperNet, ResNet-50 from a checkpoint: iBOT's schedule, as PooDLe and Midway use it.

    mim train mmseg configs/protocols/upernet_ade20k.py --gpus 4 --launcher pytorch

Checkpoint or random weights:
    --cfg-options model.backbone.checkpoint=FILE
    --cfg-options model.backbone.checkpoint=None

Metric: mIoU on val. Published with ResNet-50: 36.6 from PooDLe on one walking tour, 41.0 on all of
them, 43.0 from DINO on ImageNet (https://arxiv.org/abs/2408.11208).

iBOT (https://arxiv.org/abs/2111.07832) trains 160k steps of 16 crops of 512 x 512 with AdamW,
weight decay 0.05, a linear warm-up of 1,500 steps and a linear decay, and evaluates in windows of
the crop's size; its rates and layer-wise decay are for transformers. [ours]: a rate of 1e-4 for
ResNet-50; sweep it:
    tools/transfer.py --checkpoints FILE --tasks upernet_ade20k --sweep lr=3e-5,1e-4,3e-4
"""

_base_ = [
    'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py',
    '../_base_/schedules/ibot_adamw.py',
]

model = dict(
    pretrained=None,
    # A plain ResNet, which the checkpoint is, in the place of ResNetV1c with its three-layer stem.
    backbone=dict(type='VITOResNet', checkpoint='work_dirs/pretrain_r50/iter_93750.pth'),
    # Windows of the training's size.
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)

max_iters = 160_000
optim_wrapper = {{_base_.ibot_optim_wrapper}}
param_scheduler = [
    {{_base_.ibot_warm_up}},
    dict(type='PolyLR', power=1.0, eta_min=0.0, begin=1500, end=max_iters, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))

# 4 GPUs x 4 images.
auto_scale_lr = dict(enable=False, base_batch_size=16)

custom_imports = dict(imports=['vito_mm'], allow_failed_imports=False)
