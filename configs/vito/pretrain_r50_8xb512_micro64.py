"""VITO's batch of 4096 on 8 GPUs that hold 64 clips each at a time.

The loss and its gradient are those of the 4096 clips, for one more forward pass; batch norm sees
64 clips on each GPU, 512 in all. See ``micro_batch_size`` of VITO.
"""

_base_ = './pretrain_r50.py'

model = dict(micro_batch_size=64)
