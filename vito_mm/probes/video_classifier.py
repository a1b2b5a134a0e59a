"""Action recognition by the mean of frame features, fine-tuned: UCF101.

The protocol is that of CycleContrast (https://arxiv.org/abs/2105.06463), which the paper follows
for UCF101 (https://arxiv.org/abs/1212.0402): see configs/protocols/ucf101_r50.py.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torchvision.transforms import v2

from vito_mm.datasets import VideoDataset
from vito_mm.datasets.transforms.base import Transform
from vito_mm.registry import DATASETS, HOOKS, MODELS, TRANSFORMS
from vito_mm.utils.text import first_few
from vito_mm.utils.unwrap import unwrap
from vito_mm.videos import Manifest
from vito_mm.videos.names import is_hidden

from .loading import load_encoder

PUBLISHED = {'VITO ResNet-50': 85.3, 'CycleContrast ResNet-50': 82.1, 'MoCo ResNet-50': 80.5}
"""Top-1 on UCF101, split 1: https://arxiv.org/abs/2210.06433, table 3."""


CLASS_LIST = 'classInd.txt'
"""Name of UCF101's list of classes and their numbers, from 1."""


@DATASETS.register_module()
class ClassFolderVideos(VideoDataset):
    """Videos in class folders, those that a list names, as UCF101 has them.

    Args:
        data_root (str): Folder with ``<class>/<video>``.
        ann_file (str): List of videos, see :func:`read_list`. Relative to ``data_root`` unless
            found as it is.
        **kwargs: Keywords of :class:`vito_mm.datasets.VideoDataset`.

    Raises:
        FileNotFoundError: If the list or a video is missing.
        ValueError: If classes of the list, of the folders and of ``classInd.txt`` disagree.
    """

    def load_data_list(self) -> Manifest:
        """Read the list."""
        rows = read_list(self.ann_file, self.data_root)
        return Manifest.from_rows(rows, source=self.ann_file)


