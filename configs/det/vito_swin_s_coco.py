"""COCO by the paper's protocol with Swin-S, its second architecture: FCOS*, 30 epochs.

    mim train mmdet configs/det/vito_swin_s_coco.py --gpus 8 --launcher pytorch

Differences from vito_coco.py, whose docstring has the protocol. Metric: box mAP on val2017.
Published: 49.8 from VITO on VideoNet, 48.4 from MoCLR and 50.4 from DetCon on ImageNet.

[ours], where the paper is silent: it gives no recipe of its own for Swin-S, so that AdamW of 1e-3,
weight decay of 1e-4 and the schedule are those of its ResNet-50; stochastic depth and parameters
without weight decay are those of mmdet's own Swin configs.
Compare the best of a sweep for each checkpoint:
    tools/transfer.py --checkpoints FILE --tasks coco --sweep lr=0.0001,0.0003,0.001
"""

_base_ = ['vito_coco.py', '../_base_/models/swin_s_finetuning.py']

model = dict(backbone={{_base_.swin_s_backbone}}, neck=dict(in_channels=[96, 192, 384, 768]))

optim_wrapper = dict(paramwise_cfg={{_base_.swin_s_paramwise}})
