"""Three views of a clip, augmented A1, A2, A1. Section 3.1 of https://arxiv.org/abs/2210.06433.

``BYOLAugmentation`` has BYOL's settings (https://arxiv.org/abs/2006.07733, appendix B) as defaults;
A1 and A2 differ in blur and solarization. ``BYOLCrop`` is the crop of BYOL's code: bicubic, aspect
ratio log-uniform in [3/4, 4/3], windows clipped to the frame. ``oversize='redraw'`` in it gives
torchvision's windows: smaller, and often the same middle of a wide frame. Where the arithmetic is
not BYOL's, and by how much, is said in ``BYOLAugmentation``.

``pipeline.augment.on_device=True`` leaves all but the crop to the training device.
"""

crop = dict(type='BYOLCrop', scale=224, crop_ratio_range=(0.4, 1.0), interpolation='bicubic')

# Named stages, so that a config that inherits them states only what it changes.
pipeline = dict(
    sample=dict(type='SampleFrames', num_views=3, segment=2.56, method='marginal'),
    decode=dict(type='DecodeFrames'),
    augment=dict(
        type='AugmentViews',
        pipelines=dict(
            A1=dict(crop=crop, byol=dict(type='BYOLAugmentation')),
            A2=dict(
                crop=crop, byol=dict(type='BYOLAugmentation', blur_prob=0.1, solarize_prob=0.2)
            ),
        ),
    ),
    pack=dict(
        type='PackInputs',
        meta_keys=('video_path', 'video_id', 'frame_times', 'skipped_videos', 'augmentations'),
    ),
)

train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='ClipSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='VideoDataset', data_root='data/videos', pipeline=pipeline),
)
