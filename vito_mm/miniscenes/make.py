"""Making MiniScenes on disk: every part once, by several workers, complete or marked unfinished."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from vito_mm.utils.atomic import write_json
from vito_mm.utils.cores import count_cores
from vito_mm.utils.progress import Progress
from vito_mm.utils.worker_pool import map_in_workers

from .classes import CLASSES
from .layouts import (
    write_ade20k_still,
    write_annotation_files,
    write_detection_still,
    write_jpeg,
    write_voc_lists,
    write_voc_still,
)
from .presets import Preset, get_preset
from .sequences import write_davis_list, write_davis_sequence
from .stills import render_probe_image
from .videos import write_video

TASKS = ('videos', 'ade20k', 'voc', 'coco', 'lvis', 'probe', 'davis')
RECORD = 'miniscenes.json'
"""File in the folder of each part with its parameters, and whether it is complete."""

_STILLS_PER_SEQUENCE = 10

VERSION = 3
"""Raised with every change of the files, so that older ones are made again."""


@dataclass(frozen=True)
class Job:
    """One item to write, as plain data for a worker.

    Attributes:
        task: One of ``TASKS``.
        folder: Folder of the part.
        preset: Sizes and ranges.
        seed: Seed of the world.
        split: Key of ``seeding.SPLITS``.
        index: Index of the item in its split.
    """

    task: str
    folder: Path
    preset: Preset
    seed: int
    split: str
    index: int


def make_miniscenes(
    root: str | os.PathLike,
    preset: str = 'demo',
    seed: int = 0,
    num_videos: int | None = None,
    num_images: int | None = None,
    num_probe_images: int | None = None,
    workers: int | None = None,
    tasks: Sequence[str] = TASKS,
    progress: bool = True,
    classes: Sequence[int] | None = None,
) -> dict[str, str]:
    """Make the missing parts of MiniScenes.

    A part that a call with the same arguments has finished is kept; one that is unfinished, or was
    made with other arguments, is made again. The same arguments give the same bytes, whatever the
    number of workers.

    Args:
        root: Folder that gets one folder per part.
        preset: Key of ``PRESETS``. Defaults to ``'demo'``.
        seed: Seed of the world, 0 or larger. Defaults to 0.
        num_videos: Number of videos. Defaults to the preset's.
        num_images: Number of training stills per task; half as many are added for validation, and
            half as many for VOC's ``aug``. Defaults to the preset's.
        num_probe_images: Number of single-object images to train a probe, and as many to test it;
            with a ``difficulty`` as many again of held-out materials. Defaults to the preset's.
        workers: Number of processes; 0 and 1 work in this one. Defaults to the number of cores.
        tasks: Parts to make, of ``TASKS``. Defaults to all.
        progress: Print the progress. Defaults to True.
        classes: Indices into ``CLASSES`` of the classes that there are. Defaults to the preset's.

    Returns:
        dict[str, str]: Folder of each of ``tasks``. The videos are listed in
        ``videos/manifest.jsonl``.

    Raises:
        ValueError: If an argument is unknown or out of range.
        FileExistsError: If the folder of a part holds files that MiniScenes did not make.
        OSError: If ``root`` cannot be written.
    """
    chosen = get_preset(preset)
    if classes is not None:
        if not classes or not set(classes) <= set(range(len(CLASSES))):
            raise ValueError(f'classes={classes}: give some of 0 to {len(CLASSES) - 1}')
        chosen = replace(chosen, classes=tuple(classes))
    counts = dict(
        num_videos=chosen.num_videos if num_videos is None else num_videos,
        num_images=chosen.num_images if num_images is None else num_images,
        num_probe_images=chosen.num_probe_images if num_probe_images is None else num_probe_images,
    )
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f'{name}={value}: give 1 or more, or leave the part out of tasks')
    if seed < 0:
        raise ValueError(f'seed={seed} is negative; give 0 or a larger number')
    workers = count_cores() if workers is None else workers
    if workers < 0:
        raise ValueError(f'workers={workers} is negative; give 0 to work in this process')
    tasks = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    for task in tasks:
        if task not in TASKS:
            raise ValueError(f'tasks: {task!r} is unknown; choose among {", ".join(TASKS)}')
    folders = {task: Path(root) / task for task in tasks}
    say = partial(print, flush=True) if progress else lambda text: None
    described = asdict(chosen)
    if chosen.difficulty is None:  # as such worlds were recorded before there was any
        del described['difficulty']
    if classes is None:
        del described['classes']
    for task, folder in folders.items():
        splits = _splits(task, chosen.difficulty is not None, **counts)
        parameters = dict(version=VERSION, preset=described, seed=seed, counts=splits)
        # What JSON reads back has lists for tuples.
        parameters = json.loads(json.dumps(parameters))
        there = _read_record(folder)
        if there == {'complete': True, 'parameters': parameters}:
            say(f'MiniScenes {task}: already there')
            continue
        if there and there.get('parameters') != parameters:
            say(f'MiniScenes {task}: made anew, as it was made with other arguments')
        _start_part(folder, parameters)
        start = time.perf_counter()
        jobs = [
            Job(task, folder, chosen, seed, split, index)
            for split, count in splits.items()
            for index in range(count)
        ]
        results: dict[str, list] = {split: [] for split in splits}
        title = f'MiniScenes {task}'
        bar = Progress(len(jobs), title, None, 'files') if progress else nullcontext()
        with bar, closing(_written(jobs, workers)) as written:
            for job, result in zip(jobs, written, strict=True):
                results[job.split].append(result)
                if progress:
                    bar.advance()
        _finish_part(task, folder, results)
        _write_record(folder, complete=True, parameters=parameters)
        say(f'MiniScenes {task}: {len(jobs)} in {time.perf_counter() - start:.1f} s')
    return {task: str(folder) for task, folder in folders.items()}


def _splits(
    task: str, held_out: bool, num_videos: int, num_images: int, num_probe_images: int
) -> dict[str, int]:
    """Count the items of each split of a part."""
    half = max(1, num_images // 2)
    probe = ('train', 'val', 'held_out') if held_out else ('train', 'val')
    return {
        'videos': {'train': num_videos},
        'voc': {'train': num_images, 'val': half, 'aug': half},
        'probe': dict.fromkeys(probe, num_probe_images),
        'davis': {'val': max(2, num_images // _STILLS_PER_SEQUENCE)},
    }.get(task, {'train': num_images, 'val': half})


def write_item(job: Job) -> Any:
    """Write one item; returns what the lists and annotation files need of it."""
    folder, item = job.folder, (job.preset, job.seed, job.split, job.index)
    match job.task:
        case 'videos':
            name = f'video_{job.index:05d}.mp4'
            return {'path': name, **write_video(folder / name, job.preset, job.seed, job.index)}
        case 'ade20k':
            return write_ade20k_still(folder, *item)
        case 'voc':
            return write_voc_still(folder, *item)
        case 'davis':
            return write_davis_sequence(folder, job.preset, job.seed, job.index)
        case 'probe':
            folder = folder / job.split / CLASSES[job.preset.label_of(job.index)].name
            folder.mkdir(parents=True, exist_ok=True)
            return write_jpeg(folder / f'{job.index:05d}.jpg', render_probe_image(*item))
    return write_detection_still(folder, job.preset, job.seed, job.task, job.split, job.index)


def _finish_part(task: str, folder: Path, results: dict[str, list]) -> None:
    """Write the lists, annotation files or the manifest of a part."""
    if task == 'videos':
        # Imported here: that package decodes videos, which the other parts do not need.
        from ..videos.manifest import write_manifest

        write_manifest(folder / 'manifest.jsonl', results['train'])
    elif task == 'voc':
        write_voc_lists(folder, results)
    elif task == 'davis':
        write_davis_list(folder, results['val'])
    elif task in ('coco', 'lvis'):
        write_annotation_files(folder, task, results)


def _read_record(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / RECORD).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except json.JSONDecodeError:
        return {'complete': False}


def _write_record(folder: Path, complete: bool, parameters: dict[str, Any]) -> None:
    write_json(folder / RECORD, {'complete': complete, 'parameters': parameters})


def _start_part(folder: Path, parameters: dict[str, Any]) -> None:
    """Empty the folder of a part and mark it unfinished. Others' files are never deleted."""
    try:
        if folder.is_dir() and any(folder.iterdir()):
            if _read_record(folder) is None:
                raise FileExistsError(
                    f'root: {folder} holds files that MiniScenes did not make (it has no '
                    f'{RECORD}); choose another root, or move them away'
                )
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _write_record(folder, complete=False, parameters=parameters)
    except (FileExistsError, NotADirectoryError) as error:
        if error.errno is None:  # our own, above
            raise
        raise NotADirectoryError(
            f'root: {folder} or a folder above it is a file; choose another root'
        ) from error
    except OSError as error:
        raise type(error)(
            f'root: cannot write {folder} ({error}); choose a folder that can be written'
        ) from error


def _written(jobs: Sequence[Job], workers: int) -> Iterator[Any]:
    """Write the items; yields the results in the order of the jobs."""
    workers = min(workers, len(jobs))
    if workers > 1:
        yield from map_in_workers(_write_with_one_thread, jobs, workers)
    else:
        yield from map(write_item, jobs)


def _write_with_one_thread(job: Job) -> Any:
    cv2.setNumThreads(0)
    return write_item(job)
