"""FCN-d8, ResNet-50, on ADE20K from a checkpoint: mmseg's 80k schedule.

    mim train mmseg configs/seg/vito_ade20k_stock.py --gpus 4 --launcher pytorch

Another checkpoint, or random weights (the one in `checkpoint` below is only the default):
    --cfg-options model.backbone.checkpoint=FILE
    --cfg-options model.backbone.checkpoint=None
Less than 100 % of the backbone's keys in the file is an error.

Metric: mIoU on val. No row of the paper's table is this schedule (vito_ade20k.py is), so compare
checkpoints with each other. 80k steps of 16 images (4 GPUs x 4) are 63 epochs of the 20,210 images.

The learning rate (0.01) is the stock one. A checkpoint deserves its own:
    tools/transfer.py --protocol stock --tasks ade20k --sweep lr=0.005,0.01,0.02,0.04
"""

_base_ = 'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'

model = dict(
    pretrained=None,
    # A plain ResNet, which the checkpoint is, in the place of ResNetV1c with its three-layer stem.
    backbone=dict(type='VITOResNet', checkpoint='work_dirs/pretrain_r50/iter_93750.pth'),
)

# 4 GPUs x 4 images.
auto_scale_lr = dict(enable=False, base_batch_size=16)

custom_imports = dict(imports=['vito_mm'], allow_failed_imports=False)
