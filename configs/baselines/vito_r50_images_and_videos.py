"""VITO on images and videos together, each drawn as often as there are of it.

An experiment that reviewers of https://arxiv.org/abs/2210.06433 asked for and nobody has shown.
"""

_base_ = '../vito/pretrain_r50.py'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                type='VideoDataset',
                data_root='data/videos',
                pipeline={{_base_.pipeline}},
            ),
            dict(
                type='VideoDataset',
                data_root='data/imagenet/train',
                extensions=('.jpg', '.jpeg', '.png'),
                pipeline={{_base_.pipeline}},
            ),
        ],
    )
)
