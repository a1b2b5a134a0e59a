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

view_size = 224
min_crop_area = 0.4

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
crop = dict(
    type='RandomResizedCrop',
    scale=view_size,
    crop_ratio_range=(min_crop_area, 1.0),
    interpolation='bicubic',
)
flip = dict(type='RandomFlip', prob=0.5)

blur_1 = dict(type='RandomGaussianBlur', kernel_size=23, sigma=(0.1, 2.0), prob=1.0)
blur_2 = dict(type='RandomGaussianBlur', kernel_size=23, sigma=(0.1, 2.0), prob=0.1)
solarize = dict(type='Solarize', thr=128, prob=0.2)

augmentation_1 = [crop, flip, jitter, grayscale, blur_1]
augmentation_2 = [crop, flip, jitter, grayscale, blur_2, solarize]

train_pipeline = [
    dict(type='SampleFrames', num_views=3, segment=2.56, method='marginal'),
    dict(type='DecodeFrames'),
    dict(type='AugmentViews', pipelines=[augmentation_1, augmentation_2]),
    dict(type='PackInputs', meta_keys=('video_path', 'frame_times', 'skipped_videos')),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='ClipSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='VideoDataset', data_root='data/videos', pipeline=train_pipeline),
)
