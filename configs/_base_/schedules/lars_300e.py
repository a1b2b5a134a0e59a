"""LARS for 300 epochs of 1.28 M clips at a global batch of 4096.

Section 4.1 and appendix of https://arxiv.org/abs/2210.06433. 300 epochs are 93,750 steps, 10 epochs
of warm-up 3,125. Base learning rate 0.3 x 4096 / 256 = 4.8.

LARS and schedule are those of BYOL's code: momentum over updates without the rate, warm-up from a
rate of 0. ``optimizer.formula='mmpretrain'`` gives mmpretrain's LARS, whose steps lag behind the
schedule.
"""

optim_wrapper = dict(
    type='SkipNonFiniteOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(
        type='ForeachLARS', lr=4.8, momentum=0.9, weight_decay=1e-6, eta=1e-3, formula='byol'
    ),
    constructor='TrainableParamsConstructor',
    # Biases and norm parameters: no weight decay, no layer-wise rate.
    paramwise_cfg=dict(
        custom_keys={
            'bias': dict(decay_mult=0.0, lars_exclude=True),
            'bn': dict(decay_mult=0.0, lars_exclude=True),
            'downsample.1': dict(decay_mult=0.0, lars_exclude=True),
        }
    ),
)

# In epochs of clips_per_epoch clips, exact for any batch size.
param_scheduler = [
    dict(
        type='WarmUpLR',
        begin=0,
        end=10,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=290,
        eta_min=0.0,
        begin=10,
        end=300,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]

train_cfg = dict(type='ClipTrainLoop', max_epochs=300, clips_per_epoch=1_280_000)
auto_scale_lr = dict(enable=False, base_batch_size=4096)
