"""All probes of pre-training and pictures of its attention, for a config that adds this file.

    _base_ = ['../vito/pretrain_r50.py', '../_base_/probes.py']

What the numbers mean and what they cost: docs/watch_a_run.md; the pictures: docs/pictures.md.
"""

custom_hooks = [
    # Labelled images: a folder with train/<class>/ and val/<class>/, or a manifest with labels. On
    # the command line: --cfg-options custom_hooks.0.data=...
    dict(type='KNNProbeHook', data='data/probe', interval=1000),
    dict(type='TimeRetrievalHook', interval=1000),
    dict(type='RepresentationHook', interval=500),
    # One picture a checkpoint; nothing for a model without attention pooling.
    dict(type='AttentionHook'),
]
