"""FCN-d8, ResNet-50, on ADE20K from a VITO checkpoint: mmseg's stock 80k schedule.

    mim train mmseg configs/seg/vito_ade20k.py

Another checkpoint, or random weights (what stands in `checkpoint` below is only the default):
    --cfg-options model.backbone.checkpoint=FILE
    --cfg-options model.backbone.checkpoint=None
Less than 100 % of the backbone's keys in the file is an error.

The learning rate (0.01 for 16 images) is the stock one. A checkpoint deserves its own: sweep
optim_wrapper.optimizer.lr over 0.005, 0.01, 0.02, 0.04 before comparing.
"""

_base_ = 'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'

model = dict(
    pretrained=None,
    backbone=dict(type='VITOResNet', checkpoint='work_dirs/pretrain_r50/iter_93750.pth'),
)

custom_imports = dict(imports=['vito_mm'], allow_failed_imports=False)
