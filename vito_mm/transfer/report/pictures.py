"""Pictures of fine-tuning runs: curves, and predictions beside image and truth."""

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import load_checkpoint

SCORE_SHOWN = 0.3
"""Detections below this score are not drawn."""
MOST_BOXES = 30
"""Detections of one image that are drawn at most, those with the highest scores."""

POINTS_A_CURVE = 200
"""Points of one curve at most; longer ones are averaged over neighbouring points."""

RUN_COLOURS = (
    *('#d62728', '#0072b2', '#009e73', '#e69f00', '#cc79a7', '#56b4e9', '#8c564b', '#000000'),
    *('#9467bd', '#bcbd22', '#17becf', '#800000'),
)
RANDOM_COLOUR = '#7f7f7f'

# The qualitative colours that are told apart most easily come first.
_CLASS_COLOURS = (
    *('#1f77b4', '#ff7f0e', '#2ca02c', '#d62728', '#9467bd', '#8c564b', '#e377c2', '#bcbd22'),
    *('#17becf', '#000075', '#ffe119', '#800000', '#aaffc3', '#f032e6', '#808000', '#ffd8b1'),
    *('#469990', '#e6beff', '#bfef45', '#fabebe'),
)
_GROUND = '#ebebeb'  # of the class that covers most: white areas leave the eye to the objects
_OTHER, _UNLABELLED = '#6e6e6e', '#2b2b2b'
_IGNORED = 255
_DPI = 110
_PREDICTIONS_A_ROW = 4


class Box(NamedTuple):
    """A box on an image.

    Attributes:
        corners (tuple[float, float, float, float]): x1, y1, x2, y2 in pixels.
        label (int): Index of the class.
        score (float, optional): None in the truth.
    """

    corners: tuple[float, float, float, float]
    label: int
    score: float | None = None


Labels = np.ndarray | list[Box]
"""A label image, or boxes."""


@dataclass
class Stills:
    """Some validation images with their truth.

    Attributes:
        classes (tuple[str, ...]): Names of the data set's classes.
        images (list[np.ndarray]): RGB images, shape (H, W, 3).
        truths (list[Labels]): Truth of each.
        inputs (list[dict]): What the data set gives the model for each.
    """

    classes: tuple[str, ...]
    images: list[np.ndarray]
    truths: list[Labels]
    inputs: list[dict]


@dataclass(frozen=True)
class Curve:
    """One line of a plot: seeds thin, their mean bold.

    Attributes:
        label (str): What the legend calls it.
        colour (str): Colour, as matplotlib takes it.
        seeds (Sequence[tuple[Sequence[float], Sequence[float]]]): Steps and values of each seed.
    """

    label: str
    colour: str
    seeds: Sequence[tuple[Sequence[float], Sequence[float]]]


