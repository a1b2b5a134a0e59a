"""Probing: what a video holds, what is dropped and why, and hashes that copies share."""

import hashlib
import re
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.fft import dctn

from tests.conftest import write_video
from tests.helpers.faulty_videos import (
    UNREADABLE,
    huge_frame,
    no_key_frame_at_the_start,
    one_frame,
    overwritten,
    truncated_data,
    wrong_duration,
)
from tests.helpers.scenes import as_json, copy_video, run_on, scene, write_frames, write_scene
from vito_mm.curation.perceptual_hash import perceptual_hash
from vito_mm.curation.probing import Probe
from vito_mm.videos.prepare.integrity import inspect_video

FAULTY = UNREADABLE | {
    'truncated_data.mp4': truncated_data,
    'overwritten.mp4': overwritten,
    'huge_frame.webm': huge_frame,
    'one_frame.mp4': one_frame,
}


def distance(one: str, other: str) -> int:
    """Bits that differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def probe(path: Path, **settings) -> dict:
    stage = Probe(**settings)
    row = dict(path=str(path))
    return stage.finish(row, stage.prepare(row))


def test_a_row_gets_what_the_inspection_finds_and_keeps_columns_of_the_user(tmp_path):
    path = write_scene(tmp_path / 'a.mp4', seed=1)
    # What an earlier preparation said does not outlive this one; one word of it hides a video.
    old = dict(verdict='bad', reason='no frame', notes='odd', expected_sha256='0', seconds=99.0)
    [row] = run_on(Probe(min_seconds=1), [dict(path=str(path), title='Tea', **old)], tmp_path / 'w')
    facts = inspect_video(path)
    assert facts.pop('verdict') == 'ok'
    hashes = row.pop('hashes')
    assert row == facts | dict(title='Tea')
    assert [len(text) for text in hashes] == [16] * 3


def test_the_hash_of_a_table_binds_unless_the_file_was_bad(tmp_path):
    path = write_scene(tmp_path / 'a.mp4', seed=1)
    known = dict(path=str(path), sha256='ab' * 32)
    rows = [known | dict(verdict=verdict) for verdict in ('ok', 'bad')]
    found = run_on(Probe(min_seconds=1), rows, tmp_path / 'w')
    assert ['dropped' in row for row in found] == [True, False]


@pytest.mark.parametrize(
    ('name', 'num_frames', 'fps', 'is_kept'),
    [
        ('a.mp4', 250, 25, True),
        ('a.mkv', 250, 25, True),
        ('a.mkv', 300, 30, True),  # times in milliseconds
        ('a.flv', 300, 30, True),
        ('a.mp4', 249, 25, False),
        ('a.mkv', 299, 30, False),
        ('a.mp4', 10, 1, True),
        ('a.mp4', 9, 1, False),
    ],
)
def test_ten_seconds_are_enough_and_a_frame_less_is_not(tmp_path, name, num_frames, fps, is_kept):
    frames = [np.full((32, 32, 3), index % 200, np.uint8) for index in range(num_frames)]
    row = probe(write_frames(tmp_path / name, frames, fps))
    assert row['num_frames'] == num_frames
    if is_kept:
        assert 'dropped' not in row
    else:
        start, seconds, end = re.split(r'([\d.]+)', row['dropped'], maxsplit=1)
        assert (start, end) == ('too short: ', ' s, 10 s are wanted')
        assert float(seconds) == pytest.approx(num_frames / fps, abs=0.002)


@pytest.mark.parametrize('check', [False, True])
def test_faulty_files_are_dropped_with_a_reason_and_their_neighbours_are_not(tmp_path, check):
    good = [write_scene(tmp_path / f'good_{i}.mp4', seed=i) for i in range(2)]
    paths = [good[0]]
    for name, make in FAULTY.items():
        make(tmp_path / name)
        paths.append(tmp_path / name)
    paths += [tmp_path / 'missing.mp4', good[1]]
    rows = [dict(path=str(path), title=path.name) for path in paths]
    stage = Probe(min_seconds=1, check=check)
    found = run_on(stage, rows, tmp_path / 'work')
    assert [row['title'] for row in found] == [row['title'] for row in rows]
    reasons = {row['title']: row.get('dropped') for row in found}
    assert [name for name, reason in reasons.items() if reason is None] == [p.name for p in good]
    for path in paths[1:-1]:
        facts = inspect_video(path, check)
        if facts['verdict'] == 'bad':
            assert reasons[path.name] == facts['reason']
    assert reasons['one_frame.mp4'] == 'too short: 0.04 s, 1 s are wanted'
    if check:
        assert reasons['overwritten.mp4'].startswith('damaged: ')
    alone = run_on(stage, [rows[0], rows[-1]], tmp_path / 'alone')
    assert as_json(alone) == as_json([found[0], found[-1]])


def test_frames_that_cannot_be_decoded_are_a_reason_where_packets_can_be_read(tmp_path):
    overwritten(tmp_path / 'a.mp4')
    assert inspect_video(tmp_path / 'a.mp4')['verdict'] == 'ok'
    row = probe(tmp_path / 'a.mp4', min_seconds=1)
    assert row['dropped'].startswith('a frame cannot be decoded: ')
    assert row['num_frames'] == 100
    # Who wants no hashes does not look at frames.
    assert 'dropped' not in probe(tmp_path / 'a.mp4', min_seconds=1, hashes=0)


def test_odd_files_that_can_be_read_are_kept(tmp_path):
    wrong_duration(tmp_path / 'a.mp4')
    no_key_frame_at_the_start(tmp_path / 'b.ts')
    assert probe(tmp_path / 'a.mp4', min_seconds=4)['seconds'] == 4
    row = probe(tmp_path / 'b.ts', min_seconds=1, hashes=1)
    assert 'dropped' not in row
    assert 'before the first key frame' in row['notes']


def test_archives_of_frames_are_videos_with_the_rate_of_the_table(tmp_path):
    (tmp_path / 'frames').mkdir()
    for index in range(4):
        cv2.imwrite(str(tmp_path / 'frames' / f'{index}.png'), scene(0, index, (32, 32)))
    with tarfile.open(tmp_path / 'frames.tar', 'w') as archive:
        archive.add(tmp_path / 'frames', 'frames')
    for name in ('frames', 'frames.tar'):
        row = Probe(min_seconds=2).prepare(dict(path=str(tmp_path / name), fps=2))
        assert 'dropped' not in row
        assert (row['seconds'], row['fps'], len(row['hashes'])) == (2, 2, 3)


def test_bytes_that_are_not_those_of_the_table_are_noticed(tmp_path):
    path = write_scene(tmp_path / 'a.mp4', seed=1)
    known = hashlib.sha256(path.read_bytes()).hexdigest()
    rows = [dict(path=str(path), sha256=known), dict(path=str(path), sha256='0' * 64)]
    kept, dropped = run_on(Probe(min_seconds=1), rows, tmp_path / 'work')
    assert 'dropped' not in kept
    assert 'bytes are not those' in dropped['dropped']
    assert dropped['sha256'] == known


@pytest.mark.parametrize('settings', [dict(min_seconds=-1), dict(min_seconds=float('nan'))])
def test_lengths_below_zero_are_refused(settings):
    with pytest.raises(ValueError, match='--min-seconds'):
        Probe(**settings)


def test_hashes_are_signs_of_low_frequencies_against_their_median():
    rng = np.random.default_rng(0)
    for _ in range(20):
        grey = cv2.resize(rng.integers(0, 256, (5, 5)).astype(np.uint8), (32, 32))
        low = dctn(grey.astype(float), norm='ortho')[:8, :8].ravel()
        bits = [0] + [int(value > np.median(low[1:])) for value in low[1:]]
        expected = int(''.join(map(str, bits)), 2)
        found = perceptual_hash(np.repeat(grey[..., None], 3, axis=2))
        # The reference is in double precision.
        assert (int(found, 16) ^ expected).bit_count() <= 1


def test_hashes_are_of_the_middles_of_equal_parts(tmp_path):
    whole = probe(write_scene(tmp_path / 'whole.mp4', seed=[1, 2, 3], seconds=3), min_seconds=1)
    for part, seed in enumerate((1, 2, 3)):
        expected = perceptual_hash(scene(seed, part + 0.5, (128, 96)))
        assert distance(whole['hashes'][part], expected) <= 2


@pytest.mark.parametrize(
    ('size', 'codec', 'crf'),
    [
        ((128, 96), 'libx264', 35),
        ((64, 48), 'libx264', 24),
        ((320, 180), 'libx264', 30),  # stretched too
        ((128, 96), 'libvpx-vp9', 40),
    ],
)
def test_copies_have_nearly_the_same_hashes_and_other_videos_others(tmp_path, size, codec, crf):
    ending = 'mp4' if codec == 'libx264' else 'webm'
    for seed in range(3):
        source = write_scene(tmp_path / f'{seed}.mp4', seed)
        copy = copy_video(source, tmp_path / f'copy_{seed}.{ending}', size, codec, crf)
        mirrored = write_scene(tmp_path / f'mirrored_{seed}.mp4', seed, mirrored=True)
        other = write_scene(tmp_path / f'other_{seed}.mp4', seed + 10)
        hashes, *others = (
            probe(p, min_seconds=1)['hashes'] for p in (source, copy, mirrored, other)
        )
        means = [np.mean([*map(distance, hashes, more)]) for more in others]
        assert means[0] <= 4
        assert min(means[1:]) > 12


def test_frames_with_too_little_to_tell_have_no_hash(tmp_path):
    ramp = np.broadcast_to(np.arange(0, 256, 2, dtype=np.uint8)[None, :, None], (96, 128, 3))
    bars = np.where(ramp < 128, 20, 220).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 4, (96, 128, 3), dtype=np.uint8)
    for image in (np.zeros((96, 128, 3), np.uint8), np.full((96, 128, 3), 200, np.uint8)):
        assert perceptual_hash(image) == ''
        assert perceptual_hash(image + noise) == ''
    assert perceptual_hash(np.ascontiguousarray(ramp)) == ''
    assert perceptual_hash(bars) == ''
    assert perceptual_hash(scene(0, 0, (128, 96), contrast=0.02)) == ''
    assert perceptual_hash(scene(0, 0, (128, 96))) != ''
    black = np.zeros((96, 128, 3), np.uint8)
    frames = [black] * 10 + [scene(0, 0, (128, 96))] * 10 + [black] * 10
    hashes = probe(write_frames(tmp_path / 'a.mp4', frames, 10), min_seconds=1)['hashes']
    assert [bool(text) for text in hashes] == [False, True, False]
    # Halves of one colour each, as the clips of other tests.
    assert probe(write_video(tmp_path / 'b.mp4'), min_seconds=1)['hashes'] == [''] * 3
