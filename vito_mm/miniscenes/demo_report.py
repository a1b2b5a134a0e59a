"""The demo's page: table, curves, attention masks and predictions in one HTML file."""

import base64
import html
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import matplotlib
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from vito_mm.registry import MODELS
from vito_mm.transfer import read_checkpoint
from vito_mm.transfer.jobs import Job
from vito_mm.videos import decode_frames, read_manifest

from .classes import CLASSES, LABEL_MAPS

matplotlib.use('Agg')
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from .demo import DemoResult

PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmpretrain', 'mmsegmentation', 'mmdet', 'av', 'numpy')
_PALETTE = (plt.get_cmap('tab10')(np.arange(len(CLASSES)))[:, :3] * 255).astype(np.uint8)
_COLOURS = {'random': 'tab:gray', 'VITO': 'tab:red'}


def write_report(result: 'DemoResult', work_dir: Path, device: str) -> Path:
    """Write ``summary.html`` with everything in it, ``summary.md`` and the pictures as PNG.

    Args:
        result (DemoResult): What the demo found.
        work_dir (Path): Folder that gets the files.
        device (str): What it ran on.

    Returns:
        Path: The page.
    """
    from .demo import INITS, TASKS, table

    pictures = work_dir / 'pictures'
    pictures.mkdir(exist_ok=True)
    figures = {
        'Pre-training': draw_pretraining(result.pretrain, pictures / 'pretraining.png'),
        'Attention masks: frames of a clip, mask of stage 4, mask of stage 5': draw_attention(
            result.pretrain, work_dir / 'videos.jsonl', pictures / 'attention.png'
        ),
        'Fine-tuning: training loss': draw_fine_tuning(result.runs, pictures / 'fine_tuning.png'),
    }
    for task in TASKS:
        draw = draw_segmentation if task.package == 'mmseg' else draw_detection
        runs = {init: result.runs[task.name, init] for init in INITS}
        name = Path(task.config).stem
        figures[f'{task.name}: image, truth, from random, from VITO'] = draw(
            runs, pictures / f'{name}.png'
        )

    versions = ', '.join(f'{name} {version(name)}' for name in PACKAGES)
    machine = f'{device}, Python {platform.python_version()}, {versions}'
    durations = ', '.join(f'{name} {value:.0f} s' for name, value in result.seconds.items())
    text = f'{table(result.rows)}\n\nMachine: {machine}\n\nDurations: {durations}\n' + ''.join(
        f'\nNote: {note}\n' for note in result.notes
    )
    (work_dir / 'summary.md').write_text(text)

    cells = ''.join(
        f'<tr><td>{html.escape(task)}</td><td>{metric}</td><td>{random:.1f}</td><td>{vito:.1f}</td>'
        f'<td>{vito - random:+.1f}</td></tr>'
        for task, metric, random, vito in result.rows
    )
    sections = ''.join(
        f'<h2>{html.escape(title)}</h2><img alt="{html.escape(title)}" src="data:image/png;base64,'
        f'{base64.b64encode(file.read_bytes()).decode()}">'
        for title, file in figures.items()
    )
    page = work_dir / 'summary.html'
    page.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>VITO demo</title><style>'
        'body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em}'
        'td,th{padding:.3em 1em;text-align:right;border-bottom:1px solid #ccc}'
        'td:first-child,th:first-child{text-align:left}table{border-collapse:collapse}'
        'img{max-width:100%}</style><h1>VITO on MiniScenes</h1><table><tr><th>task<th>metric'
        f'<th>random init<th>VITO<th>gain</tr>{cells}</table><p>{html.escape(machine)}</p>'
        f'<p>{html.escape(durations)}</p>'
        + ''.join(f'<p>{html.escape(note)}</p>' for note in result.notes)
        + f'{sections}</html>\n'
    )
    return page


