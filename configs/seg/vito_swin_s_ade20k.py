"""ADE20K by the paper's protocol with Swin-S, its second architecture.

    mim train mmseg configs/seg/vito_swin_s_ade20k.py --gpus 4 --launcher pytorch

Differences from vito_ade20k.py, whose docstring has the protocol. Metric: mIoU on val. Published:
46.1 from VITO on VideoNet, 43.7 from MoCLR and 46.1 from DetCon on ImageNet.

[ours], where the paper is silent: it gives no recipe for fine-tuning Swin-S. Optimizer, warm-up and
stochastic depth are those of mmseg's own Swin configs for ADE20K (AdamW of 6e-5, weight decay 0.01,
1500 steps). FCN on stage 5 stays; a Swin has no dilations, so that its output stride is 32, not 8.
Compare the best of a sweep for each checkpoint:
    tools/transfer.py --checkpoints FILE --tasks ade20k --sweep lr=0.00003,0.00006,0.00012
"""

_base_ = ['vito_ade20k.py', '../_base_/models/swin_s_finetuning.py']

model = dict(backbone={{_base_.swin_s_backbone}}, decode_head=dict(in_channels=768))

max_iters = 75788
optimizer = dict(_delete_=True, type='AdamW', lr=6e-5, weight_decay=0.01)
optim_wrapper = dict(optimizer=optimizer, paramwise_cfg={{_base_.swin_s_paramwise}})
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=1500, end=max_iters, by_epoch=False),
]
