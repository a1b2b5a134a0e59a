"""Report on in-context segmentation: scores of networks and pictures of their predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from PIL import Image

from vito_mm.utils.report import (
    Block,
    Heading,
    Paragraph,
    Picture,
    Table,
    to_csv,
    write_document,
)

from .incontext import PUBLISHED, VOID, InContext, LabelledSquares, shown_files, summary
from .label_images import draw_labels, sheet, shrunk


def write_report(
    folder: Path,
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    val: Mapping[str, Any],
    settings: InContext,
    predictions: Mapping[str, Path],
) -> Path:
    """Write scores, per class as well, and pictures of predictions.

    Args:
        folder (Path): Gets ``incontext.html``, ``incontext.md`` and ``incontext.csv``, which has a
            row per seed.
        results (Mapping): Results of all seeds by network.
        val (Mapping): Validation set of a config of mmseg.
        settings (InContext): Settings of all networks.
        predictions (Mapping[str, Path]): Folder of the predictions of each network.

    Returns:
        Path: The page.
    """
    dataset = LabelledSquares(val, settings)
    steps = ('memory', 'segmentation')
    rows = []
    for label, found in results.items():
        scores = [f'{value:.1f}' for value in summary(found).values()]
        patches = [f'{count:,}' for count in found[0]['patches']]
        spent = [f'{mean(each["seconds"][step] for each in found):.0f}' for step in steps]
        rows.append([label, *scores, *patches, *spent])
    names = list(summary(next(iter(results.values()))))
    counted = 'patches in memory', 'patches of an image'
    seeds = len(next(iter(results.values())))
    passes = f'augmented passes: {settings.epochs}' if settings.epochs else 'not augmented'
    blocks: list[Block] = [
        Paragraph(
            f'Each patch takes the labels of the {settings.neighbours} most similar training '
            f'patches, without training: {len(dataset)} validation images of {settings.size} x '
            f'{settings.size} pixels, a memory of at most {settings.memory:,} training '
            f'patches ({passes}). Percent; seeds: {seeds}. Seconds are of one seed.'
        ),
        Table(['network', *names, *counted, *(f'{step}, s' for step in steps)], rows),
        Heading('Published, on PASCAL VOC'),
        Paragraph(
            'A reference for PASCAL VOC at full size alone. The code that they come from counts '
            'pixels without a label, which do not count here.'
        ),
        Table(['network', 'mIoU'], [[name, f'{iou:.1f}'] for name, iou in PUBLISHED.items()]),
        Heading('Classes'),
    ]
    lines = []
    for name in dataset.classes:
        ious = [[one['IoU'][name] for one in found] for found in results.values()]
        known = [[iou for iou in each if iou is not None] for each in ious]
        lines.append([name, *(f'{mean(each):.1f}' if each else '-' for each in known)])
    blocks.append(Table(['class', *(f'IoU of {label}' for label in results)], lines))
    order = 'Validation images; from above: image, ground truth'
    caption = order + ''.join(f', {label}' for label in predictions)
    blocks += [Heading('Predictions'), Picture(draw_predictions(dataset, predictions), caption)]
    table = [['network', 'seed', 'mIoU', *(f'{step} s' for step in steps), *dataset.classes]]
    for label, found in results.items():
        for seed, one in enumerate(found, settings.seed):
            spent = [one['seconds'][step] for step in steps]
            table.append([label, seed, one['mIoU'], *spent, *one['IoU'].values()])
    others = {'incontext.csv': to_csv(table)}
    return write_document(folder, 'In-context segmentation', blocks, 'incontext', others)


def draw_predictions(dataset: LabelledSquares, predictions: Mapping[str, Path]) -> bytes:
    """Draw validation images, below their ground truth, and below the predictions of each network.

    Args:
        dataset (LabelledSquares): Validation set.
        predictions (Mapping[str, Path]): Folder of the predictions of each network.

    Returns:
        bytes: Content of a PNG file.
    """
    columns = []
    for number in shown_files(Path(), len(dataset)):
        image, truth = (part.numpy() for part in dataset[number])
        found = [shown_files(place, len(dataset))[number] for place in predictions.values()]
        labels = [truth, *(np.array(Image.open(file)) for file in found)]
        drawn = [draw_labels(image, each, dataset.palette, VOID) for each in labels]
        columns.append([shrunk(each) for each in (image, *drawn)])
    return sheet(list(zip(*columns, strict=True)))
