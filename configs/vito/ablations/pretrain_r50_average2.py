"""Ablation: average pooling of the last two stages, no attention."""

_base_ = '../pretrain_r50.py'

model = dict(neck=dict(pooling='average'))
