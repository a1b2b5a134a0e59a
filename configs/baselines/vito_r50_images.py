"""VITO's heads and crops on a folder of images, e.g. ImageNet: how much comes from video?

An experiment that reviewers of https://arxiv.org/abs/2210.06433 asked for and nobody has shown.
"""

_base_ = '../vito/pretrain_r50.py'

data_root = 'data/imagenet/train'
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        extensions=('.jpg', '.jpeg', '.png'),
    )
)
