"""VITO on Walking Tours (https://arxiv.org/abs/2310.08584): ten recordings of an hour and more.

    tools/dist_train.sh configs/vito/pretrain_r50_walking_tours.py 8 --videos minutes.jsonl

The list has a row for each minute, about 980 of them: docs/your_own_videos.md#walking-tours makes
it. A pass over the list draws each minute once, so that a batch of 256 holds few of them twice.

[ours], as VITO's paper has no such data: batch 256 with its rate by the linear rule, 0.3 x 256 /
256, and 300 epochs of 100,000 clips, in which a minute is seen 30,000 times.
"""

_base_ = './pretrain_r50.py'

# Clips of a batch share their file with a tenth of the others: minutes of one walk are told apart.
model = dict(head=dict(mask_same_file=False))

train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(lr=0.3))
train_cfg = dict(clips_per_epoch=100_000)
auto_scale_lr = dict(base_batch_size=256)
