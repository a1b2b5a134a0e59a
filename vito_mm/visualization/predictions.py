"""Predictions of fine-tuned segmenters and detectors, drawn by mmseg's and mmdet's visualizers."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from vito_mm.utils.quiet import ignored_warnings

from .canvas import Canvas, png_of, shortened

SCORE_SHOWN = 0.3
"""Detections below this score are not drawn."""
MOST_BOXES = 30
"""Largest number of detections drawn on an image, those with the highest scores."""

_WIDTH, _GAP, _TITLE = 320, 4, 22  # pixels; labels of the visualizers are readable at this width
_RUNS_PER_PICTURE = 4

Annotation = np.ndarray | InstanceData
"""A label image, shape (height, width), or boxes with labels and scores."""


@dataclass
class Samples:
    """Some validation images, with ground truth and model input of each."""

    package: str  # 'mmseg' or 'mmdet'
    meta: dict  # of the data set: classes and palette
    images: list[np.ndarray]  # RGB, uint8, shape (height, width, 3)
    truths: list[Annotation]
    inputs: list[dict]


def load_samples(cfg: Config, package: str, count: int = 4) -> Samples:
    """Load images spread evenly over the validation set; for detection those with an object.

    Raises:
        OSError: If an image cannot be read.
        ValueError: If no image holds an object.
    """
    with _scope(package):
        loader = cfg.get('val_dataloader') or cfg.test_dataloader
        dataset = DATASETS.build(loader.dataset)
        samples = Samples(package, dict(dataset.metainfo), [], [], [])
        for index in _spread(dataset, package, count):
            sample, info = dataset[index], dataset.get_data_info(index)
            image = cv2.imread(info['img_path'])
            if image is None:
                raise OSError(f'cannot read {info["img_path"]}')
            samples.images.append(image[..., ::-1])
            samples.inputs.append(sample)
            if package == 'mmseg':
                samples.truths.append(sample['data_samples'].gt_sem_seg.data[0].numpy())
            else:
                objects = _objects(info)
                samples.truths.append(
                    InstanceData(
                        bboxes=torch.tensor([x['bbox'] for x in objects], dtype=torch.float32),
                        labels=torch.tensor([x['bbox_label'] for x in objects]),
                    )
                )
    return samples


@torch.no_grad()
def predict(cfg: Config, checkpoint: Path, samples: Samples) -> list[Annotation]:
    """Predict each image with a fine-tuned model, whose weights are loaded strictly."""
    with _scope(samples.package):
        # As the runner does: some configs have the preprocessor next to the model.
        cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
        model = MODELS.build(cfg.model)
        load_checkpoint(model, str(checkpoint), map_location='cpu', strict=True)
        model.to('cuda' if torch.cuda.is_available() else 'cpu').eval()
        results = [
            model.test_step({key: [value] for key, value in sample.items()})[0].cpu()
            for sample in samples.inputs
        ]
    if samples.package == 'mmseg':
        return [result.pred_sem_seg.data[0].numpy() for result in results]
    found = []
    for instances in (result.pred_instances for result in results):
        order = instances.scores.argsort()[-MOST_BOXES:]  # the best last and so on top
        kept = order[instances.scores[order] > SCORE_SHOWN]
        found.append(
            InstanceData(**{k: instances[k][kept] for k in ('bboxes', 'labels', 'scores')})
        )
    return found


def draw_predictions(
    samples: Samples, predictions: Mapping[str, Sequence[Annotation]]
) -> list[bytes]:
    """Draw a row per image: the image, the ground truth, and its prediction by each run.

    Returns:
        list[bytes]: PNGs, one for every four runs.
    """
    with _scope(samples.package):
        if samples.package == 'mmseg':
            from mmseg.visualization import SegLocalVisualizer as Visualizer
        else:
            from mmdet.visualization import DetLocalVisualizer as Visualizer
        visualizer = Visualizer()
        visualizer.dataset_meta = samples.meta
        resized = [_resized(image) for image in samples.images]
        truths = _overlays(visualizer, samples.images, resized, samples.truths)
        pictures = []
        for start in range(0, len(predictions), _RUNS_PER_PICTURE):
            runs = list(predictions)[start : start + _RUNS_PER_PICTURE]
            columns = {'image': resized, 'truth': truths}
            for run in runs:
                columns[run] = _overlays(visualizer, samples.images, resized, predictions[run])
            pictures.append(_grid(columns))
    return pictures


@contextlib.contextmanager
def _scope(package: str) -> Iterator[None]:
    """Use the registries of a package and silence it: it reports every file that it loads."""
    with (
        DefaultScope.overwrite_default_scope(package),
        contextlib.redirect_stdout(io.StringIO()),
        ignored_warnings(),
    ):
        yield


def _spread(dataset: Any, package: str, count: int) -> list[int]:
    """Choose indices spread over a data set; for detection the next ones with an object."""
    chosen: list[int] = []
    for start in np.linspace(0, len(dataset), min(count, len(dataset)), endpoint=False):
        free = (i for i in range(int(start), len(dataset)) if i not in chosen)
        if package == 'mmdet':
            free = (i for i in free if _objects(dataset.get_data_info(i)))
        if (index := next(free, None)) is not None:
            chosen.append(index)
    if not chosen:
        raise ValueError('no image of the validation set holds an object')
    return chosen


def _objects(info: dict) -> list[dict]:
    return [x for x in info['instances'] if not x.get('ignore_flag', 0)]


def _resized(image: np.ndarray) -> np.ndarray:
    size = (_WIDTH, max(1, round(_WIDTH * image.shape[0] / image.shape[1])))
    shrinks = image.shape[1] > _WIDTH
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST)


def _overlays(
    visualizer: Any,
    images: Sequence[np.ndarray],
    resized: Sequence[np.ndarray],
    annotations: Sequence[Annotation],
) -> list[np.ndarray]:
    pictures = []
    for image, picture, annotation in zip(images, resized, annotations, strict=True):
        if isinstance(annotation, np.ndarray):
            rows, columns = (
                np.arange(new) * old // new
                for new, old in zip(picture.shape[:2], annotation.shape, strict=True)
            )
            labels = torch.from_numpy(annotation[rows][:, columns].astype(np.int64))
            sample = BaseDataElement(gt_sem_seg=PixelData(data=labels[None]))
        else:
            instances, (height, width) = annotation.clone(), picture.shape[:2]
            boxes = instances.bboxes * (width / image.shape[1])
            # Boxes beyond the edges would enlarge the picture.
            instances.bboxes = boxes.minimum(torch.tensor([width, height] * 2)).clamp(min=0)
            sample = BaseDataElement(gt_instances=instances)
        visualizer.add_datasample('', picture, sample, draw_pred=False)
        pictures.append(visualizer.get_image())
    return pictures


def _grid(columns: Mapping[str, Sequence[np.ndarray]]) -> bytes:
    heights = [picture.shape[0] + _GAP for picture in next(iter(columns.values()))]
    canvas = Canvas(len(columns) * (_WIDTH + _GAP) - _GAP, _TITLE + sum(heights) - _GAP)
    for column, (title, pictures) in enumerate(columns.items()):
        x, y = column * (_WIDTH + _GAP), _TITLE
        canvas.text(x + _WIDTH / 2, 3, shortened(title, _WIDTH, bold=True), bold=True, anchor='ma')
        for picture, height in zip(pictures, heights, strict=True):
            canvas.paste(picture, x, y)
            y += height
    return png_of(canvas.array())
