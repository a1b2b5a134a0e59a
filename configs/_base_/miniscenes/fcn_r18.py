"""FCN of ResNet-18 (half width) at demo size, for crops of 96 px and one CPU core.

ADE20K and VOC configs share it as variables: MMEngine lets no two bases define the same key.
"""

demo_crop_size = (96, 96)

demo_model = dict(
    data_preprocessor=dict(size=demo_crop_size),
    # Output stride 16 and no second head, for speed: their full-size logits cost most of a step.
    backbone=dict(
        depth=18,
        stem_channels=32,
        base_channels=32,
        checkpoint='work_dirs/pretrain_r18/iter_1000.pth',
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
    ),
    decode_head=dict(in_channels=256, channels=64),
    auxiliary_head=None,
)

# 200 steps of 8 images. With 120, training ends while classes are still being told apart, and the
# result is a matter of luck from any weights.
demo_max_iters = 200
demo_optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=5.0))),
)
demo_param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=15, by_epoch=False),
    dict(type='PolyLR', eta_min=0.0, power=0.9, begin=15, end=demo_max_iters, by_epoch=False),
]
demo_train_cfg = dict(max_iters=demo_max_iters, val_interval=demo_max_iters)
demo_default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=demo_max_iters, save_optimizer=False)
)