def read_list(listed: str | os.PathLike, root: str | os.PathLike) -> list[dict[str, Any]]:
    """Read the list of a part of a data set of videos.

    Args:
        listed: One video a line, relative to ``root`` or by its full path below it; the number of
            its class, from 1 as UCF101 has it or from 0, may follow after a blank.
        root: Folder with ``<class>/<video>``.

    Returns:
        list[dict]: Rows with ``path`` and ``label``, the place of the class among
        :func:`class_names`.

    Raises:
        FileNotFoundError: If the list or a video is missing.
        ValueError: If the list names no video or one outside the class folders, or classes
            disagree: see :func:`class_names`.
    """
    listed, root = Path(listed), Path(root)
    if not listed.is_file():
        raise FileNotFoundError(f'there is no list of videos {listed}')
    lines = [line.strip() for line in listed.read_text(encoding='utf-8').splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise ValueError(f'{listed} names no video')
    named = [re.fullmatch(r'(.+?)(?:\s+(\d+))?', line) for line in lines]
    pairs = [
        (line, None) if (root / line).is_file() else found.groups()
        for line, found in zip(lines, named, strict=True)
    ]
    if missing := [name for name, _ in pairs if not (root / name).is_file()]:
        raise FileNotFoundError(
            f'{len(missing)} of the {len(pairs)} videos in {listed} are not below {root}: '
            f'{first_few(missing, 3)}'
        )
    classes = class_names(root, listed)
    places = {name: place for place, name in enumerate(classes)}
    rows = []
    for name, _ in pairs:
        folder = os.path.relpath(root / name, root).partition(os.sep)[0]
        if folder not in places:
            raise ValueError(
                f'{listed} names {name}, which is in no class folder of {root}: list videos as '
                'CLASS/VIDEO'
            )
        rows.append(dict(path=os.fspath(root / name), label=places[folder]))
    told = [(row, int(number)) for row, (_, number) in zip(rows, pairs, strict=True) if number]
    first = 0 if any(number == 0 for _, number in told) else 1
    for row, number in told:
        if number - first != row['label']:
            raise ValueError(
                f'{listed} gives {row["path"]} the number {number} of its class, which by '
                f'{_order_of(listed)} is {row["label"] + first}: put the {CLASS_LIST} of its '
                'numbers next to it, or leave the numbers out'
            )
    return rows


def class_names(root: str | os.PathLike, listed: str | os.PathLike) -> list[str]:
    """List the classes of a data set of videos in the order of their numbers.

    It is that of ``classInd.txt`` (lines of a number, from 1, and a class) next to a list of
    videos, or else that of the names.

    Args:
        root: Folder with ``<class>/<video>``. Hidden folders, and folders of nothing but text
            files, as of lists, are no classes.
        listed: The list.

    Raises:
        ValueError: If ``classInd.txt`` has other classes than there are folders, or its numbers are
            not those from 1.
    """
    folders = sorted(
        entry.name
        for entry in os.scandir(root)
        if entry.is_dir() and not is_hidden(entry.name) and _holds_data(entry.path)
    )
    file = Path(listed).parent / CLASS_LIST
    if not file.is_file():
        return folders
    pairs = [line.split(maxsplit=1) for line in file.read_text(encoding='utf-8').splitlines()]
    numbers = {pair[-1].strip(): pair[0] for pair in pairs if pair}
    if differ := sorted(numbers.keys() ^ set(folders)):
        raise ValueError(
            f'{file} and the folders in {root} have different classes: {first_few(differ, 3)} '
            'of one alone'
        )
    order = sorted(numbers, key=lambda name: (len(numbers[name]), numbers[name]))
    if [numbers[name] for name in order] != [str(n + 1) for n in range(len(order))]:
        raise ValueError(f'{file} does not number its {len(order)} classes from 1 on')
    return order


def _holds_data(folder: str) -> bool:
    """True unless there is nothing but text files in a folder and those within it."""
    return any(
        not name.lower().endswith('.txt') and not is_hidden(name)
        for _, _, names in os.walk(folder, followlinks=True)
        for name in names
    )


def _order_of(listed: Path) -> str:
    file = listed.parent / CLASS_LIST
    return os.fspath(file) if file.is_file() else 'the order of the folders'


@TRANSFORMS.register_module()
class SampleClips(Transform):
    """Choose the frames of clips at an even rate, without opening the file.

    **Added Keys:** segment, segment_start and segment_offsets, for
    :class:`vito_mm.datasets.DecodeFrames`.

    Args:
        num_frames (int): Frames of a clip. Defaults to 32.
        fps (float): Frames per second. Defaults to 16.
        num_clips (int, optional): Clips at even distances over the video. Defaults to None: one, at
            a random place.
    """

    def __init__(
        self, num_frames: int = 32, fps: float = 16.0, num_clips: int | None = None
    ) -> None:
        self.num_frames, self.fps, self.num_clips = num_frames, fps, num_clips

    def transform(self, results: dict) -> dict:
        """Add the moments to the results."""
        if self.num_clips is None:
            starts = np.random.uniform()
        else:
            starts = np.linspace(0, 1, self.num_clips) if self.num_clips > 1 else 0.5
        results['segment'] = self.num_frames / self.fps
        results['segment_start'] = starts
        results['segment_offsets'] = np.arange(self.num_frames) / self.fps
        return results


@TRANSFORMS.register_module()
class PackClips(Transform):
    """Augment the frames of each clip alike, or take their middle, and pack them.

    **Required Keys:** imgs (BGR frames of one or more clips), segment_offsets, gt_label.

    **Added Keys:** inputs, RGB, uint8, shape (clips, frames, 3, size, size), and data_samples.

    Args:
        size (int): Side in pixels. Defaults to 224.
        crop_area (tuple[float, float], optional): Range of the area of random crops; with it frames
            are also flipped and jittered. Defaults to None: resized to 8 / 7 of ``size`` and cut in
            the middle.
        jitter (Sequence[float]): Brightness, contrast, saturation and hue. Defaults to
            (0.4, 0.4, 0.4, 0.2).
    """

    def __init__(
        self,
        size: int = 224,
        crop_area: tuple[float, float] | None = None,
        jitter: Sequence[float] = (0.4, 0.4, 0.4, 0.2),
    ) -> None:
        self.size, self.crop_area, self.jitter = size, crop_area, tuple(jitter)
        if crop_area is None:
            steps = [v2.Resize(size * 8 // 7, antialias=True), v2.CenterCrop(size)]
        else:
            steps = [
                v2.RandomResizedCrop(size, scale=tuple(crop_area), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(*self.jitter),
            ]
        self.steps = v2.Compose(steps)

    def transform(self, results: dict) -> dict:
        """Pack the frames."""
        frames = torch.from_numpy(np.stack(results['imgs'])[..., ::-1].copy()).permute(0, 3, 1, 2)
        clips = frames.unflatten(0, (-1, len(results['segment_offsets'])))
        # PyTorch's generator decides; the data workers have one each.
        clips = torch.stack([self.steps(clip) for clip in clips])
        sample = DataSample()
        sample.set_gt_label(results['gt_label'])
        sample.set_field(results['video_path'], 'video_path', field_type='metainfo')
        return dict(inputs=clips, data_samples=sample)


@MODELS.register_module()
class FrameAverageClassifier(BaseModel):
    """A linear classifier of the mean, over a clip's frames, of a backbone's pooled features.

    Of a video, the probabilities of its clips are averaged.

    Args:
        backbone (dict): Backbone of mmpretrain; its last feature map is averaged.
        num_classes (int): Number of classes.
        in_channels (int): Channels of that feature map.
        dropout (float): Share of features left out while training. Defaults to 0.9.
        mean (Sequence[float]): Of RGB pixels in [0, 255]. Defaults to ImageNet's.
        std (Sequence[float]): Likewise.
        init_cfg (dict, optional): Defaults to None.
    """

    def __init__(
        self,
        backbone: dict,
        num_classes: int,
        in_channels: int,
        dropout: float = 0.9,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(in_channels, num_classes))
        self.is_backbone_frozen = False
        for name, values in (('mean', mean), ('std', std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> 'FrameAverageClassifier':
        """Switch to training; a backbone that is frozen stays in evaluation mode."""
        super().train(mode)
        if self.is_backbone_frozen:
            self.backbone.eval()
        return self

    def freeze_backbone(self, is_frozen: bool) -> None:
        """Stop or go on training the backbone."""
        self.is_backbone_frozen = is_frozen
        self.backbone.requires_grad_(not is_frozen)

    def forward(
        self,
        inputs: Tensor | list[Tensor],
        data_samples: list[DataSample] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Classify videos.

        Args:
            inputs (Tensor | list[Tensor]): Clips, RGB, uint8, (N, clips, frames, 3, H, W).
            data_samples (list[DataSample], optional): One per video.
            mode (str): 'loss', 'predict' or 'tensor', which gives logits (N, clips, K).
        """
        clips = torch.stack(inputs) if isinstance(inputs, list) else inputs
        images = (clips.flatten(0, 2).float() - self.mean) / self.std
        features = self.backbone(images)[-1].mean(dim=(2, 3))
        logits = self.classifier(features.unflatten(0, clips.shape[:3]).mean(dim=2))
        if mode == 'tensor':
            return logits
        if mode == 'loss':
            labels = torch.cat([sample.gt_label for sample in data_samples]).to(logits.device)
            repeated = labels.repeat_interleave(clips.shape[1])
            return dict(loss=F.cross_entropy(logits.flatten(0, 1), repeated))
        for sample, scores in zip(data_samples, logits.softmax(dim=2).mean(dim=1), strict=True):
            sample.set_pred_score(scores).set_pred_label(scores.argmax().view(1))
        return data_samples


@MODELS.register_module()
class TrainedEncoder(nn.Module):
    """A network of any kind, with the weights of a file, as a backbone that is trained.

    It takes RGB frames in [0, 255], as it holds the preprocessing of its weights: the mean of the
    classifier around it is 0 and the deviation 1. For the arguments see
    :func:`.loading.load_encoder`.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        which: str = 'online',
        network: str | None = None,
        keep: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = load_encoder(checkpoint, which, network, keep=keep, device='cpu', seed=seed)
        self.network = self.encoder.backbone.requires_grad_(True)

    def init_weights(self) -> None:
        """Do nothing: the weights are there."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Compute pooled features of frames (N, 3, H, W), a map of one position (N, C, 1, 1)."""
        inputs = self.encoder.preprocess(images)
        inputs = inputs.contiguous(memory_format=self.encoder.memory_format)
        return (self.encoder.compute(inputs, 'pooled')[:, :, None, None],)


@HOOKS.register_module()
class ClassifierFirstHook(Hook):
    """Trains the classifier alone in the first epochs.

    Args:
        epochs (int): Number of these epochs. Defaults to 5.
    """

    def __init__(self, epochs: int = 5) -> None:
        self.epochs = epochs

    def before_train_epoch(self, runner: Runner) -> None:
        """Freeze the backbone, or train it."""
        unwrap(runner.model).freeze_backbone(runner.epoch < self.epochs)
