"""Ablation: crops of at least 0.2 of the frame; the base has 0.4."""

_base_ = '../pretrain_r50.py'

crop = dict(crop_ratio_range=(0.2, 1.0))
train_dataloader = dict(
    dataset=dict(
        pipeline=dict(augment=dict(pipelines=dict(A1=dict(crop=crop), A2=dict(crop=crop))))
    )
)
