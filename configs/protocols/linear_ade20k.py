"""ADE20K by a linear head on a frozen ResNet-50: the "linear" columns of PooDLe and DoRA.

    mim train mmseg configs/protocols/linear_ade20k.py --gpus 4 --launcher pytorch

Checkpoint or random weights: see upernet_ade20k.py, of which this states the differences; iBOT's
linear configs have the same schedule.

Metric: mIoU on val. Published with ResNet-50: 14.6 from PooDLe on one walking tour, 16.5 on all of
them, 15.7 from DINO on ImageNet (https://arxiv.org/abs/2408.11208); PooDLe's are read from the
decoder that it is trained with and not from stage 5.

[ours]: a rate of 1e-3, and the network's own stride of 32, at which it was pre-trained;
model.backbone.strides=(1,2,1,1) model.backbone.dilations=(1,1,2,4) read it at 8. The head has no
norm, so that the best rate depends on the size of the features; sweep it for each checkpoint:
    tools/transfer.py --checkpoints FILE --tasks linear_ade20k --sweep lr=1e-4,1e-3,1e-2
tools/probe.py segment standardises the features, and takes minutes.
"""

_base_ = ['upernet_ade20k.py', '../_base_/models/linear_head.py']

model = dict(
    backbone=dict(frozen=True), decode_head={{_base_.linear_head_ade20k}}, auxiliary_head=None
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
