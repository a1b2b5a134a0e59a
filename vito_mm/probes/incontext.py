"""In-context segmentation: each patch takes the labels of the most similar training patches.

`Towards in-context scene understanding <https://arxiv.org/abs/2306.01667>`_, section 3: a memory of
features and labels of training patches, exact nearest neighbours, no training.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as transforms

from vito_mm.checkpoint.config_parts import parts_of, type_name
from vito_mm.utils.progress import Progress
from vito_mm.utils.quiet import quiet_logger

from .encoder import Encoder
from .image_folders import ProbeError
from .label_images import write_label_image
from .neighbours import nearest
from .record import Record

VOID = 255
"""Label of pixels that do not count."""

PUBLISHED = {'DINO ViT-S/16': 46.6, 'DINO ViT-B/16': 55.7, 'DINOv2 ViT-S/14': 77.0}
"""mIoU on PASCAL VOC, https://github.com/vpariza/open-hummingbird-eval."""

_PICTURES = 6  # validation images in a report
_SCALE, _RATIO = (0.5, 2.0), (3 / 4, 4 / 3)  # of the crops of augmented images
_JITTER = ('brightness', 'contrast', 'saturation', 'hue')


@dataclass(frozen=True)
class InContext:
    """Settings of in-context segmentation.

    Attributes:
        size (int): Side of the images in pixels; they and their labels are squeezed to squares.
        neighbours (int): Number of memory patches that a patch takes its labels from.
        temperature (float): Of the softmax over their cosines.
        memory (int): Largest number of patches in the memory. Each image gets an equal share, in
            which patches with rare classes come first.
        epochs (int): Number of times that the training images are looked at, each time cropped and
            jittered anew; 0 takes them once as they are.
        seed (int): Of crops, jitter and sampling.
    """

    size: int = 512
    neighbours: int = 30
    temperature: float = 0.02
    memory: int = 10_240_000
    epochs: int = 1
    seed: int = 0


