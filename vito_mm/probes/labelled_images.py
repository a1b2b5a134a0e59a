"""Labelled images for a classification probe, from a folder or from videos."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vito_mm.datasets import VideoDataset
from vito_mm.probes.image_folders import ProbeError, train_and_val
from vito_mm.utils.hashing import priority_of
from vito_mm.videos import VideoReadError
from vito_mm.videos.tables import ENDINGS

from .frames import ImageFiles, VideoFrames

VAL_SHARE = 0.2
"""Share of the videos of a class that are classified; the others are for training."""


@dataclass(frozen=True)
class LabelledFrames:
    """Images to learn from and to classify, with the index of the class of each, int64.

    The data sets are :class:`.frames.ImageFiles` or :class:`.frames.VideoFrames`.
    """

    train: Dataset
    train_labels: Tensor
    val: Dataset
    val_labels: Tensor
    classes: tuple[str, ...]


def labelled_frames(
    data: str | os.PathLike, image_size: int, max_images: int | None = None, seed: int = 0
) -> LabelledFrames:
    """List labelled images.

    Args:
        data: Folder with ``train/<class>/`` and ``val/<class>/`` images; or a manifest
            (see :func:`vito_mm.videos.read_manifest`) whose rows have ``label``, of each of which
            the frame in the middle counts. A fifth of the videos of each class, at least one where
            there are two, are ``val``; rows of one file are on the same side. Which ones follows
            from file names and seed.
        image_size (int): Side of the images in pixels.
        max_images (int, optional): Images of each part at most, drawn at random. Defaults to None,
            all.
        seed (int): Seed of the choices. Defaults to 0.

    Raises:
        ProbeError: If there are no such data, or fewer than two classes.
    """
    data = os.fspath(data)
    if data.lower().endswith(ENDINGS):
        return _of_videos(data, image_size, max_images, seed)
    parts = []
    for by_class in train_and_val(data):
        images = [(file, n) for n, files in enumerate(by_class.values()) for file in files]
        chosen = [images[i] for i in _at_most(max_images, len(images), seed)]
        files, labels = zip(*chosen, strict=True)
        parts += ImageFiles(files, image_size), torch.tensor(labels)
    return LabelledFrames(*parts, tuple(by_class))


def _of_videos(manifest: str, image_size: int, max_images: int | None, seed: int) -> LabelledFrames:
    try:
        table = VideoDataset(ann_file=manifest)
    except (OSError, ValueError) as error:
        raise ProbeError(str(error)) from None
    rows = []
    for index in range(len(table)):
        try:
            row = table.get_data_info(index)
        except VideoReadError as error:
            raise ProbeError(f'{error.path}: {error.reason}. Repair or remove the row') from None
        label = row.get('gt_label', row.get('label'))
        if label is not None and label == label:  # NaN is none
            rows.append(row | dict(gt_label=str(label)))
    classes = sorted({row['gt_label'] for row in rows})
    numbers = {name: number for number, name in enumerate(classes)}
    if len(classes) < 2:
        raise ProbeError(
            f'the rows of {manifest} have {len(classes)} different values of "label": a probe '
            'needs two at least. Add the column "label", or give a folder with train/<class>/*.jpg '
            'and val/<class>/*.jpg'
        )
    val_videos = _val_videos(rows, seed)
    parts = []
    for is_val in (False, True):
        part = [row for row in rows if (row['video_path'] in val_videos) == is_val]
        if not part:
            raise ProbeError(
                f'no class of {manifest} has two videos, one to learn from and one to classify'
            )
        part = [part[i] for i in _at_most(max_images, len(part), seed)]
        labels = torch.tensor([numbers[row['gt_label']] for row in part])
        parts += VideoFrames(part, [0.0], [0.5] * len(part), image_size), labels
    return LabelledFrames(*parts, tuple(classes))


def _val_videos(rows: Sequence[dict[str, Any]], seed: int) -> set[str]:
    """Videos that are classified, a share of each class."""
    labels: dict[str, str] = {}
    for row in rows:
        labels.setdefault(row['video_path'], row['gt_label'])
    members = defaultdict(list)
    for path, label in labels.items():
        members[label].append(path)
    chosen: set[str] = set()
    for paths in members.values():
        count = min(max(1, round(VAL_SHARE * len(paths))), len(paths) - 1)
        chosen.update(sorted(paths, key=lambda path: (priority_of(path, seed), path))[:count])
    return chosen


def _at_most(count: int | None, size: int, seed: int) -> list[int]:
    """Indices of all of so many, or of some of them, ascending."""
    if count is None or size <= count:
        return list(range(size))
    return sorted(np.random.default_rng(seed).permutation(size)[:count].tolist())
