"""Ablation: two views of a clip, as in the comparison of data sets; the base has three."""

_base_ = '../pretrain_r50.py'

train_dataloader = dict(dataset=dict(pipeline=dict(sample=dict(num_views=2))))