def draw_pretraining(job: Job, file: Path) -> Path:
    """Curves of the pre-training run."""
    lines = [line for line in job.scalars() if 'pair_nll' in line]
    curves = (
        ('pair_nll', 'InfoNCE per pair'),
        ('top1_acc', 'own video found, %'),
        ('embedding_std', 'spread of embeddings (0: collapse)'),
    )
    figure, axes = plt.subplots(1, len(curves), figsize=(11, 2.8), layout='constrained')
    for axis, (key, title) in zip(axes, curves, strict=True):
        axis.plot([line['step'] for line in lines], [line[key] for line in lines], color='tab:red')
        axis.set(title=title, xlabel='step')
        axis.set_ylim(bottom=0)
    return _save(figure, file)


def draw_fine_tuning(runs: dict[tuple[str, str], Job], file: Path) -> Path:
    """Training loss of every task from both initialisations."""
    names = list(dict.fromkeys(name for name, _ in runs))
    figure, axes = plt.subplots(1, len(names), figsize=(11, 2.8), layout='constrained')
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        for (task, init), job in runs.items():
            if task == name:
                lines = [line for line in job.scalars() if 'loss' in line]
                axis.plot(
                    [line.get('iter', line['step']) for line in lines],
                    [line['loss'] for line in lines],
                    label=init,
                    color=_COLOURS[init],
                )
        axis.set(title=name, xlabel='logged step')
        axis.set_ylim(bottom=0)
        axis.legend()
    return _save(figure, file)


