"""VITO on Walking Tours (https://arxiv.org/abs/2310.08584): ten recordings of an hour and more.

    tools/dist_train.sh configs/vito/pretrain_r50_walking_tours.py 8 --videos minutes.jsonl

The list has a row for each minute, about 980 of them: docs/your_own_videos.md#walking-tours makes
it. A pass over the list draws each minute once, so that a batch of 512 holds hardly any twice.

[ours], as the paper has no such data: batch 512 with its own rate (pretrain_r50_8xb64.py), and 300
epochs of 100,000 clips, in which a minute is seen 30,000 times.
"""

_base_ = './pretrain_r50_8xb64.py'

# Nearly all clips of a batch share their file with others: minutes of one walk are told apart.
model = dict(head=dict(mask_same_file=False))

train_cfg = dict(clips_per_epoch=100_000)
