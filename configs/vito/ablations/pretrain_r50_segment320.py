"""Ablation: views within 3.2 s of video; the base has 2.56 s."""

_base_ = '../pretrain_r50.py'

train_dataloader = dict(dataset=dict(pipeline=dict(sample=dict(segment=3.2))))
