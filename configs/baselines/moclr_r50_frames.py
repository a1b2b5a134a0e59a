"""MoCLR on single frames of videos: two crops of one frame, average pooling, no attention.

The baseline of https://arxiv.org/abs/2210.06433, with the crops that are usual for images.
"""

_base_ = '../vito/pretrain_r50.py'

model = dict(
    backbone=dict(out_indices=(3,)),
    neck=dict(in_channels=(2048,), pooling='average'),
    projector=dict(in_channels=2048),
)

crop = dict(crop_ratio_range=(0.08, 1.0))
train_dataloader = dict(
    dataset=dict(
        pipeline=dict(
            sample=dict(num_views=2, method='single'),
            augment=dict(pipelines=dict(A1=dict(crop=crop), A2=dict(crop=crop))),
        )
    )
)
