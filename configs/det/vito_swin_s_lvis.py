"""LVIS v1 by the paper's protocol with Swin-S, its second architecture: FCOS*, 30 epochs.

    mim train mmdet configs/det/vito_swin_s_lvis.py --gpus 8 --launcher pytorch

Differences from vito_lvis.py, whose docstring has the protocol. Metric: box AP on val. Published:
33.5 from VITO on VideoNet, 32.7 from MoCLR and 33.1 from DetCon on ImageNet.

[ours], where the paper is silent: as for COCO (vito_swin_s_coco.py).
Compare the best of a sweep for each checkpoint:
    tools/transfer.py --checkpoints FILE --tasks lvis --sweep lr=0.0001,0.0003,0.001
"""

_base_ = ['vito_lvis.py', '../_base_/models/swin_s_finetuning.py']

model = dict(backbone={{_base_.swin_s_backbone}}, neck=dict(in_channels=[96, 192, 384, 768]))

optim_wrapper = dict(paramwise_cfg={{_base_.swin_s_paramwise}})
