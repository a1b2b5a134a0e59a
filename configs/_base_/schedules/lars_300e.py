"""LARS for 300 epochs of 1.28 M clips at a global batch of 4096.

Section 4.1 and appendix of https://arxiv.org/abs/2210.06433. 300 epochs are 93,750 steps, 10 epochs
of warm-up 3,125. Base learning rate 0.3 x 4096 / 256 = 4.8.
"""

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=1.0,  # bfloat16 has float32's range: nothing to scale
    optimizer=dict(type='LARS', lr=4.8, momentum=0.9, weight_decay=1e-6, eta=1e-3),
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

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, begin=0, end=3125, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=90625, eta_min=0.0, begin=3125, end=93750, by_epoch=False),
]

train_cfg = dict(type='IterBasedTrainLoop', max_iters=93750)
auto_scale_lr = dict(enable=False, base_batch_size=4096)
