"""All tests of a classifier's robustness: their data, their results and the report on them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vito_mm.utils.progress import Progress
from vito_mm.utils.report import Block, Heading, Paragraph, Table, to_csv, write_document
from vito_mm.utils.text import first_few

from .image_folders import ProbeError
from .linear_classifier import top_accuracy
from .record import Record
from .robustness import (
    ALEXNET_ERRORS,
    Classifier,
    adversarial_accuracy,
    corruption_accuracies,
    corruption_folders,
    corruption_summary,
    labelled_files,
    load_corrupt,
    made_corruptions,
    read_anchors,
    video_robustness,
)

TESTS = {
    'val': 'clean images',
    'imagenet-a': 'ImageNet-A',
    'vid-robust': 'ImageNet-Vid-Robust',
    'imagenet-c': 'ImageNet-C',
    'corrupt': 'corrupted',
    '3dcc': 'ImageNet-3DCC',
}
"""Tests by their names in results, and as reports call them."""

_OF_CORRUPTIONS = ('imagenet-c', 'corrupt', '3dcc')


def check_data(data: Mapping[str, Path], classes: Sequence[str]) -> None:
    """Look for the data of all tests before the first one runs.

    Args:
        data (Mapping[str, Path]): Folder of each test, by the keys of :data:`TESTS`.
        classes (Sequence[str]): Names of a classifier's classes.

    Raises:
        ProbeError: If something is missing, with all that is.
        ImportError: If corrupt-tta is needed and not installed.
    """
    problems = []
    for test, folder in data.items():
        try:
            if test in ('imagenet-c', '3dcc'):
                for part, _ in corruption_folders(folder).values():
                    _require_classes(part, classes)
            elif test == 'vid-robust':
                read_anchors(folder, classes)
            else:
                labelled_files(folder, classes)
        except ProbeError as error:
            problems.append(f'{TESTS[test]}: {error}')
        if test == 'corrupt':
            load_corrupt()
    if problems:
        raise ProbeError('\n'.join(problems))


def _require_classes(folder: Path, classes: Sequence[str]) -> None:
    """Check the names of class folders alone: there may be millions of images."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not names:
        raise ProbeError(f'{folder} has no sub-folders: put the images of each class into its own')
    if unknown := sorted(set(names) - set(classes)):
        raise ProbeError(f'{folder} has folders that are no class: {first_few(unknown)}')
    if empty := [name for name in names if not any(os.scandir(folder / name))]:
        raise ProbeError(f'{folder} has classes without an image: {first_few(empty)}')


