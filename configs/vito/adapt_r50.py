r"""VITO from weights that are there, on your own videos: ResNet-50, one GPU of 24 GB, an afternoon.

    tools/train.py configs/vito/adapt_r50.py --cfg-options load_from=FILE \
        train_dataloader.dataset.data_root=FOLDER

docs/adapt.md has the whole way. The recipe is ours; docs/results/adaptation.md has what it gave.

A run is 10 epochs of 100,000 clips. ``train_cfg.clips_per_epoch`` makes it shorter or longer, with
warm-up and decay: a tenth of it, 10,000, for a small collection or a CPU.

128 clips of three views took 18,992 MiB with LARS (measured), and AdamW adds a state of 180 MB. By
micro-batches (``model.micro_batch_size=32``) one view of 32 clips is held at a time: by proportion
2.5 GB, for a quarter more time.
"""

_base_ = './pretrain_r50.py'

# The target starts as good as the online network, which moves by few clips a step: it follows
# slowly, a step in 250 instead of a step in 100.
model = dict(base_momentum=0.996)

train_dataloader = dict(batch_size=128, num_workers=8)

# LARS is made for large batches, and its rate is relative to the weights, which are to be kept.
# AdamW at a tenth of a rate for training from scratch; the projector is new, and so gets that rate.
# The attention is new, too, but without norm: at the full rate it settles on a corner.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        _delete_=True,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys=dict(projector=dict(lr_mult=10.0)),
        # Below 1 the rate falls with each layer towards the stem, by mmpretrain's count of layers.
        layer_decay_rate=1.0,
    ),
)
param_scheduler = [
    dict(type='WarmUpLR', begin=0, end=1, by_epoch=True, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=9,
        eta_min=0.0,
        begin=1,
        end=10,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=10, clips_per_epoch=100_000)
auto_scale_lr = dict(base_batch_size=128)

# Minutes apart on a GPU.
default_hooks = dict(checkpoint=dict(interval=500))
