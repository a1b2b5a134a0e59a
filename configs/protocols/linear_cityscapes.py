"""Cityscapes segmentation by a linear head on a frozen ResNet-50: as linear_ade20k.py.

    mim train mmseg configs/protocols/linear_cityscapes.py --gpus 4 --launcher pytorch

Metric: mIoU on val. Data and schedule are those of upernet_cityscapes.py. [ours]: as there and in
linear_ade20k.py.
"""

_base_ = ['upernet_cityscapes.py', '../_base_/models/linear_head.py']

model = dict(backbone=dict(frozen=True), decode_head={{_base_.linear_head}}, auxiliary_head=None)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
