"""ResNet-50 of the detection configs, from a checkpoint, with nothing held back.

The detectors share it as a variable: MMEngine lets no two bases define the same key.
"""

detection_backbone = dict(
    type='VITOResNet',
    checkpoint='work_dirs/pretrain_r50/iter_93750.pth',
    # mmdet's detectors keep the stem, stage 2 and all batch statistics of supervised weights, and
    # name weights to fetch. As in its configs/selfsup_pretrain, none of that here.
    frozen_stages=-1,
    norm_cfg=dict(type='SyncBN', requires_grad=True),
    norm_eval=False,
    init_cfg=None,
)

custom_imports = dict(imports=['vito_mm'], allow_failed_imports=False)
