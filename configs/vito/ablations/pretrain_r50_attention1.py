"""Ablation: attention pooling of the last stage alone; the base pools the last two."""

_base_ = '../pretrain_r50.py'

model = dict(
    backbone=dict(out_indices=(3,)),
    neck=dict(in_channels=(2048,)),
    projector=dict(in_channels=2048),
)
