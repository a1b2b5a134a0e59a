"""Runs on folders as they are found: broken files, workers that are killed."""

import csv
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import default_collate
from torch.utils.data import DataLoader, Dataset

from tests.conftest import write_video
from tests.engine.test_hooks import run, tiny_config
from tests.helpers import faulty_videos as faulty
from tests.helpers.processes import Forked, shell, start_forked
from tests.tools.test_train import CONFIG, tiny_options
from vito_mm.datasets import ClipSampler, VideoDataset
from vito_mm.engine.worker_restart import WorkerRestart

READABLE = {
    'one_frame.mp4': faulty.one_frame,
    'wrong_duration.mp4': faulty.wrong_duration,
    'large.mp4': faulty.large_frames,
}
"""Odd files that give frames all the same."""


@pytest.fixture
def web(tmp_path) -> Path:
    """Good and bad files, and a manifest of them with rows that cannot be read."""
    folder = tmp_path / 'web'
    for index in range(4):
        write_video(folder / f'good_{index}.mp4', num_frames=60, texture=index)
    for name, make in {**faulty.UNREADABLE, **READABLE}.items():
        make(folder / name)
    faulty.no_key_frame_at_the_start(folder / 'no_key_frame.ts')
    os.rename(folder / 'good_3.mp4', os.fsencode(folder) + b'/\xff\xfe.mp4')
    Path(os.fsdecode(os.fsencode(folder) + b'/bad_\xff.mp4')).touch()
    return folder


def table_of(work_dir: Path) -> list[dict[str, str]]:
    (file,) = work_dir.glob('*/skipped_videos.csv')
    with file.open(encoding='utf-8', errors='surrogateescape', newline='') as lines:
        return list(csv.DictReader(lines))


def test_a_run_goes_on_and_lists_every_bad_file_once(web, tmp_path):
    """Workers and all; what is listed is what cannot be read, with a reason each."""
    paths = [os.fsencode(web / name) for name in os.listdir(os.fsencode(web).decode())]
    lines = [b'{"path": "%s"}' % path for path in paths] + [b'{"path": 3}', b'<html>']
    lines += [b'{"path": "nowhere.mp4"}']
    (web / 'manifest.jsonl').write_bytes(b'\n'.join(lines))
    options = {
        'train_cfg.max_iters': 10,
        'train_dataloader.num_workers': 2,
        'train_dataloader.dataset.ann_file': str(web / 'manifest.jsonl'),
        'default_hooks.skipped_videos.max_share': 1.0,
    }
    runner = run(tiny_config(web, tmp_path / 'run', **options))
    assert runner.iter == 10
    rows = table_of(tmp_path / 'run')
    named = [row['path'].replace(f'{web}/', '') for row in rows]
    assert len(set(named)) == len(named)
    bad = {*faulty.UNREADABLE, 'nowhere.mp4', os.fsdecode(b'bad_\xff.mp4')}
    bad |= {f'manifest.jsonl, line {len(paths) + number}' for number in (1, 2)}
    assert bad <= set(named)  # 40 draws without replacement see each of 19 rows twice
    assert set(named) <= bad | {'no_key_frame.ts'}
    assert all(row['reason'].strip() for row in rows)


def test_too_many_bad_draws_end_the_run_with_the_table(web, tmp_path):
    result = shell(
        *(sys.executable, 'tools/train.py', CONFIG, '--work-dir', tmp_path / 'run'),
        *tiny_options(web, max_iters=50),
        'default_hooks.skipped_videos.min_draws=20',
    )
    assert result.returncode != 0
    message = result.stderr.strip().splitlines()[-1]
    assert re.search(r'draws \(\d\d%\) hit videos that cannot be read', message)
    assert 'default_hooks.skipped_videos.max_share=0.2' in message
    assert re.search(r'skipped_videos\.csv, mostly: \d+ x ', message)
    assert len(table_of(tmp_path / 'run')) >= 4


