"""Accuracy of a classifier on images that are unlike those it was trained on.

ImageNet-A (https://arxiv.org/abs/1907.07174), ImageNet-C (https://arxiv.org/abs/1903.12261),
ImageNet-3DCC (https://arxiv.org/abs/2203.01441) and ImageNet-Vid-Robust
(https://arxiv.org/abs/1906.02168), of any data set with a classifier's classes.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vito_mm.utils.hashing import priority_of
from vito_mm.utils.text import first_few
from vito_mm.videos.frames import View

from .frames import ImageFiles, collect
from .image_folders import ProbeError, images_by_class
from .linear_classifier import top_accuracy

ALEXNET_ERRORS = {
    'gaussian_noise': 0.886428,
    'shot_noise': 0.894468,
    'impulse_noise': 0.922640,
    'defocus_blur': 0.819880,
    'glass_blur': 0.826268,
    'motion_blur': 0.785948,
    'zoom_blur': 0.798360,
    'snow': 0.866816,
    'frost': 0.826572,
    'fog': 0.819324,
    'brightness': 0.564592,
    'contrast': 0.853204,
    'elastic_transform': 0.646056,
    'pixelate': 0.717840,
    'jpeg_compression': 0.606500,
}
"""Errors of AlexNet on the corruptions of ImageNet-C, mean over the severities, as its authors
publish them (https://github.com/hendrycks/robustness)."""

SEVERITIES = (1, 2, 3, 4, 5)

Predict = Callable[[Tensor], Tensor]
"""Scores of the classes, (N, K), of RGB images, uint8, shape (N, H, W, 3)."""

Part = tuple[Path, Callable[[Path, np.ndarray], np.ndarray] | None]
"""Folder of images by class, and what changes the image of a file, RGB, after the view."""


@dataclass(frozen=True)
class Classifier:
    """A network with a classifier.

    Attributes:
        predict (Predict): Scores of the classes.
        classes (tuple[str, ...]): Name of each class: of its folder in a data set.
        view (View): Part of an image that the network gets.
        batch_size (int): Images at a time. Defaults to 100.
        workers (int): Processes that read. Defaults to 0, this one.
    """

    predict: Predict
    classes: tuple[str, ...]
    view: View
    batch_size: int = 100
    workers: int = 0

    def scores(self, files: Sequence[Path], change: Callable | None = None) -> Tensor:
        """Score the classes of images, float32, shape (N, K).

        Args:
            files (Sequence[Path]): The images.
            change (Callable, optional): Takes a file and its image after the view, RGB, uint8, and
                returns another in its place. Defaults to None.

        Raises:
            ProbeError: If an image cannot be read.
        """
        images = _Changed(files, self.view, change)
        found = collect(
            images, lambda _, x: self.predict(x[:, 0]).float().cpu(), self.batch_size, self.workers
        )
        if found.skipped:
            first = found.skipped[0]
            raise ProbeError(f'{first.path}: {first.reason}. Repair or remove the file')
        return found.features


class _Changed(ImageFiles):
    """Image files, changed after the view."""

    def __init__(self, files: Sequence[Path], view: View, change: Callable | None) -> None:
        super().__init__(files, view.crop)
        self.view, self.change = replace(view, bicubic=True), change

    def read(self, index: int) -> np.ndarray:
        frames = super().read(index)
        return frames if self.change is None else self.change(self.files[index], frames[0])[None]


def labelled_files(folder: str | os.PathLike, classes: Sequence[str]) -> tuple[list[Path], Tensor]:
    """List the images of ``<class>/`` folders with the index of each class in a classifier's.

    Raises:
        ProbeError: If there is no image, or a folder is named after none of the classes.
    """
    by_class = images_by_class(Path(folder))
    numbers = {name: number for number, name in enumerate(classes)}
    if unknown := [name for name in by_class if name not in numbers]:
        raise ProbeError(
            f'{folder} has folders that are no class of the classifier: {first_few(unknown)}. Its '
            f'{len(numbers)} classes are named {first_few(list(numbers), 3)}'
        )
    files = [file for images in by_class.values() for file in images]
    labels = [numbers[name] for name, images in by_class.items() for _ in images]
    return files, torch.tensor(labels)


def adversarial_accuracy(classifier: Classifier, folder: str | os.PathLike) -> float:
    """Top-1, in percent, among the classes that a data set has, as ImageNet-A's 200."""
    files, labels = labelled_files(folder, classifier.classes)
    scores, among = classifier.scores(files), labels.unique()
    kept = torch.full_like(scores, -torch.inf)
    kept[:, among] = scores[:, among]
    return top_accuracy(kept, labels, 1)


def corruption_accuracies(
    classifier: Classifier,
    parts: Mapping[str, Part],
    done: Mapping[str, float] | None = None,
    save: Callable[[str, float], None] = lambda name, value: None,
) -> dict[str, float]:
    """Compute the top-1 of each corruption and severity.

    Args:
        classifier (Classifier): The classifier.
        parts (Mapping[str, Part]): Those of :func:`corruption_folders` or
            :func:`made_corruptions`.
        done (Mapping[str, float], optional): Accuracies that are known. Defaults to None.
        save (Callable): Gets each further one as soon as it is there.

    Returns:
        dict[str, float]: Percent, by the names of the parts.

    Raises:
        ProbeError: If there are other classes than the classifier's, or images are missing.
    """
    # Corruptions that are made are all of one folder: it is listed once.
    listed = lru_cache(maxsize=1)(partial(labelled_files, classes=classifier.classes))
    found = {}
    for name, (folder, change) in parts.items():
        found[name] = (done or {}).get(name)
        if found[name] is None:
            files, labels = listed(folder)
            found[name] = top_accuracy(classifier.scores(files, change), labels, 1)
            save(name, found[name])
    return found


def corruption_folders(folder: Path) -> dict[str, Part]:
    """List the corruptions of a data set laid out as ImageNet-C.

    Args:
        folder (Path): Folder with ``<corruption>/<severity>/<class>/`` images; groups of
            corruptions may be folders around them, as ImageNet-C comes.

    Returns:
        dict[str, Part]: By ``'<corruption>/<severity>'``.

    Raises:
        ProbeError: If there is no corruption, or severities are missing.
    """
    if not folder.is_dir():
        raise ProbeError(f'there is no folder {folder}')
    parts = {
        f'{corruption.name}/{severity}': (corruption / str(severity), None)
        for path in sorted(folder.iterdir())
        if path.is_dir()
        # A group of corruptions, or one itself, whose classes may have numbers too.
        for corruption in ([path] if _has_severities(path) else sorted(path.iterdir()))
        if _has_severities(corruption)
        for severity in SEVERITIES
    }
    if not parts:
        raise ProbeError(
            f'{folder} has no folders CORRUPTION/SEVERITY/CLASS, such as gaussian_noise/1'
        )
    if missing := [str(part) for part, _ in parts.values() if not part.is_dir()]:
        raise ProbeError(f'there is no {first_few(missing, 3)}: severities are 1 to 5')
    return parts


def _has_severities(folder: Path) -> bool:
    return any((folder / str(severity)).is_dir() for severity in SEVERITIES)


def made_corruptions(folder: Path, seed: int = 0) -> dict[str, Part]:
    """Corrupt the images of a data set as ImageNet-C does, by the package corrupt-tta.

    Its noise is drawn again, from a seed that follows from the image's name, and images are not
    compressed once more: accuracies are near those of ImageNet-C's files and not the same.

    Args:
        folder (Path): Folder with ``<class>/`` images.
        seed (int): Of the noise. Defaults to 0.

    Returns:
        dict[str, Part]: By ``'<corruption>/<severity>'``.

    Raises:
        ImportError: If corrupt-tta is not installed.
    """
    corrupt = load_corrupt()

    def changed(name: str, file: Path, image: np.ndarray) -> np.ndarray:
        corruption, _, severity = name.partition('/')
        state = np.random.get_state()  # the package draws from numpy's global generator
        np.random.seed(priority_of(f'{file.parent.name}/{file.name}/{name}', seed) % 2**32)
        try:
            return np.uint8(corrupt(image, int(severity), corruption).clip(0, 255))
        finally:
            np.random.set_state(state)

    names = [f'{name}/{severity}' for name in ALEXNET_ERRORS for severity in SEVERITIES]
    return {name: (folder, partial(changed, name)) for name in names}


def load_corrupt() -> Callable[[np.ndarray, int, str], np.ndarray]:
    """Import the function of corrupt-tta that corrupts an image by a severity and a name.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        from corrupt_tta import corrupt
    except ImportError:
        raise ImportError(
            'Corrupting images needs corrupt-tta. Run: pip install "vito_mm[robustness]"'
        ) from None
    return corrupt


def corruption_summary(accuracies: Mapping[str, float]) -> dict[str, float]:
    """Summarise accuracies by corruption and severity, all in percent.

    Returns:
        dict[str, float]: ``error``, the mean over all, and ``mCE``, where each corruption's error
        is divided by AlexNet's before the mean is taken, if all of ImageNet-C's are there.
    """
    errors: dict[str, list[float]] = {}
    for name, accuracy in accuracies.items():
        errors.setdefault(name.partition('/')[0], []).append(100 - accuracy)
    means = {name: float(np.mean(values)) for name, values in errors.items()}
    summary = {'error': float(np.mean(list(means.values())))}
    if means.keys() >= ALEXNET_ERRORS.keys():
        shares = [means[name] / value for name, value in ALEXNET_ERRORS.items()]
        summary['mCE'] = float(np.mean(shares))
    return summary


@dataclass(frozen=True)
class Anchors:
    """ImageNet-Vid-Robust: frames around each anchor, labels of frames, classes of labels."""

    neighbours: dict[str, list[str]]
    labels: dict[str, list[int]]
    members: list[list[int]]
    files: dict[str, Path]


def read_anchors(folder: Path, classes: Sequence[str]) -> Anchors:
    """Read the metadata of ImageNet-Vid-Robust, see :func:`video_robustness`.

    Class indices count the classes in the order of their names, as ImageNet's do.

    Raises:
        ProbeError: If a file is missing, or there are other classes than the classifier's.
    """
    neighbours, labels, members = (
        _read_json(folder / 'metadata' / f'{name}.json')
        for name in ('pmsets', 'labels', 'rev_class_idx_map')
    )
    largest = max(max(indices) for indices in members.values())
    if largest >= len(classes):
        raise ProbeError(
            f'{folder} has the class index {largest}, and the classifier {len(classes)} '
            'classes: name a classifier of its data set'
        )
    places = {name: place for place, name in enumerate(classes)}
    names = sorted(classes)
    grouped = [[places[names[i]] for i in members[str(label)]] for label in range(len(members))]
    frames = dict.fromkeys(n for anchor, around in neighbours.items() for n in (anchor, *around))
    files = {name: folder / name for name in frames}
    if missing := [str(file) for file in files.values() if not file.is_file()]:
        raise ProbeError(f'{len(missing)} of {len(files)} frames are missing: {first_few(missing)}')
    return Anchors(neighbours, labels, grouped, files)


def video_robustness(classifier: Classifier, folder: str | os.PathLike) -> dict[str, float]:
    """Compute the accuracy on frames of videos and on their neighbours in time.

    Args:
        classifier (Classifier): The classifier.
        folder: Folder of ImageNet-Vid-Robust: frames, and in ``metadata`` ``pmsets.json`` (the
            frames around each anchor frame), ``labels.json`` (the labels of each frame) and
            ``rev_class_idx_map.json`` (the classes, by index, of each label).

    Returns:
        dict[str, float]: ``pm-0``, the share of anchors that are right, and ``pm-10``, that of
        anchors for which all frames around are right as well, in percent. A label's score is the
        largest of its classes'.

    Raises:
        ProbeError: If a file is missing, or there are other classes than the classifier's.
    """
    data = read_anchors(Path(folder), classifier.classes)
    scores = classifier.scores(list(data.files.values()))
    grouped = torch.stack([scores[:, places].amax(dim=1) for places in data.members], dim=1)
    found = dict(zip(data.files, grouped.argmax(dim=1).tolist(), strict=True))
    right = {name: label in data.labels[name] for name, label in found.items()}
    pairs = data.neighbours.items()
    anchors = [right[anchor] for anchor in data.neighbours]
    steady = [right[anchor] and all(right[n] for n in around) for anchor, around in pairs]
    return {'pm-0': 100 * float(np.mean(anchors)), 'pm-10': 100 * float(np.mean(steady))}


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ProbeError(f'there is no {file}: name the folder of ImageNet-Vid-Robust')
    return json.loads(file.read_text())
