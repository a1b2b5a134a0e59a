"""Ablation: one view in each third of the segment."""

_base_ = '../pretrain_r50.py'

train_dataloader = dict(dataset=dict(pipeline=dict(sample=dict(method='uniform'))))
