"""A linear head on stage 5: mmseg's FCNHead without a convolution of its own before the classifier.

The configs share it as a variable: MMEngine lets no two bases define the same key.
"""

# The 19 classes of Cityscapes and BDD100K.
linear_head = dict(
    _delete_=True,
    type='FCNHead',
    in_channels=2048,
    in_index=3,
    channels=2048,
    num_convs=0,
    concat_input=False,
    dropout_ratio=0.0,
    num_classes=19,
    align_corners=False,
    loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
)
linear_head_ade20k = dict(linear_head, num_classes=150)
