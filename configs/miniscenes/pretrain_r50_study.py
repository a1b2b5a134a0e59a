"""VITO on MiniScenes' preset study: ResNet-50 at 112 px, batch 256, minutes on one GPU.

    tools/make_miniscenes.py data/study --preset study
    tools/train.py configs/miniscenes/pretrain_r50_study.py

The paper's optimizer at a rate for this batch; the target follows faster than the paper's, as
there are 4,000 steps instead of 93,750. Not run yet.
"""

_base_ = ['../vito/pretrain_r50.py']

data_root = 'data/study/videos'
ann_file = 'manifest.jsonl'

model = dict(base_momentum=0.98)

crop = dict(scale=112)

train_dataloader = dict(
    batch_size=256,
    dataset=dict(
        data_root=data_root,
        ann_file=ann_file,
        pipeline=dict(augment=dict(pipelines=dict(A1=dict(crop=crop), A2=dict(crop=crop)))),
    ),
)

auto_scale_lr = dict(base_batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=1.0))
param_scheduler = [
    dict(type='WarmUpLR', begin=0, end=200, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=3800, eta_min=0.0, begin=200, end=4000, by_epoch=False),
]
train_cfg = dict(_delete_=True, type='ClipTrainLoop', max_iters=4000)
