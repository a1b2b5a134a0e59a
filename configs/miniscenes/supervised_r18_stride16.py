"""The upper line of the study's preset attention: supervised_r18.py with its network and size."""

_base_ = './supervised_r18.py'

model = dict(
    backbone=dict(stem_channels=16, base_channels=16, strides=(1, 1, 2, 2)),
    head=dict(in_channels=128),
)
