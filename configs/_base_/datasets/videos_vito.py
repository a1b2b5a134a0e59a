"""Three views of a clip, augmented A1, A2, A1. Section 3.1 of https://arxiv.org/abs/2210.06433.

Where mmpretrain's transforms differ from BYOL's (https://arxiv.org/abs/2006.07733, appendix B):

- mmpretrain's ``GaussianBlur`` approximates the Gaussian by box filters without a kernel size;
  ``RandomGaussianBlur`` is the 23x23 kernel.
- ``Solarize(thr=128)`` on 8-bit values is BYOL's threshold 0.5 on [0, 1]: 127/255 < 0.5 < 128/255.
- ``RandomGrayscale`` weights the channels evenly unless told; here the luma weights, in BGR order.
- ``RandomResizedCrop`` is bilinear by default, here bicubic; its aspect ratio is log-uniform.
- ``ColorJitter`` scales brightness, as BYOL's paper and torchvision describe it; BYOL's code adds
  an offset instead. The order of the four is random in both.
"""

crop = dict(
    type='RandomResizedCrop', scale=224, crop_ratio_range=(0.4, 1.0), interpolation='bicubic'
)
flip = dict(type='RandomFlip', prob=0.5)
jitter = dict(
    type='RandomApply',
    transforms=[
        dict(
            type='ColorJitter',
            brightness=0.4,
            contrast=0.4,
            saturation=0.2,
            hue=0.1,
            backend='cv2',
        )
    ],
    prob=0.8,
)
grayscale = dict(
    type='RandomGrayscale',
    prob=0.2,
    keep_channels=True,
    channel_weights=(0.114, 0.587, 0.299),
    color_format='bgr',
)
blur = dict(type='RandomGaussianBlur', kernel_size=23, sigma=(0.1, 2.0), prob=1.0)
rare_blur = dict(type='RandomGaussianBlur', kernel_size=23, sigma=(0.1, 2.0), prob=0.1)
solarize = dict(type='Solarize', thr=128, prob=0.2)

# Named stages, so that a config that inherits them states only what it changes.
pipeline = dict(
    sample=dict(type='SampleFrames', num_views=3, segment=2.56, method='marginal'),
    decode=dict(type='DecodeFrames'),
    augment=dict(
        type='AugmentViews',
        pipelines=dict(
            A1=dict(crop=crop, flip=flip, jitter=jitter, grayscale=grayscale, blur=blur),
            A2=dict(
                crop=crop,
                flip=flip,
                jitter=jitter,
                grayscale=grayscale,
                blur=rare_blur,
                solarize=solarize,
            ),
        ),
    ),
    pack=dict(type='PackInputs', meta_keys=('video_path', 'frame_times', 'skipped_videos')),
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
