"""Ablation: views a fixed time apart.

The delay is our choice: 0.75 s, the median distance of two views of the base's marginal sampling.
"""

_base_ = '../pretrain_r50.py'

train_dataloader = dict(dataset=dict(pipeline=dict(sample=dict(method='delta', delta=0.75))))
