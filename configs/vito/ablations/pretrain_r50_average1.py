"""Ablation: average pooling of the last stage alone, no attention."""

_base_ = '../pretrain_r50.py'

model = dict(
    backbone=dict(out_indices=(3,)),
    neck=dict(in_channels=(2048,), pooling='average'),
    projector=dict(in_channels=2048),
)
