"""One fixed frame per video, which is all that is ever seen of it: a video as an image."""

_base_ = '../pretrain_r50.py'

train_dataloader = dict(dataset=dict(pipeline=dict(sample=dict(method='single', fixed=True))))
