"""The parts of MiniScenes on disk: what each consists of and how its items are written."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .classes import CLASSES
from .detection_layouts import write_annotation_files, write_detection_still
from .files import write_jpeg
from .presets import Preset
from .segmentation_layouts import write_ade20k_still, write_voc_lists, write_voc_still
from .stills import render_probe_image
from .videos import write_video


@dataclass(frozen=True)
class Job:
    """One item to write. Plain data, so that it can be sent to a worker.

    Attributes:
        task: The part, a key of ``PARTS``.
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


@dataclass(frozen=True)
class Counts:
    """How many items the parts have.

    Attributes:
        videos: Number of videos.
        images: Number of training stills a task. There are half as many for validation, and half
            as many in VOC's ``aug``.
        probe_images: Number of training images of the probe, and as many for validation.
        held_out: Whether the probe has as many images of held-out materials.
    """

    videos: int
    images: int
    probe_images: int
    held_out: bool = False

    def splits(self, task: str) -> dict[str, int]:
        """Give the number of items of each split of a part."""
        half = max(1, self.images // 2)
        probe = ('train', 'val', 'held_out') if self.held_out else ('train', 'val')
        return {
            'videos': {'train': self.videos},
            'voc': {'train': self.images, 'val': half, 'aug': half},
            'probe': dict.fromkeys(probe, self.probe_images),
        }.get(task, {'train': self.images, 'val': half})


def _write_video(job: Job) -> dict[str, Any]:
    name = f'video_{job.index:05d}.mp4'
    return {'path': name, **write_video(job.folder / name, job.preset, job.seed, job.index)}


def _write_ade20k(job: Job) -> str:
    return write_ade20k_still(job.folder, job.preset, job.seed, job.split, job.index)


def _write_voc(job: Job) -> str:
    return write_voc_still(job.folder, job.preset, job.seed, job.split, job.index)


def _write_detection(job: Job) -> dict[str, Any]:
    return write_detection_still(job.folder, job.preset, job.seed, job.task, job.split, job.index)


def _write_probe(job: Job) -> None:
    folder = job.folder / job.split / CLASSES[job.index % len(CLASSES)].name
    folder.mkdir(parents=True, exist_ok=True)
    image = render_probe_image(job.preset, job.seed, job.split, job.index)
    write_jpeg(folder / f'{job.index:05d}.jpg', image)


def _finish_videos(folder: Path, results: dict[str, list[Any]]) -> None:
    # Imported here: that package decodes videos, which the other parts have no need of.
    from ..videos.manifest import write_manifest

    write_manifest(folder / 'manifest.jsonl', results['train'])


@dataclass(frozen=True)
class Part:
    """How a part is made.

    Attributes:
        write_item: Writes an item; what it returns is handed to ``finish``.
        finish: Writes what covers all items, from the folder and the results of each split.
    """

    write_item: Callable[[Job], Any]
    finish: Callable[[Path, dict[str, list[Any]]], None] | None = None


PARTS = {
    'videos': Part(_write_video, _finish_videos),
    'ade20k': Part(_write_ade20k),
    'voc': Part(_write_voc, write_voc_lists),
    'coco': Part(
        _write_detection, lambda folder, results: write_annotation_files(folder, 'coco', results)
    ),
    'lvis': Part(
        _write_detection, lambda folder, results: write_annotation_files(folder, 'lvis', results)
    ),
    'probe': Part(_write_probe),
}


def list_jobs(task: str, folder: Path, preset: Preset, seed: int, counts: Counts) -> Iterator[Job]:
    """List the items of a part, split by split.

    Args:
        task: Key of ``PARTS``.
        folder: Folder of the part.
        preset: Sizes and ranges.
        seed: Seed of the world.
        counts: Numbers of items.

    Yields:
        Job: The items in order.
    """
    for split, count in counts.splits(task).items():
        for index in range(count):
            yield Job(task, folder, preset, seed, split, index)


def write_item(job: Job) -> Any:
    """Write one item. At module level, so that a worker process can find it.

    Args:
        job: The item.

    Returns:
        Any: What ``finish`` of the part wants to know of it.
    """
    return PARTS[job.task].write_item(job)


def finish_part(task: str, folder: Path, jobs: Iterable[Job], results: Iterable[Any]) -> None:
    """Write what covers all items of a part: lists, annotation files, the manifest.

    Args:
        task: Key of ``PARTS``.
        folder: Folder of the part.
        jobs: All its items.
        results: What ``write_item`` gave for each.
    """
    by_split: dict[str, list[Any]] = {}
    for job, result in zip(jobs, results, strict=True):
        by_split.setdefault(job.split, []).append(result)
    finish = PARTS[task].finish
    if finish is not None:
        finish(folder, by_split)
