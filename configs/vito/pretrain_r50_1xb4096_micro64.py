"""VITO's batch of 4096 on one GPU that holds 64 clips at a time.

    tools/train.py configs/vito/pretrain_r50_1xb4096_micro64.py

See pretrain_r50_8xb512_micro64.py; batch norm sees 64 clips. Every data worker makes a complete
batch, 1.9 GB of views, and as much again in shared memory (/dev/shm) until it is used: hence few
workers, one batch ahead each.
"""

_base_ = './pretrain_r50.py'

model = dict(micro_batch_size=64)
train_dataloader = dict(batch_size=4096, num_workers=8, prefetch_factor=1)
