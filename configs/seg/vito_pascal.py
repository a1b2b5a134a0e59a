"""FCN-d8, ResNet-50, on PASCAL VOC 2012 (train_aug) from a VITO checkpoint: mmseg's 40k schedule.

    mim train mmseg configs/seg/vito_pascal.py

Another checkpoint, or random weights (what stands in `checkpoint` below is only the default):
    --cfg-options model.backbone.checkpoint=FILE
    --cfg-options model.backbone.checkpoint=None
Less than 100 % of the backbone's keys in the file is an error.

40k steps of 16 images are 60 epochs of the 10,582 images. The learning rate (0.01) is the stock
one. A checkpoint deserves its own: sweep optim_wrapper.optimizer.lr before comparing.
"""

_base_ = 'mmseg::fcn/fcn_r50-d8_4xb4-40k_voc12aug-512x512.py'

model = dict(
    pretrained=None,
    backbone=dict(type='VITOResNet', checkpoint='work_dirs/pretrain_r50/iter_93750.pth'),
)

custom_imports = dict(imports=['vito_mm'], allow_failed_imports=False)
