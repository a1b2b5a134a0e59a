"""Making MiniScenes on disk: every part once, with workers, whole or marked as unfinished."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from vito_mm.utils.atomic import written_aside
from vito_mm.utils.cores import count_cores
from vito_mm.utils.progress import Progress
from vito_mm.utils.worker_pool import map_in_workers

from .parts import PARTS, Counts, Job, finish_part, list_jobs, write_item
from .presets import get_preset

TASKS = tuple(PARTS)
RECORD = 'miniscenes.json'
"""File in the folder of each part that says what it was made from, and whether it is whole."""

VERSION = 3
"""Raised with every change that changes the files, so that older ones are made anew."""


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
) -> dict[str, str]:
    """Make the parts of MiniScenes that are not there yet.

    A part that a call with the same arguments has finished is left as it is; one that is
    unfinished, or was made with other arguments, is made anew. The same arguments give the same
    bytes, whatever the number of workers.

    Args:
        root: Folder that gets one folder a part.
        preset: Key of ``PRESETS``. Defaults to ``'demo'``.
        seed: Seed of the world, 0 or larger. Defaults to 0.
        num_videos: Number of videos. Defaults to the preset's.
        num_images: Number of training stills a task; half as many are added for validation, and
            half as many for VOC's ``aug``. Defaults to the preset's.
        num_probe_images: Number of single-object images to train a probe, and as many to test it;
            with a ``difficulty`` as many again of held-out materials. Defaults to the preset's.
        workers: Number of processes; 0 and 1 work in this one. Defaults to the number of cores.
        tasks: Parts to make, of ``'videos'``, ``'ade20k'``, ``'voc'``, ``'coco'``, ``'lvis'`` and
            ``'probe'``. Defaults to all.
        progress: Whether to print what is done. Defaults to True.

    Returns:
        dict[str, str]: Folder of each of ``tasks``. The videos are listed in
        ``videos/manifest.jsonl``.

    Raises:
        ValueError: If an argument is unknown or out of range.
        FileExistsError: If the folder of a part holds files that MiniScenes did not make.
        OSError: If ``root`` cannot be written.
    """
    chosen = get_preset(preset)
    counts = Counts(
        chosen.num_videos if num_videos is None else num_videos,
        chosen.num_images if num_images is None else num_images,
        chosen.num_probe_images if num_probe_images is None else num_probe_images,
        held_out=chosen.difficulty is not None,
    )
    _check_numbers(seed, counts, workers)
    tasks = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    for task in tasks:
        if task not in PARTS:
            raise ValueError(f'tasks: {task!r} is unknown; choose among {", ".join(TASKS)}')
    root = Path(root)
    workers = count_cores() if workers is None else workers
    folders = {task: root / task for task in tasks}
    for task, folder in folders.items():
        described = asdict(chosen)
        if chosen.difficulty is None:  # as such worlds were recorded before there was any
            del described['difficulty']
        parameters = {
            'version': VERSION,
            'preset': described,
            'seed': seed,
            'counts': counts.splits(task),
        }
        # What JSON reads back has lists for tuples.
        parameters = json.loads(json.dumps(parameters))
        if _read_record(folder) == {'complete': True, 'parameters': parameters}:
            _say(progress, f'MiniScenes {task}: already there')
            continue
        _start_part(folder, parameters)
        start = time.perf_counter()
        jobs = list(list_jobs(task, folder, chosen, seed, counts))
        results = []
        title = f'MiniScenes {task}'
        bar = Progress(len(jobs), title, None, 'files') if progress else nullcontext()
        with bar, closing(_written(jobs, workers)) as written:
            for result in written:
                results.append(result)
                if progress:
                    bar.advance()
        finish_part(task, folder, jobs, results)
        _write_record(folder, complete=True, parameters=parameters)
        _say(progress, f'MiniScenes {task}: {len(jobs)} in {time.perf_counter() - start:.1f} s')
    return {task: str(folder) for task, folder in folders.items()}


def _check_numbers(seed: int, counts: Counts, workers: int | None) -> None:
    if seed < 0:
        raise ValueError(f'seed={seed} is negative; give 0 or a larger number')
    for name in ('videos', 'images', 'probe_images'):
        value = getattr(counts, name)
        if value < 1:
            raise ValueError(f'num_{name}={value}: give 1 or more, or leave the part out of tasks')
    if workers is not None and workers < 0:
        raise ValueError(f'workers={workers} is negative; give 0 to work in this process')


def _say(progress: bool, message: str) -> None:
    if progress:
        print(message, flush=True)


def _read_record(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / RECORD).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except json.JSONDecodeError:
        return {'complete': False}


def _write_record(folder: Path, complete: bool, parameters: dict[str, Any]) -> None:
    record = json.dumps({'complete': complete, 'parameters': parameters}, indent=1)
    with written_aside(folder / RECORD) as unfinished:
        unfinished.write_text(record)


def _start_part(folder: Path, parameters: dict[str, Any]) -> None:
    """Empty the folder of a part and mark it as unfinished. Others' files are never deleted."""
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
    """Results of ``write_item`` in the order of the jobs."""
    workers = min(workers, len(jobs))
    if workers > 1:
        yield from map_in_workers(_write_with_one_thread, jobs, workers)
    else:
        yield from map(write_item, jobs)


def _write_with_one_thread(job: Job) -> Any:
    cv2.setNumThreads(0)
    return write_item(job)
