"""The data stream as a function of seed and draw alone."""

import pickle
import random
from itertools import islice

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from torch.utils.data import DataLoader

from vito_mm.datasets import ClipSampler, Draw, VideoDataset, random_state_of

PIPELINE = [
    dict(type='SampleFrames', num_views=2, segment=1.0),
    dict(type='DecodeFrames'),
    dict(
        type='AugmentViews',
        pipelines=[[dict(type='mmpretrain.RandomResizedCrop', scale=16)]],
    ),
    dict(type='mmpretrain.PackInputs', meta_keys=('video_path', 'skipped_videos', 'frame_times')),
]


def draws(size: int, count: int, rank: int = 0, world_size: int = 1, **kwargs) -> list[Draw]:
    sampler = ClipSampler(range(size), **{'seed': 5, **kwargs})
    sampler.rank, sampler.world_size = rank, world_size
    return list(islice(sampler, count))


def test_every_pass_is_a_new_permutation():
    stream = draws(7, 35)
    passes = [stream[i : i + 7] for i in range(0, 35, 7)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len({tuple(map(int, one)) for one in passes}) > 1
    assert [draw.number for draw in stream] == list(range(35))
    assert stream != draws(7, 35, seed=6)
    assert draws(7, 9, shuffle=False) == [0, 1, 2, 3, 4, 5, 6, 0, 1]


@pytest.mark.parametrize('world_size', [1, 2, 3, 4])
def test_ranks_share_one_stream(world_size):
    """A global batch of 12 holds the same draws on any number of ranks."""
    whole = draws(10, 36)
    per_rank = 12 // world_size
    for batch in range(3):
        shared = []
        for rank in range(world_size):
            stream = draws(10, 36 // world_size, rank, world_size)
            shared += stream[batch * per_rank : (batch + 1) * per_rank]
        shared.sort(key=lambda draw: draw.number)
        expected = whole[batch * 12 : (batch + 1) * 12]
        assert [(int(d), d.number) for d in shared] == [(int(d), d.number) for d in expected]


def test_a_start_in_the_middle_is_the_rest_of_the_stream():
    assert draws(1000, 5, start=2345) == draws(1000, 2350)[2345:]
    # 204.8 million draws ahead: no counting up to there.
    far = draws(1_200_000, 3, start=50_000 * 4096)
    passed, position = divmod(50_000 * 4096, 1_200_000)
    order = np.random.default_rng((5, passed)).permutation(1_200_000)
    assert far == order[position : position + 3].tolist()


def test_an_empty_data_set_is_refused():
    with pytest.raises(ValueError, match='empty'):
        ClipSampler([], seed=0)


def test_a_draw_survives_pickling_and_the_arithmetic_of_wrappers():
    draw = pickle.loads(pickle.dumps(Draw(13, seed=3, number=99)))
    for index, expected in ((draw, 13), (draw - 10, 3), (draw % 5, 3)):
        assert (int(index), index.seed, index.number) == (expected, 3, 99)


def test_random_numbers_follow_the_draw_and_leave_no_trace():
    def numbers(index):
        with random_state_of(index):
            return random.random(), np.random.rand(), torch.rand(1).item()

    outside = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    first, again = numbers(Draw(0, 1, 7)), numbers(Draw(5, 1, 7))
    assert first == again
    assert len({numbers(Draw(0, seed, n)) for seed in range(3) for n in range(5)}) == 15
    assert random.getstate() == outside[0]
    assert np.array_equal(np.random.get_state()[1], outside[1])
    assert torch.equal(torch.get_rng_state(), outside[2])
    assert numbers(0) != numbers(0)  # a plain index is left alone


def test_a_clip_depends_on_seed_and_draw_alone(video_folder):
    (video_folder / 'empty.mp4').touch()  # its substitute is part of the stream
    dataset = VideoDataset(data_root=str(video_folder), pipeline=PIPELINE)

    def stream(num_workers: int, batch_size: int, start: int = 0) -> list[tuple]:
        loader = DataLoader(
            dataset,
            batch_size=batch_size,
            num_workers=num_workers,
            sampler=ClipSampler(dataset, seed=1, start=start),
            collate_fn=list,
            multiprocessing_context='fork' if num_workers else None,
        )
        samples = [s for batch in islice(loader, 12 // batch_size) for s in batch]
        return [
            (
                s['data_samples'].video_path,
                s['data_samples'].frame_times.tolist(),
                [view.numpy().tobytes() for view in s['inputs']],
            )
            for s in samples
        ]

    reference = stream(0, 1)
    assert len({str(clip) for clip in reference}) == 12
    assert stream(2, 3) == stream(3, 4) == reference
    assert stream(1, 2, start=6)[:6] == reference[6:]


def test_wrapped_data_sets_keep_the_stream(video_folder):
    part = VideoDataset(data_root=str(video_folder), pipeline=PIPELINE)
    mixed, repeated = ConcatDataset([part, part]), RepeatDataset(part, times=3)
    reference = part[Draw(3, 0, 4)]['inputs']
    for sample in (mixed[Draw(3, 0, 4)], mixed[Draw(9, 0, 4)], repeated[Draw(15, 0, 4)]):
        assert all(torch.equal(x, y) for x, y in zip(sample['inputs'], reference, strict=True))
