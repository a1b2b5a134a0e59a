"""VITO for 200 epochs, the schedule of the comparison with earlier video methods.

62,500 steps at batch 4096: table 1 of https://arxiv.org/abs/2210.06433.
"""

_base_ = './pretrain_r50.py'

param_scheduler = [
    dict(
        type='WarmUpLR',
        begin=0,
        end=10,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=190,
        eta_min=0.0,
        begin=10,
        end=200,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=200)
