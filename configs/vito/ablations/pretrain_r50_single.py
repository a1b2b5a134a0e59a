"""Ablation: all views from one frame, drawn again each time."""

_base_ = '../pretrain_r50.py'

train_dataloader = dict(dataset=dict(pipeline=dict(sample=dict(method='single'))))
