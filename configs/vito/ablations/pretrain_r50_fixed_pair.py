"""Ablation: one fixed pair of frames per video, which is all that is ever seen of it.

The delay of the pair is our choice, see pretrain_r50_delta.py.
"""

_base_ = '../pretrain_r50.py'

train_dataloader = dict(
    dataset=dict(pipeline=dict(sample=dict(num_views=2, method='delta', delta=0.75, fixed=True)))
)