def run_colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each checkpoint, grey for random weights.

    Args:
        labels (Sequence[str]): Labels of checkpoints.

    Returns:
        dict[str, str]: Colours by label.
    """
    others = [label for label in dict.fromkeys(labels) if label != 'random']
    colours = {label: RUN_COLOURS[i % len(RUN_COLOURS)] for i, label in enumerate(others)}
    return {'random': RANDOM_COLOUR, **colours}


def load_stills(cfg: Config, package: str, count: int = 4) -> Stills:
    """Validation images spread evenly over the data set of a run.

    Args:
        cfg (Config): Config of the run.
        package (str): ``'mmseg'`` or ``'mmdet'``.
        count (int): How many. Defaults to 4. For detection only images that hold an object.

    Returns:
        Stills: The images.
    """
    with _scope(package):
        loader = cfg.get('val_dataloader') or cfg.test_dataloader
        dataset = DATASETS.build(loader.dataset)
        stills = Stills(tuple(dataset.metainfo['classes']), [], [], [])
        for index in _spread(dataset, package, count):
            sample = dataset[index]
            info = dataset.get_data_info(index)
            image = cv2.imread(info['img_path'])
            if image is None:
                raise OSError(f'cannot read {info["img_path"]}')
            stills.images.append(image[..., ::-1])
            stills.inputs.append(sample)
            if package == 'mmseg':
                stills.truths.append(sample['data_samples'].gt_sem_seg.data[0].numpy())
            else:
                objects = _objects(info)
                stills.truths.append([Box(tuple(x['bbox']), x['bbox_label']) for x in objects])
    return stills


@torch.no_grad()
def predict(cfg: Config, package: str, checkpoint: Path, stills: Stills) -> list[Labels]:
    """What a run predicts for some images.

    Args:
        cfg (Config): Config of the run.
        package (str): ``'mmseg'`` or ``'mmdet'``.
        checkpoint (Path): Weights that the run left. Each key has to fit.
        stills (Stills): Images of its data set.

    Returns:
        list[Labels]: Prediction for each image.
    """
    with _scope(package):
        # As the runner does; some configs keep the preprocessor beside the model.
        cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
        model = MODELS.build(cfg.model)
        load_checkpoint(model, str(checkpoint), map_location='cpu', strict=True)
        model.to('cuda' if torch.cuda.is_available() else 'cpu').eval()
        results = [
            model.test_step({key: [value] for key, value in sample.items()})[0].cpu()
            for sample in stills.inputs
        ]
    if package == 'mmseg':
        return [result.pred_sem_seg.data[0].numpy() for result in results]
    return [_found(result.pred_instances.numpy()) for result in results]


def draw_predictions(stills: Stills, predictions: Mapping[str, Sequence[Labels]]) -> list[bytes]:
    """Rows of images: the image, the truth, and what each run predicts.

    Data sets' own palettes hold colours that hardly differ, so the classes that are seen get others
    and a legend; the one that covers most of the truth is the light ground.

    Args:
        stills (Stills): Images and truth.
        predictions (Mapping[str, Sequence[Labels]]): Prediction for each image, by run.

    Returns:
        list[bytes]: PNGs, more than one where the runs are too many for one row.
    """
    runs = list(predictions)
    boxes = isinstance(stills.truths[0], list)
    every = [*stills.truths, *(x for labels in predictions.values() for x in labels)]
    palette = _palette(stills, every)
    pictures = []
    for start in range(0, max(1, len(runs)), _PREDICTIONS_A_ROW):
        part = {run: predictions[run] for run in runs[start : start + _PREDICTIONS_A_ROW]}
        columns = {'image': None, 'truth': stills.truths, **part}
        with matplotlib.rc_context({'text.parse_math': False, 'font.size': 9}):
            figure, axes = _frames(stills.images, len(columns))
            for column, (title, labels) in enumerate(columns.items()):
                axes[0, column].set_title(title, fontweight='bold')
                for row, image in enumerate(stills.images):
                    axis = axes[row, column]
                    if labels is None or boxes:
                        axis.imshow(image, interpolation='nearest')
                    if labels is None:
                        continue
                    if boxes:
                        _draw_boxes(axis, labels[row], stills.classes, palette)
                    else:
                        axis.imshow(_coloured(labels[row], palette), interpolation='nearest')
            if not boxes:
                shown = [*stills.truths, *(x for labels in part.values() for x in labels)]
                _class_legend(figure, shown, stills.classes, palette)
            pictures.append(to_png(figure))
    return pictures


def draw_curves(
    panels: Mapping[str, Sequence[Curve]], xlabel: str = 'step', columns: int = 4
) -> bytes:
    """Plots side by side, with one legend.

    Args:
        panels (Mapping[str, Sequence[Curve]]): Curves of each plot by its title.
        xlabel (str): What the steps are. Defaults to 'step'.
        columns (int): Plots in one row at most. Defaults to 4.

    Returns:
        bytes: A PNG.
    """
    across = min(columns, len(panels))
    down = -(-len(panels) // across)
    size = (max(5.0, 3.1 * across) if across < 3 else 2.9 * across, 2.7 * down + 0.3)
    with matplotlib.rc_context({'text.parse_math': False, 'font.size': 9}):
        figure = Figure(figsize=size, layout='constrained')
        axes = figure.subplots(down, across, squeeze=False).flatten()
        for axis, (title, curves) in zip(axes, panels.items(), strict=False):
            for curve in curves:
                _draw_curve(axis, curve)
            axis.set(title=title, xlabel=xlabel)
            lowest, highest = axis.dataLim.intervaly
            if lowest < highest / 2:  # values that are all high keep an axis that tells them apart
                axis.set_ylim(bottom=min(0, lowest))
            axis.grid(color='#e6e6e6')
            axis.spines[['top', 'right']].set_visible(False)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        handles = {curve.label: curve.colour for curves in panels.values() for curve in curves}
        if len(handles) > 1:
            lines = [Line2D([], [], color=colour, lw=2) for colour in handles.values()]
            _legend(figure, lines, list(handles), columns=2 * across)
        return to_png(figure)


def to_png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(action='ignore'):  # a label may have letters that no font has
        figure.savefig(buffer, format='png', dpi=_DPI, bbox_inches='tight', pad_inches=0.05)
    return buffer.getvalue()


@contextlib.contextmanager
def _scope(package: str) -> Iterator[None]:
    """Registries of a package, and silence: the libraries tell every file that they load."""
    with (
        DefaultScope.overwrite_default_scope(package),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(action='ignore'),
    ):
        yield


def _spread(dataset: Any, package: str, count: int) -> list[int]:
    """Indices spread over a data set; for detection the next ones that hold an object."""
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


def _found(instances: Any) -> list[Box]:
    """Detections that are drawn, the best last and so on top."""
    order = np.argsort(instances.scores)[-MOST_BOXES:]
    return [
        Box(tuple(instances.bboxes[i].tolist()), int(instances.labels[i]), instances.scores[i])
        for i in order
        if instances.scores[i] > SCORE_SHOWN
    ]


def _palette(stills: Stills, every: Sequence[Labels]) -> dict[int, str]:
    """Colour of each class that gets one: those of the truth first, then by how much is seen."""
    true, seen = _amounts(stills.truths), _amounts(every)
    order = [label for label, _ in true.most_common()]
    order += [label for label, _ in seen.most_common() if label not in true]
    if isinstance(stills.truths[0], list):
        return dict(zip(order, _CLASS_COLOURS, strict=False))
    return dict(zip(order, (_GROUND, *_CLASS_COLOURS), strict=False))


def _amounts(labels: Sequence[Labels]) -> Counter:
    """Pixels or boxes of each class."""
    amounts: Counter = Counter()
    for part in labels:
        if isinstance(part, list):
            amounts.update(box.label for box in part)
        else:
            values, counts = np.unique(part[part != _IGNORED], return_counts=True)
            amounts.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    return amounts


def _frames(images: Sequence[np.ndarray], columns: int) -> tuple[Figure, np.ndarray]:
    """Axes for pictures, each row as high as its image asks for."""
    width, gap = 2.4, 0.06
    heights = [width * image.shape[0] / image.shape[1] for image in images]
    figure = Figure(
        figsize=(columns * (width + gap), sum(heights) + gap * len(heights) + 0.35),
        layout='constrained',
    )
    figure.get_layout_engine().set(w_pad=gap / 2, h_pad=gap / 2, wspace=0, hspace=0)
    axes = figure.subplots(len(images), columns, squeeze=False, height_ratios=heights)
    for axis in axes.flatten():
        axis.set_axis_off()
    return figure, axes


def _coloured(labels: np.ndarray, palette: Mapping[int, str]) -> np.ndarray:
    """A label image in the colours of its classes."""
    picture = np.empty((*labels.shape, 3))
    picture[:] = matplotlib.colors.to_rgb(_OTHER)
    picture[labels == _IGNORED] = matplotlib.colors.to_rgb(_UNLABELLED)
    for label, colour in palette.items():
        picture[labels == label] = matplotlib.colors.to_rgb(colour)
    return picture


def _draw_boxes(
    axis: Any, boxes: Sequence[Box], classes: Sequence[str], palette: Mapping[int, str]
) -> None:
    for box in boxes:
        (x1, y1, x2, y2), colour = box.corners, palette.get(box.label, _OTHER)
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, lw=1.6))
        score = '' if box.score is None else f' {100 * box.score:.0f}%'
        light = np.dot(matplotlib.colors.to_rgb(colour), (0.3, 0.59, 0.11)) > 0.6
        axis.text(
            *(x1, y1, f'{classes[box.label]}{score}'),
            color='black' if light else 'white',
            fontsize=6,
            va='top',
            clip_on=True,
            bbox=dict(facecolor=colour, edgecolor='none', pad=0.8, alpha=0.85),
        )


def _class_legend(
    figure: Figure, shown: Sequence[Labels], classes: Sequence[str], palette: Mapping[int, str]
) -> None:
    present = _amounts(shown)
    named = {classes[label]: colour for label, colour in palette.items() if present[label]}
    if set(present) - set(palette):
        named['other classes'] = _OTHER
    if any((labels == _IGNORED).any() for labels in shown):
        named['not labelled'] = _UNLABELLED
    patches = [Patch(facecolor=colour, edgecolor='#999999') for colour in named.values()]
    _legend(figure, patches, list(named), columns=int(figure.get_figwidth()))


def _legend(figure: Figure, handles: list, names: list[str], columns: int) -> None:
    # matplotlib leaves out what begins with an underscore.
    names = [f' {name}' if name.startswith('_') else name for name in names]
    rows = -(-len(names) // columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * rows + 0.1)
    figure.legend(
        handles,
        names,
        loc='outside lower center',
        ncols=-(-len(names) // rows),
        frameon=False,
        fontsize=8,
    )


def _draw_curve(axis: Any, curve: Curve) -> None:
    several = len(curve.seeds) > 1
    for steps, values in curve.seeds:
        width, alpha = (0.7, 0.45) if several else (1.8, 1.0)
        _plot(axis, *_thinned(steps, values), curve.colour, lw=width, alpha=alpha)
    if several:
        by_step = [dict(zip(*seed, strict=True)) for seed in curve.seeds]
        common = sorted(set.intersection(*(set(seed) for seed in by_step)))
        means = [np.mean([seed[step] for seed in by_step]) for step in common]
        _plot(axis, *_thinned(common, means), curve.colour, lw=2.0)


def _plot(axis: Any, steps: Sequence, values: Sequence, colour: str, **style: float) -> None:
    marker = 'o' if len(steps) < 15 else None
    axis.plot(steps, values, color=colour, marker=marker, markersize=3, **style)


def _thinned(steps: Sequence, values: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Long curves as means over neighbouring points, which a picture of this size can show."""
    group = -(-len(steps) // POINTS_A_CURVE) if len(steps) else 1
    starts = np.arange(0, len(steps), group)
    counts = np.diff([*starts, len(steps)])
    return tuple(
        np.add.reduceat(np.asarray(x, float), starts) / counts if len(steps) else np.array([])
        for x in (steps, values)
    )
