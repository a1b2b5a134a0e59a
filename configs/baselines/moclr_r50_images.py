"""MoCLR on a folder of images, e.g. ImageNet: MoCLR-ImageNet of https://arxiv.org/abs/2210.06433."""

_base_ = './moclr_r50_frames.py'

data_root = 'data/imagenet/train'
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        extensions=('.jpg', '.jpeg', '.png'),
    )
)
