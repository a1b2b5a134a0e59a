#!/usr/bin/env python
"""How long a training takes to list a large manifest, and what its processes hold of it.

    python benchmarks/manifest.py [--rows 1200000] [--workers 8]

A manifest as tools/prepare_videos.py writes it is made, then a data loader draws rows of it. Each
variant runs in a process of its own:

- *vito_mm*: VideoDataset.
- *MMEngine*: its BaseDataset with the same rows, serialized into one array as it does by default.
- *list*: BaseDataset with a plain list of dicts, which worker processes copy page by page as
  reference counts change.

Memory is the proportional set size of the main process and its workers together, which counts a
shared page once, after 200 batches, less that of the same loader on a manifest of 100 rows.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VARIANTS = ('vito_mm', 'MMEngine', 'list')


def write_rows(file: Path, rows: int) -> None:
    """Write a manifest with rows as long as real ones.

    Args:
        file: Manifest.
        rows: Number of rows.
    """
    with file.open('w') as lines:
        for i in range(rows):
            row = dict(
                path=f'class_{i % 1000:04d}/video_{i:08d}.mp4',
                label=i % 1000,
                seconds=10.0 + i % 50,
                fps=25.0,
                num_frames=250,
                width=455,
                height=256,
                codec='h264',
                rotation=0,
                keyframe_interval={'max': 0.48, 'mean': 0.47},
                bytes=430_000 + i,
                sha256=hashlib.sha256(str(i).encode()).hexdigest(),
                verdict='bad' if i % 100 == 99 else 'ok',
            )
            lines.write(json.dumps(row) + '\n')


def list_and_load(variant: str, file: Path, workers: int) -> dict[str, float]:
    """List a manifest and draw from it with data workers.

    Returns:
        dict[str, float]: ``seconds`` until the data set knows its rows, ``rows``, ``megabytes`` of
        all processes, and ``draws`` per second.
    """
    from mmengine.dataset import BaseDataset
    from torch.utils.data import DataLoader

    from vito_mm.datasets import ClipSampler, VideoDataset

    class Rows(BaseDataset):
        """What one writes without this package."""

        def load_data_list(self) -> list[dict]:
            with open(self.ann_file) as lines:
                rows = map(json.loads, lines)
                return [row for row in rows if row['verdict'] == 'ok']

    start = time.perf_counter()
    if variant == 'vito_mm':
        dataset = VideoDataset(ann_file=str(file), pipeline=[_path_of])
    else:
        serialize = variant == 'MMEngine'
        dataset = Rows(ann_file=str(file), pipeline=[_path_of], serialize_data=serialize)
    seconds = time.perf_counter() - start
    sampler = ClipSampler(dataset, seed=0)
    loader = DataLoader(dataset, 64, sampler=sampler, num_workers=workers, collate_fn=list)
    batches = iter(loader)
    next(batches)
    begun = time.perf_counter()
    for _ in range(200):
        next(batches)
    draws = 200 * 64 / (time.perf_counter() - begun)
    return dict(seconds=seconds, rows=len(dataset), megabytes=_megabytes(), draws=draws)


def _path_of(row: dict) -> str:
    return row.get('video_path') or row['path']


def _megabytes() -> float:
    """Proportional set size of this process and its children."""
    processes = [os.getpid()]
    for thread in Path('/proc/self/task').iterdir():
        processes += map(int, (thread / 'children').read_text().split())
    total = 0
    for process in processes:
        for line in Path(f'/proc/{process}/smaps_rollup').read_text().splitlines():
            if line.startswith('Pss:'):
                total += int(line.split()[1])
    return total / 1024


def run(variant: str, file: Path, workers: int) -> dict[str, float]:
    """Measure in another process.

    Returns:
        dict[str, float]: See :func:`list_and_load`.
    """
    command = [sys.executable, '-W', 'ignore', __file__, '--variant', variant]
    command += ['--file', str(file), '--workers', str(workers)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rows', type=int, default=1_200_000, help='rows, default 1,200,000')
    parser.add_argument('--workers', type=int, default=8, help='data workers, default 8')
    parser.add_argument('--variant', choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument('--file', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        print(json.dumps(list_and_load(args.variant, args.file, args.workers)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file, small = Path(folder) / 'manifest.jsonl', Path(folder) / 'small.jsonl'
        write_rows(file, args.rows)
        write_rows(small, 100)
        print(
            f'{args.rows} rows, {file.stat().st_size / 1e6:.0f} MB, {args.workers} data workers, '
            f'{os.cpu_count()} cores, Python {platform.python_version()}\n'
        )
        print('| data set | listed in s | rows | memory MB | draws/s |')
        print('|---|---:|---:|---:|---:|')
        for variant in VARIANTS:
            base = run(variant, small, args.workers)['megabytes']
            found = run(variant, file, args.workers)
            print(
                f'| {variant} | {found["seconds"]:.2f} | {found["rows"]} '
                f'| {found["megabytes"] - base:.0f} | {found["draws"]:.0f} |',
                flush=True,
            )


if __name__ == '__main__':
    main()