@torch.no_grad()
def draw_attention(job: Job, manifest: Path, file: Path, num_clips: int = 4) -> Path:
    """Where the two scales look, on frames of some MiniScenes videos and of a real clip."""
    cfg = Config.fromfile(next(job.work_dir.glob('*.py')))
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.load_state_dict(read_checkpoint(job.checkpoint())['state_dict'])
    model.eval()
    rows = read_manifest(manifest)
    real = [row for row in rows if 'label' not in row][:1]
    scenes = [row for row in rows if 'label' in row][: num_clips - len(real)]
    strips = []
    for row in scenes + real:
        frames, _ = decode_frames(row['path'], lambda seconds: np.array([0.2, 0.5, 0.8]) * seconds)
        frames = np.stack([_centre(frame, 128) for frame in frames])
        inputs = torch.from_numpy(frames[..., ::-1].copy()).permute(0, 3, 1, 2)
        data = model.data_preprocessor(dict(inputs=[inputs], data_samples=None))
        masks = model.neck.masks(model.extract_feat(data['inputs'][0]))
        strips.append(
            np.concatenate(
                [
                    np.concatenate([frame, *(_overlay(frame, mask[i]) for mask in masks)])
                    for i, frame in enumerate(frames)
                ],
                axis=1,
            )
        )
    return _write(_grid([strips[: num_clips // 2], strips[num_clips // 2 :]]), file)


def _centre(frame: np.ndarray, side: int) -> np.ndarray:
    """The square in the middle of a frame, resized."""
    height, width = frame.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    return cv2.resize(frame[top : top + edge, left : left + edge], (side, side))


def _overlay(frame: np.ndarray, mask: torch.Tensor) -> np.ndarray:
    """A frame with a mask over it; the mask is scaled to its own maximum."""
    size = (frame.shape[1], frame.shape[0])
    weight = cv2.resize((mask / mask.max()).float().numpy(), size, interpolation=cv2.INTER_CUBIC)
    heat = (plt.get_cmap('inferno')(weight.clip(0, 1))[..., :3] * 255).astype(np.uint8)
    return (0.35 * frame + 0.65 * heat).astype(np.uint8)


def draw_segmentation(runs: dict[str, Job], file: Path, num_images: int = 4) -> Path:
    """Label images of validation stills: truth, and what each run predicts."""
    from mmseg.apis import inference_model, init_model
    from mmseg.registry import DATASETS

    cfg = _config_of(next(iter(runs.values())))
    init_default_scope('mmseg')
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    key = 'ade20k' if 'ADE' in cfg.val_dataloader.dataset.type else 'voc'
    rows = []
    models = [
        init_model(_config_of(job), str(job.checkpoint()), device='cpu') for job in runs.values()
    ]
    for index in range(num_images):
        sample = dataset[index]['data_samples']
        image = cv2.imread(sample.img_path)
        truth = sample.gt_sem_seg.data[0].numpy()
        predictions = [
            inference_model(model, sample.img_path).pred_sem_seg.data[0].numpy() for model in models
        ]
        rows.append([image[..., ::-1], *(_coloured(x, key) for x in (truth, *predictions))])
    return _write(_grid(rows), file)


def _coloured(labels: np.ndarray, key: str) -> np.ndarray:
    """A label image in the colours of the eight classes, other classes in grey."""
    label_map = LABEL_MAPS[key]
    # ADE20K's files count from 1, its data set (reduce_zero_label) from 0.
    offset = 1 if key == 'ade20k' else 0
    picture = np.full((*labels.shape, 3), 70, np.uint8)
    picture[labels == label_map.background - offset] = 235
    for index, class_id in enumerate(label_map.ids):
        picture[labels == class_id - offset] = _PALETTE[index]
    return picture


def draw_detection(runs: dict[str, Job], file: Path, num_images: int = 4) -> Path:
    """Boxes on validation stills: truth, and what each run finds with a score over 0.3."""
    from mmdet.apis import inference_detector, init_detector
    from mmdet.registry import DATASETS

    cfg = _config_of(next(iter(runs.values())))
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    names = dataset.metainfo['classes']
    key = 'lvis' if len(names) > 80 else 'coco'
    models = [
        init_detector(_config_of(job), str(job.checkpoint()), palette='random', device='cpu')
        for job in runs.values()
    ]
    rows = []
    for index in range(num_images):
        info = dataset.get_data_info(index)
        image = cv2.imread(info['img_path'])[..., ::-1].copy()
        truth = [(x['bbox'], x['bbox_label'], 1.0) for x in info['instances']]
        pictures = [image, _boxed(image, truth, names, key)]
        for model in models:
            found = inference_detector(model, info['img_path']).pred_instances.numpy()
            boxes = zip(found.bboxes, found.labels, found.scores, strict=True)
            pictures.append(_boxed(image, [box for box in boxes if box[2] > 0.3], names, key))
        rows.append(pictures)
    return _write(_grid(rows), file)


def _boxed(
    image: np.ndarray,
    boxes: Sequence[tuple[Sequence[float], int, float]],
    names: Sequence[str],
    key: str,
) -> np.ndarray:
    scale = 2
    picture = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    colours = {name: _PALETTE[i].tolist() for i, name in enumerate(LABEL_MAPS[key].names)}
    for box, label, score in boxes:
        x1, y1, x2, y2 = (round(float(value) * scale) for value in box)
        colour = colours.get(names[label], [0, 0, 0])
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour, 2)
        text = f'{names[label]} {score:.1f}'
        cv2.putText(picture, text, (x1 + 2, y1 + 11), cv2.FONT_HERSHEY_PLAIN, 0.8, colour, 1)
    return picture


def _config_of(job: Job) -> Config:
    return Config.fromfile(next(job.work_dir.glob('*.py')))


def _grid(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Pictures of one size in rows and columns, with gaps."""
    width = max(picture.shape[1] for row in rows for picture in row)
    height = max(picture.shape[0] for row in rows for picture in row)
    cells = [
        [_padded(cv2.resize(p, (width, height), interpolation=cv2.INTER_NEAREST)) for p in row]
        for row in rows
    ]
    return np.concatenate([np.concatenate(row, axis=1) for row in cells])


def _padded(picture: np.ndarray) -> np.ndarray:
    return np.pad(picture, ((3, 3), (3, 3), (0, 0)), constant_values=255)


def _write(picture: np.ndarray, file: Path) -> Path:
    if not cv2.imwrite(str(file), picture[..., ::-1]):
        raise OSError(f'cannot write {file}')
    return file


def _save(figure: plt.Figure, file: Path) -> Path:
    figure.savefig(file, dpi=110)
    plt.close(figure)
    return file
