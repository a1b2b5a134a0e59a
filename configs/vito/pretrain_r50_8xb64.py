"""VITO with a batch of 512, 64 clips on each of 8 GPUs: for a few small GPUs, not the paper's.

The rate follows the linear rule, 0.3 x 512 / 256. Fewer negatives: for the paper's batch on small
GPUs see pretrain_r50_8xb512_micro64.py.
"""

_base_ = './pretrain_r50.py'

train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=0.6))
auto_scale_lr = dict(base_batch_size=512)