def test_a_killed_worker_changes_nothing(textured_folder, tmp_path):
    """kill -9 of a data worker in mid-run: the same weights as without."""
    weights = []
    for name in ('calm', 'killed'):
        work_dir = tmp_path / name
        command = [
            *('tools/train.py', CONFIG, '--work-dir', work_dir),
            *tiny_options(textured_folder, max_iters=12),
        ]
        run = start_forked(tmp_path, command, {})
        if name == 'killed':
            os.kill(_worker_of(run, work_dir / 'iter_2.pth'), signal.SIGKILL)
        done = run.wait()
        assert done.returncode == 0, done.stderr[-3000:]
        weights.append(torch.load(work_dir / 'iter_12.pth')['state_dict'])
    assert 'starting the workers again at clip' in done.stdout + done.stderr
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key


def _worker_of(run: Forked, after: Path) -> int:
    """A data worker of a run, once it has written a file."""
    end = time.monotonic() + 120
    while not after.exists():
        assert run.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)
    return max(
        int(child)
        for thread in Path(f'/proc/{run.pid}/task').iterdir()
        for child in (thread / 'children').read_text().split()
    )


class DieOn(BaseTransform):
    """What a crash of a decoder does to the process."""

    def __init__(self, name: str) -> None:
        self.name = name

    def transform(self, results: dict) -> dict:
        if results['video_path'].endswith(self.name):
            os.kill(os.getpid(), signal.SIGKILL)
        return dict(path=results['video_path'], skipped=str(results['skipped_videos']))


def loader_of(folder: Path, **kwargs) -> DataLoader:
    dataset = VideoDataset(data_root=str(folder), pipeline=[DieOn('deadly.mp4')])
    sampler = ClipSampler(dataset, seed=0, **kwargs)
    return DataLoader(
        dataset,
        batch_size=2,
        sampler=sampler,
        num_workers=1,
        persistent_workers=True,
        collate_fn=default_collate,
    )


def test_a_file_that_kills_two_workers_is_not_read_any_more(tmp_path):
    for name in ('a.mp4', 'b.mp4', 'c.mp4', 'deadly.mp4'):
        (tmp_path / name).write_text('not opened by this pipeline')
    loader = loader_of(tmp_path, shuffle=False)
    batches = WorkerRestart(loader, clips_per_batch=2)
    first, second, third = (next(batches) for _ in range(3))
    names = [[Path(path).name for path in batch['path']] for batch in (first, second, third)]
    assert names[0] == names[2] == ['a.mp4', 'b.mp4']
    assert names[1][0] == 'c.mp4'
    assert names[1][1] != 'deadly.mp4'
    assert 'ends the process that reads it' in second['skipped'][1]
    assert loader.dataset.blocklist == {str(tmp_path / 'deadly.mp4')}
    assert batches.restarts == 2


class Numbers(Dataset):
    """Tensors, which travel to the main process with the help of the worker that made them."""

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((1000,), int(index))


def test_batches_of_dying_workers_are_made_again():
    """Killed while what it has made is fetched: no batch is lost, whatever breaks first."""
    dataset = Numbers()
    loader = DataLoader(
        dataset, 2, sampler=ClipSampler(dataset, seed=0, shuffle=False), num_workers=1
    )
    batches = WorkerRestart(loader, clips_per_batch=2, max_restarts=100)
    for number in range(60):
        assert next(batches)[:, 0].tolist() == [2 * number, 2 * number + 1]
        if number % 3 == 0:
            time.sleep(0.05)  # the next batches are waiting
            (worker,) = batches.workers
            os.kill(worker.pid, signal.SIGKILL)
    assert batches.restarts == 20


def test_workers_that_keep_dying_end_the_run(tmp_path):
    (tmp_path / 'deadly.mp4').write_text('not opened by this pipeline')
    batches = WorkerRestart(loader_of(tmp_path), clips_per_batch=2, max_restarts=0)
    with pytest.raises(RuntimeError, match='exited unexpectedly'):
        next(batches)
