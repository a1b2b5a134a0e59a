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

demo_optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=5.0))),
)