def evaluate(
    classifier: Classifier,
    data: Mapping[str, Path],
    records: Mapping[str, Record],
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Run tests, as far as their records do not have the results yet.

    Args:
        classifier (Classifier): The classifier.
        data (Mapping[str, Path]): See :func:`check_data`.
        records (Mapping[str, Record]): Record of each test.
        seed (int): Of the corruptions that are made. Defaults to 0.

    Returns:
        dict: Percent, by test and ``'top-1'``, ``'pm-0'``, ``'pm-10'`` or
        ``'<corruption>/<severity>'``.
    """
    parts = {
        test: made_corruptions(data[test], seed)
        if test == 'corrupt'
        else corruption_folders(data[test])
        for test in _OF_CORRUPTIONS
        if test in data
    }
    size = sum(len(parts.get(test, [test])) for test in data)
    found = {}
    with Progress(size, 'robustness', None, 'tests') as bar:
        for test, folder in data.items():
            kept = records[test]

            def save(name: str, result: Any, kept: Record = kept) -> None:
                kept.put(name, result)
                bar.advance()

            bar.advance(len(kept.parts), skipped=True)
            if test in parts:
                found[test] = corruption_accuracies(classifier, parts[test], kept.parts, save)
            else:
                if 'scores' not in kept.parts:
                    save('scores', _scores(test, classifier, folder))
                found[test] = kept.parts['scores']
    return found


def _scores(test: str, classifier: Classifier, folder: Path) -> dict[str, float]:
    if test == 'vid-robust':
        return video_robustness(classifier, folder)
    if test == 'imagenet-a':
        return {'top-1': adversarial_accuracy(classifier, folder)}
    files, labels = labelled_files(folder, classifier.classes)
    return {'top-1': top_accuracy(classifier.scores(files), labels, 1)}


def summary(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Sum up what :func:`evaluate` returned: a number or two per test."""
    numbers: dict[str, float] = {}
    for test, scores in found.items():
        title = TESTS[test]
        if test in _OF_CORRUPTIONS:
            numbers |= {f'{title} {k}': v for k, v in corruption_summary(scores).items()}
        elif test == 'vid-robust':
            numbers |= scores
        else:
            numbers['top-1' if test == 'val' else title] = scores['top-1']
    return numbers


def write_report(
    folder: Path, results: Mapping[str, Mapping[str, Mapping[str, float]]], heads: Mapping[str, str]
) -> Path:
    """Write the scores of classifiers, with those of each corruption.

    Args:
        folder (Path): Gets ``robustness.html``, ``robustness.md``, and ``robustness.csv`` with a
            row per number.
        results (Mapping): What :func:`evaluate` returned, by network.
        heads (Mapping[str, str]): What classifies, by network.

    Returns:
        Path: The page.
    """
    summaries = {label: summary(found) for label, found in results.items()}
    names = list(dict.fromkeys(name for numbers in summaries.values() for name in numbers))
    rows = [
        [label, heads[label], *(f'{v[n]:.1f}' if n in v else '-' for n in names)]
        for label, v in summaries.items()
    ]
    is_made = any('corrupt' in found for found in results.values())
    made = 'Corruptions were made here, not read from ImageNet-C.' if is_made else ''
    blocks: list[Block] = [
        Paragraph(
            'Classification of images that are unlike those of the training, in percent. Top-1 is '
            'better when it is higher; of ImageNet-A it is among its own classes. pm-0 is the '
            'accuracy on single frames of videos, pm-10 counts a frame only if all frames around '
            'it are right. Errors are means over corruptions and severities, and mCE is the mean '
            "of errors divided by AlexNet's: lower is better. " + made
        ),
        Table(['network', 'classifier', *names], rows, text=(0, 1)),
    ]
    for test in _OF_CORRUPTIONS:
        tested = {label: found[test] for label, found in results.items() if test in found}
        if tested:
            blocks += [Heading(f'{TESTS[test]}: error by corruption'), _by_corruption(tested, test)]
    lines = [
        [label, test, part, value]
        for label, found in results.items()
        for test, scores in found.items()
        for part, value in scores.items()
    ]
    table = to_csv([['network', 'test', 'part', 'percent'], *lines])
    files = {'robustness.csv': table}
    return write_document(folder, 'Robustness', blocks, 'robustness', files)


def _by_corruption(tested: Mapping[str, Mapping[str, float]], test: str) -> Table:
    """Mean errors over severities, next to AlexNet's as its authors publish them."""
    published = {} if test == '3dcc' else ALEXNET_ERRORS
    errors: dict[str, dict[str, float]] = {}
    for label, scores in tested.items():
        for name in dict.fromkeys(part.partition('/')[0] for part in scores):
            values = [100 - v for part, v in scores.items() if part.partition('/')[0] == name]
            errors.setdefault(name, {})[label] = float(np.mean(values))
    rows = []
    for name, by_label in errors.items():
        row = [name, *(f'{by_label[label]:.1f}' for label in tested)]
        if published:
            row.append(f'{100 * published[name]:.1f}' if name in published else '-')
        rows.append(row)
    sums = [corruption_summary(scores) for scores in tested.values()]
    of_alexnet = {'error': 100 * float(np.mean(list(ALEXNET_ERRORS.values()))), 'mCE': 100.0}
    for name in dict.fromkeys(name for numbers in sums for name in numbers):
        shown = [*sums, of_alexnet] if published else sums
        title = 'mean' if name == 'error' else name
        rows.append([title, *(f'{each[name]:.1f}' if name in each else '-' for each in shown)])
    return Table(['corruption', *tested, *(['AlexNet, published'] * bool(published))], rows)
