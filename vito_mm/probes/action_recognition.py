"""Fine-tuning on videos in class folders by the protocol of configs/protocols/ucf101_r50.py."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from vito_mm.checkpoint.config_check import RESNETS
from vito_mm.checkpoint.config_parts import placed_datasets, strictly, type_name
from vito_mm.launch import apply_options
from vito_mm.utils.configs import read_config
from vito_mm.utils.hashing import sha256_of_file
from vito_mm.utils.quiet import quiet_logger

from .image_folders import ProbeError
from .loading import resnet_settings
from .training import write_scores
from .video_classifier import PUBLISHED, class_names, read_list

LISTS = 'ucfTrainTestlist'
"""Folder of UCF101's lists, in that of the data."""

_FOLDERS = ('UCF-101', 'videos')  # of the classes in that of the data, if they are not in it


@dataclass(frozen=True)
class VideoSplit:
    """Videos to train on and to test with.

    Attributes:
        root (Path): Folder of the class folders.
        train (Path): List of videos, see :func:`.video_classifier.read_list`.
        test (Path): Likewise.
        classes (list[str]): Classes in the order of their numbers.
    """

    root: Path
    train: Path
    test: Path
    classes: list[str]

    def identity(self) -> dict[str, Any]:
        """Classes, and the content of the lists."""
        lists = [sha256_of_file(file) for file in (self.train, self.test)]
        return dict(classes=self.classes, lists=lists)


def find_split(
    folder: str | os.PathLike,
    train: str | os.PathLike | None = None,
    test: str | os.PathLike | None = None,
) -> VideoSplit:
    """Find the videos of a split, and check all of them.

    Args:
        folder: Folder with ``<class>/<video>``, or with that in ``UCF-101`` or ``videos``.
        train (optional): List of videos. Defaults to ``ucfTrainTestlist/trainlist01.txt`` in the
            folder.
        test (optional): Likewise, ``testlist01.txt``.

    Raises:
        ProbeError: If the folder, a list or videos are missing, or classes disagree; names all that
            is wrong.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise ProbeError(f'there is no folder of videos {folder}')
    root = next((folder / name for name in _FOLDERS if (folder / name).is_dir()), folder)
    lists = [
        Path(given or folder / LISTS / f'{name}list01.txt').absolute()
        for given, name in ((train, 'train'), (test, 'test'))
    ]
    problems = []
    for listed, option in zip(lists, ('--train-list', '--test-list'), strict=True):
        try:
            read_list(listed, root)
        except FileNotFoundError as error:
            problems.append(f'{error} ({option})')
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ProbeError('\n'.join(problems))
    orders = [class_names(root, listed) for listed in lists]
    if orders[0] != orders[1]:
        raise ProbeError(
            f'the classes next to {lists[0]} and {lists[1]} have different numbers: one '
            'classInd.txt belongs to both'
        )
    return VideoSplit(root, *lists, orders[0])


def read_protocol(file: str | os.PathLike, options: Sequence[str] = ()) -> Config:
    """Read a config of fine-tuning on videos.

    Args:
        file: Config such as ``ucf101_r50.py``.
        options (Sequence[str]): ``key=value`` words that override the config. Defaults to none.

    Raises:
        ProbeError: If there is no such file, or it is no such config.
        ValueError: If an option is no ``key=value``.
    """
    try:
        cfg = read_config(file)
    except FileNotFoundError as error:
        raise ProbeError(str(error)) from None
    apply_options(cfg, options)
    kind = type_name(cfg.get('model'))
    loaders = [cfg.get(f'{part}_dataloader') or {} for part in ('train', 'val')]
    datasets = [
        type_name(dataset)
        for loader in loaders
        for _, dataset in placed_datasets(loader.get('dataset') or {}, '')
    ]
    if kind != 'FrameAverageClassifier' or datasets != ['ClassFolderVideos'] * 2:
        raise ProbeError(
            f'{file} does not fine-tune a FrameAverageClassifier on ClassFolderVideos: take '
            'ucf101_r50.py, or a config with it as _base_'
        )
    return cfg


def protocol_config(
    cfg: Config,
    videos: VideoSplit,
    checkpoint: str | os.PathLike | None,
    work_dir: str | os.PathLike,
    epochs: int | None = None,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    which: str = 'online',
    seed: int = 0,
    backbone: str | None = None,
    depth: int | None = None,
    base_channels: int | None = None,
    like: str | os.PathLike | None = None,
) -> Config:
    """Complete a config of fine-tuning by data and network, and open the network.

    Args:
        cfg (Config): What :func:`read_protocol` returned; not changed.
        videos (VideoSplit): The data.
        checkpoint: Checkpoint file, or None for random weights.
        work_dir: Folder of the run.
        epochs (int, optional): Epochs; those of the classifier alone, and those at which the rate
            falls, keep their share of them. Defaults to the config's.
        size (int, optional): Side of the frames; they are cut out of 8 / 7 of it. Defaults to the
            config's.
        batch_size (int, optional): Videos per step. Defaults to the config's.
        workers (int, optional): Data workers. Defaults to the config's.
        which (str): ``'online'`` or ``'target'`` network. Defaults to 'online'.
        seed (int): Seed of the run, and of random weights. Defaults to 0.
        backbone (str, optional): Network of the weights, see :func:`.loading.load_encoder`.
            Defaults to the config's with the depth and width of the file, or to that of a file with
            another network.
        depth (int, optional): Depth of the config's ResNet. Defaults to that of the checkpoint or
            of ``like``, or else the config's.
        base_channels (int, optional): Width of its stem and first stage, likewise.
        like (optional): File whose network random weights are of.

    Raises:
        ProbeError: If the network does not take frames of this size.
        CheckpointError: If the checkpoint does not fit the network.
    """
    cfg = Config(cfg._cfg_dict.to_dict(), filename=cfg.filename)
    for loader, listed in (('train_dataloader', videos.train), ('val_dataloader', videos.test)):
        loader = cfg[loader]
        ((_, dataset),) = placed_datasets(loader.dataset, '')
        dataset.update(data_root=os.fspath(videos.root), ann_file=os.fspath(listed))
        for step in dataset.pipeline if size else ():
            if type_name(step) == 'PackClips':
                step.size = size
            elif type_name(step) == 'DecodeFrames':
                step.short_side = size * 8 // 7
        if workers is not None:
            loader.update(num_workers=workers, persistent_workers=workers > 0)
    if batch_size is not None:
        cfg.train_dataloader.batch_size = batch_size
    if epochs is not None:
        _scale(cfg, epochs)
    shape = dict(depth=depth, base_channels=base_channels, stem_channels=base_channels)
    part, changes = _backbone(
        cfg.model.backbone,
        None if checkpoint is None else os.path.abspath(checkpoint),
        dict(which=which, seed=seed, network=backbone),
        {name: value for name, value in shape.items() if value is not None},
        like,
    )
    side = next(s.size for s in dataset.pipeline if type_name(s) == 'PackClips')
    channels = _channels(part, side, seed)
    cfg.model.backbone = part  # an update would keep settings of the other one
    cfg.model.update(changes, in_channels=channels, num_classes=len(videos.classes))
    for evaluator in _listed(cfg.val_evaluator):
        if type_name(evaluator) == 'Accuracy':
            evaluator.topk = tuple(k for k in (1, 5) if k <= len(videos.classes))
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    # MMEngine keeps one visualizer a name, with the folder of the first run of the process.
    cfg.get('visualizer', {}).pop('name', None)
    cfg.launcher, cfg.work_dir = 'none', os.fspath(work_dir)
    cfg.load_from, cfg.resume, cfg.randomness = None, False, dict(seed=seed)
    return cfg


def scores(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics of the evaluation by the names of tables: top-1, top-5."""
    names = {'accuracy/top1': 'top-1', 'accuracy/top5': 'top-5'}
    return {names.get(name, name): value for name, value in metrics.items()}