class LabelledSquares(Dataset):
    """Images of a data set of mmseg, squeezed to squares, with the label of each pixel.

    Args:
        config (Mapping): A data set of mmseg, of which the loading transforms are kept.
        settings (InContext): Size and seed.
        epoch (int, optional): Number of the augmentation. Defaults to None: none.
    """

    def __init__(
        self, config: Mapping[str, Any], settings: InContext, epoch: int | None = None
    ) -> None:
        self.settings, self.epoch = settings, epoch
        config = Config(dict(dataset=config)).dataset
        for _, part in parts_of(config, ''):
            if 'pipeline' in part:
                part['pipeline'] = [
                    step for step in part['pipeline'] if type_name(step).startswith('Load')
                ]
        with DefaultScope.overwrite_default_scope('mmseg'), quiet_logger():
            self.dataset = DATASETS.build(config)
        self.classes = self.dataset.metainfo['classes']
        colours = np.uint8(self.dataset.metainfo['palette'])
        self.palette = np.zeros((256, 3), np.uint8)
        self.palette[: len(colours)] = colours

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return an RGB image, uint8, shape (size, size, 3), and its labels, uint8."""
        sample = self.dataset[index]
        image, labels = sample['img'][..., ::-1], sample['gt_seg_map'].astype(np.uint8)
        jitter = {}
        if self.epoch is not None:
            with torch.random.fork_rng(devices=[]):
                words = np.random.SeedSequence((self.settings.seed, self.epoch, index))
                # Not torch.manual_seed, which would seed the GPUs as well.
                torch.default_generator.manual_seed(int(words.generate_state(1)[0]))
                shaped = torch.from_numpy(labels)[None]
                top, left, height, width = RandomResizedCrop.get_params(shaped, _SCALE, _RATIO)
                chosen = torch.rand(len(_JITTER)) < 0.5
                amounts = torch.empty(len(_JITTER)).uniform_(-0.1, 0.1)
            place = np.s_[top : top + height, left : left + width]
            image, labels = image[place], labels[place]
            pairs = zip(_JITTER, amounts.tolist(), chosen.tolist(), strict=True)
            jitter = {name: amount for name, amount, is_on in pairs if is_on}
        side = (self.settings.size, self.settings.size)
        smaller = max(image.shape[:2]) > self.settings.size
        way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        image = torch.from_numpy(cv2.resize(np.ascontiguousarray(image), side, interpolation=way))
        labels = cv2.resize(labels, side, interpolation=cv2.INTER_NEAREST_EXACT)
        for name, amount in jitter.items():
            change = amount if name == 'hue' else 1 + amount
            image = getattr(transforms, f'adjust_{name}')(image.permute(2, 0, 1), change)
            image = image.permute(1, 2, 0)
        return image, torch.from_numpy(labels)


@dataclass(frozen=True)
class Memory:
    """Features (M, C), unit vectors in half precision, and labels (M, K), shares of each class."""

    features: Tensor
    labels: Tensor


def patch_labels(labels: Tensor, grid: tuple[int, int], num_classes: int) -> Tensor:
    """Count the pixels of each class in the cells of a grid.

    Args:
        labels (Tensor): Label images, uint8, shape (N, H, W); ``VOID`` and labels that are no class
            do not count.
        grid (tuple[int, int]): Rows and columns.
        num_classes (int): K.

    Returns:
        Tensor: Shape (N, rows * columns, K).
    """
    count, (rows, columns) = len(labels), grid
    height, width = labels.shape[1:]
    across = torch.arange(width) * columns // width
    cell = (torch.arange(height) * rows // height)[:, None] * columns + across
    cell = cell + (torch.arange(count) * rows * columns)[:, None, None]
    labels = labels.long()
    valid = labels < num_classes
    codes = (cell * num_classes + labels)[valid]
    bins = torch.bincount(codes, minlength=count * rows * columns * num_classes)
    return bins.view(count, rows * columns, num_classes)


def choose_patches(counts: Tensor, share: int, generator: torch.Generator) -> Tensor:
    """Choose patches of an image, rather such of classes that few of its patches show.

    A patch's score is the number of patches that show any of its classes, summed over these, times
    a uniform random number; the lowest scores are chosen. Patches without a label never are.

    Args:
        counts (Tensor): Pixels of each class in the patches, shape (P, K).
        share (int): Number of patches wanted.
        generator (torch.Generator): Source of the random numbers, on the CPU.

    Returns:
        Tensor: Indices, at most ``share``.
    """
    shown = counts > 0
    score = shown.double() @ shown.sum(dim=0).double()
    score = score * torch.rand(len(score), generator=generator, dtype=torch.double)
    score[~shown.any(dim=1)] = torch.inf
    order = score.argsort()[:share]
    return order[score[order].isfinite()]


def build_memory(
    encoder: Encoder,
    config: Mapping[str, Any],
    settings: InContext,
    layer: str | int = 'last',
    batch_size: int = 16,
    workers: int = 2,
) -> Memory:
    """Compute features and labels of the patches of a training set.

    Args:
        encoder (Encoder): Network whose features are compared.
        config (Mapping): Training set of a config of mmseg.
        settings (InContext): See there.
        layer (str | int): Layer of the encoder. Defaults to 'last'.
        batch_size (int): Images at a time. Defaults to 16.
        workers (int): Processes that read. Defaults to 2.

    Raises:
        ProbeError: If the memory does not fit into that of the machine.
    """
    epochs = range(settings.epochs) if settings.epochs else (None,)
    generator = torch.Generator().manual_seed(settings.seed)
    memory: Memory | None = None
    filled = 0
    for epoch in epochs:
        dataset = LabelledSquares(config, settings, epoch)
        if not len(dataset):
            raise ProbeError('the training set of the config is empty')
        share = max(1, settings.memory // (len(dataset) * len(epochs)))
        for maps, labels in _batches(encoder, dataset, layer, batch_size, workers, 'memory'):
            counts = patch_labels(labels, tuple(maps.shape[2:]), len(dataset.classes))
            patches = F.normalize(maps.flatten(2).transpose(1, 2), dim=2)
            if memory is None:
                rows = min(share, patches.shape[1]) * len(dataset) * len(epochs)
                memory = _empty_memory(rows, patches.shape[2], counts.shape[2], encoder.device)
            for features, shown in zip(patches, counts, strict=True):
                chosen = choose_patches(shown, share, generator)
                rows = slice(filled, filled + len(chosen))
                memory.features[rows] = features[chosen.to(features.device)].half()
                part = shown[chosen].float()
                memory.labels[rows] = (part / part.sum(dim=1, keepdim=True)).half()
                filled += len(chosen)
    return Memory(memory.features[:filled], memory.labels[:filled])


def _empty_memory(rows: int, channels: int, classes: int, device: torch.device) -> Memory:
    needed = 2 * rows * (channels + classes)
    if device.type == 'cuda':
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    if needed > 0.8 * free:
        raise ProbeError(
            f'the memory of {rows:,} patches takes {needed / 2**30:.1f} GiB, and '
            f'{free / 2**30:.1f} GiB are on {device}: give a smaller --memory, such as '
            f'{int(0.6 * free / needed * rows):,}'.replace(',', '_')
        )
    half = dict(dtype=torch.float16, device=device)
    return Memory(torch.empty(rows, channels, **half), torch.empty(rows, classes, **half))


def segment(queries: Tensor, memory: Memory, neighbours: int, temperature: float) -> Tensor:
    """Average the labels of the nearest memory patches, weighted by a softmax of their cosines.

    Args:
        queries (Tensor): Features of patches, shape (M, C).
        memory (Memory): Where the neighbours come from.
        neighbours (int): Number of neighbours.
        temperature (float): Of the softmax.

    Returns:
        Tensor: Shares of each class, float32, shape (M, K).
    """
    cosines, indices = nearest(F.normalize(queries, dim=1), memory.features, neighbours)
    weights = (cosines / temperature).softmax(dim=1)
    return (weights[..., None] * memory.labels[indices].float()).sum(dim=1)


def in_context_iou(
    encoder: Encoder,
    train: Mapping[str, Any],
    val: Mapping[str, Any],
    settings: InContext = InContext(),
    layer: str | int = 'last',
    batch_size: int = 16,
    workers: int = 2,
    predictions: Path | None = None,
) -> dict[str, Any]:
    """Segment a validation set by its nearest training patches.

    Args:
        encoder (Encoder): Network whose features are compared.
        train (Mapping): Training set of a config of mmseg.
        val (Mapping): Validation set.
        settings (InContext): Defaults to the paper's.
        layer (str | int): Layer of the encoder. Defaults to 'last'.
        batch_size (int): Images at a time. Defaults to 16.
        workers (int): Processes that read. Defaults to 2.
        predictions (Path, optional): Folder for the predictions of the images that reports show.
            Defaults to None.

    Returns:
        dict: ``mIoU`` in percent, ``IoU`` by class, ``patches`` in the memory and in an image,
        ``seconds`` for the ``memory`` and the ``segmentation``. Predictions are enlarged bilinearly
        and compared at the size of the squares. Classes that neither labels nor predictions show
        do not count, as in mmseg.
    """
    started = time.monotonic()
    memory = build_memory(encoder, train, settings, layer, batch_size, workers)
    built = time.monotonic()
    dataset = LabelledSquares(val, settings)
    classes = len(dataset.classes)
    files = shown_files(predictions, len(dataset)) if predictions else {}
    number = 0
    confusion = torch.zeros(classes * classes, dtype=torch.int64)
    for maps, labels in _batches(encoder, dataset, layer, batch_size, workers, 'segmentation'):
        patches = maps.flatten(2).transpose(1, 2).flatten(0, 1)
        scores = segment(patches, memory, settings.neighbours, settings.temperature)
        scores = scores.view(len(maps), -1, classes).transpose(1, 2).unflatten(2, maps.shape[2:])
        for score, label in zip(scores, labels.long(), strict=True):
            size = tuple(label.shape)
            large = F.interpolate(score[None], size=size, mode='bilinear', align_corners=False)
            found = large[0].argmax(dim=0).cpu()
            valid = label < classes
            codes = label[valid] * classes + found[valid]
            confusion += torch.bincount(codes, minlength=classes * classes)
            if number in files:
                palette = dataset.palette.ravel().tolist()
                write_label_image(files[number], found.to(torch.uint8).numpy(), palette)
            number += 1
    confusion = confusion.view(classes, classes)
    hits = confusion.diagonal().double()
    iou = 100 * hits / (confusion.sum(dim=0) + confusion.sum(dim=1) - hits)
    return {
        'mIoU': float(iou[~iou.isnan()].mean()),
        'IoU': {
            name: None if np.isnan(value) else value
            for name, value in zip(dataset.classes, iou.tolist(), strict=True)
        },
        'patches': [len(memory.features), maps.shape[2] * maps.shape[3]],
        'seconds': dict(memory=built - started, segmentation=time.monotonic() - built),
    }


def shown_files(folder: Path, images: int) -> dict[int, Path]:
    """Name the predictions that reports show, by the index of the image in the validation set."""
    numbers = np.linspace(0, images, min(_PICTURES, images), endpoint=False).astype(int)
    return {number: folder / f'{number:06d}.png' for number in numbers.tolist()}


def evaluate(
    encoder: Encoder,
    train: Mapping[str, Any],
    val: Mapping[str, Any],
    settings: InContext,
    seeds: int,
    record: Record,
    layer: str | int = 'last',
    batch_size: int = 16,
    workers: int = 2,
    predictions: Path | None = None,
) -> list[dict[str, Any]]:
    """Segment a validation set with the seeds that a record does not have yet.

    Args:
        encoder (Encoder): Network whose features are compared.
        train (Mapping): Training set of a config of mmseg.
        val (Mapping): Validation set.
        settings (InContext): Their seed is the first; further ones follow it by 1 each.
        seeds (int): Number of repetitions.
        record (Record): Gets the result of each seed.
        layer (str | int): Layer of the encoder. Defaults to 'last'.
        batch_size (int): Images at a time. Defaults to 16.
        workers (int): Processes that read. Defaults to 2.
        predictions (Path, optional): See :func:`in_context_iou`; of the first seed. Defaults to
            None.

    Returns:
        list[dict]: See :func:`in_context_iou`, by seed.
    """
    names = {f'seed {seed}': seed for seed in range(settings.seed, settings.seed + seeds)}
    for name, seed in names.items():
        out = predictions if seed == settings.seed else None
        # Pictures that someone removed are made again.
        files = shown_files(out, len(LabelledSquares(val, settings))).values() if out else ()
        if name not in record.parts or not all(file.is_file() for file in files):
            place = layer, batch_size, workers, out
            found = in_context_iou(encoder, train, val, replace(settings, seed=seed), *place)
            record.put(name, found)
    return [record.parts[name] for name in names]


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Average over seeds: ``mIoU``, and from two on its sample standard ``deviation``.

    Args:
        results (Sequence[Mapping]): What :func:`in_context_iou` returned, by seed.
    """
    scores = [found['mIoU'] for found in results]
    return {'mIoU': mean(scores)} | ({'deviation': stdev(scores)} if len(scores) > 1 else {})


def _batches(
    encoder: Encoder,
    dataset: LabelledSquares,
    layer: str | int,
    batch_size: int,
    workers: int,
    title: str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Feature maps and label images, batch by batch."""
    loader = DataLoader(dataset, batch_size, num_workers=workers)
    with Progress(len(dataset), title, None, 'images') as bar:
        for images, labels in loader:
            yield encoder(images, layer, batch_size), labels
            bar.advance(len(images))