def write_report(folder: Path, results: Mapping[str, Mapping[str, float]]) -> Path:
    """Write the scores of networks; see :func:`.training.write_scores`."""
    text = (
        "Networks fine-tuned on videos by CycleContrast's protocol, which the paper follows: a "
        'linear classifier of the mean of frame features, ten clips of each test video. In percent.'
    )
    published = 'Published, on UCF101, split 1', 'top-1', PUBLISHED
    return write_scores(folder, 'ucf101', 'Action recognition', text, results, published)


def _backbone(
    own: Mapping[str, Any],
    checkpoint: str | None,
    named: Mapping[str, Any],
    size: Mapping[str, int],
    like: str | os.PathLike | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The backbone's config with its weights, and what it changes in the model around it."""
    which, file = named['which'], checkpoint or like
    found, pixels = resnet_settings(file, which)
    is_resnet = type_name(own) in ('VITOResNet', *RESNETS)
    is_bgr = pixels.get('channel_order') == 'bgr'
    if named['network'] is not None or is_bgr or (is_resnet and file and 'depth' not in found):
        is_like = named['network'] is None and checkpoint is None
        part = dict(named, type='vito_mm.TrainedEncoder', keep=not is_like)
        part['checkpoint'] = os.path.abspath(like) if is_like else checkpoint
        return part, dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    part = {k: v for k, v in own.items() if k not in ('init_cfg', 'pretrained')}
    part |= strictly(part['type']) | dict(checkpoint=checkpoint, which=which)
    if is_resnet:
        part |= found | size
    return part, {name: tuple(pixels[name]) for name in ('mean', 'std') if pixels}


def _channels(part: Mapping[str, Any], side: int, seed: int) -> int:
    """Open a backbone as the run will, and count the channels of its last feature map."""
    with (
        torch.random.fork_rng(devices=[]),
        quiet_logger('WARNING'),
        DefaultScope.overwrite_default_scope('mmpretrain'),
        torch.no_grad(),
    ):
        torch.manual_seed(seed)
        backbone = MODELS.build(part)
        backbone.init_weights()
        backbone.eval()
        try:
            return backbone(torch.zeros(1, 3, side, side))[-1].shape[1]
        except AssertionError as error:  # by which transformers refuse sizes
            raise ProbeError(
                f'--size: the network does not take frames of {side} pixels: {error}'
            ) from None


def _scale(cfg: Config, epochs: int) -> None:
    """Let a config train for so many epochs, by the same schedule in it."""
    share = epochs / cfg.train_cfg.max_epochs
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
    for hook in cfg.get('custom_hooks') or ():
        if type_name(hook) == 'ClassifierFirstHook':
            hook.epochs = round(share * hook.epochs)
    for scheduler in _listed(cfg.get('param_scheduler') or ()):
        if 'milestones' in scheduler:
            scheduler.milestones = [round(share * epoch) for epoch in scheduler.milestones]


def _listed(node: Any) -> Iterator[Any]:
    yield from node if isinstance(node, (list, tuple)) else (node,)
