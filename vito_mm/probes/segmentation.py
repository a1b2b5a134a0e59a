"""Linear segmentation on a frozen backbone, trained and evaluated by mmseg."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from vito_mm.checkpoint.config_parts import parts_of, type_name
from vito_mm.utils.quiet import quiet_logger

from .image_folders import ProbeError
from .loading import resnet_settings
from .training import write_scores

PUBLISHED = {
    'DINOv3 ViT-S/16': 47.0,
    'DINOv3 ConvNeXt-T': 42.7,
    'PooDLe ResNet-50, walking tours': 16.5,
    'DINO ResNet-50, ImageNet': 15.7,
}
"""mIoU on ADE20K of a frozen network by a linear head: https://arxiv.org/abs/2508.10104 and, of
ResNet-50, by PooDLe's own schedule, https://arxiv.org/abs/2408.11208."""


@dataclass(frozen=True)
class Recipe:
    """Training and evaluation of a linear head.

    Attributes:
        steps (int): Training steps.
        lr (float): Highest learning rate.
        weight_decay (float): Of AdamW.
        is_dinov3 (bool): As DINOv3 has it: the rate warms up in the first 3.75 % of the steps and
            falls along a cosine, a tenth of the channels is left out in training, batch norm has
            parameters, training crops are squares, and windows of their size, which overlap by a
            third, are evaluated. Otherwise the rate falls from the start (power 0.9), the norm has
            no parameters, and crops and windows are the config's.
    """

    steps: int
    lr: float
    weight_decay: float
    is_dinov3: bool = False


RECIPES = {
    'short': Recipe(2000, 1e-2, 1e-4),
    'dinov3': Recipe(40_000, 1e-3, 1e-3, is_dinov3=True),
}
"""``short`` is that of this package. ``dinov3`` is that of https://github.com/facebookresearch/dinov3
(config-ade20k-linear-training.yaml), up to two things that the libraries do otherwise: in the
warm-up, the rate falls along the cosine as well and not along a line (a difference of 3.5 % at
most), and of overlapping windows logits are averaged and not probabilities."""


def probe_config(
    cfg: Config,
    checkpoint: str | os.PathLike | None,
    work_dir: str | os.PathLike,
    stages: Sequence[int] | None = None,
    steps: int | None = None,
    lr: float | None = None,
    batch_size: int = 16,
    workers: int | None = None,
    depth: int | None = None,
    which: str = 'online',
    seed: int = 0,
    backbone: str | None = None,
    base_channels: int | None = None,
    like: str | os.PathLike | None = None,
    recipe: str = 'short',
    size: int = 512,
) -> Config:
    """Turn a segmentation config into that of a linear probe.

    The backbone keeps the config's strides and dilations, is a VITOResNet filled from the
    checkpoint, and is frozen with its batch norm in evaluation mode; one that is named is a
    :class:`.linear_segmentation_head.FrozenEncoder`. Either gets the preprocessing of its weights,
    where that is known.
    The head is a :class:`.linear_segmentation_head.LinearSegmentationHead`; auxiliary head and neck
    go.
    AdamW with the schedule of the recipe replaces the config's, and one evaluation comes at the
    end. Data and metric stay, but for the crops and windows of a recipe that has its own. Hooks of
    the config go, and so does what would load other weights over the checkpoint's.

    Args:
        cfg (Config): Not changed, see :func:`.segmentation_config.read_segmentation_config`.
        checkpoint: Checkpoint file, or None for random weights.
        work_dir: Folder of the run.
        stages (Sequence[int], optional): Stages whose features are used, 1 to 4 for ``layer1`` to
            ``layer4``, or blocks of a transformer, from 1; several are resized to the first and
            concatenated. Defaults to None, the last feature map, after the network's final norm.
        steps (int, optional): Training steps. Defaults to the recipe's.
        lr (float, optional): Highest learning rate. Defaults to the recipe's.
        batch_size (int): Images per step. Defaults to 16.
        workers (int, optional): Data workers. Defaults to the config's.
        depth (int, optional): Depth of the ResNet. Defaults to that of the checkpoint or of
            ``like``, or else the config's.
        which (str): ``'online'`` or ``'target'`` network. Defaults to 'online'.
        seed (int): Seed of the run. Defaults to 0.
        backbone (str, optional): Network of the weights, see :func:`.loading.load_encoder`.
            Defaults to the config's ResNet.
        base_channels (int, optional): Width of its stem and first stage. Defaults as ``depth``.
        like (str, optional): File whose ResNet random weights are of. Defaults to the config's.
        recipe (str): Key of :data:`RECIPES`. Defaults to 'short'.
        size (int): Side of the crops and windows of ``'dinov3'``. Defaults to 512.

    Raises:
        ProbeError: If the backbone has no such stage, or does not take images of this size.
        CheckpointError: If the checkpoint does not fit a named backbone.
    """
    cfg = Config(cfg._cfg_dict.to_dict(), filename=cfg.filename)
    head, plan = cfg.model.decode_head, RECIPES[recipe]
    steps, lr = steps or plan.steps, lr or plan.lr
    checkpoint = None if checkpoint is None else os.path.abspath(checkpoint)
    preprocessor = cfg.model.get('data_preprocessor') or {}
    if backbone is None:
        own, pixels = resnet_settings(checkpoint or like, which)
        own |= {} if depth is None else dict(depth=depth)
        if base_channels is not None:
            own |= dict(stem_channels=base_channels, base_channels=base_channels)
        part, channels = _frozen_resnet(cfg.model.backbone, checkpoint, stages, own, which)
        # Of a file that does not tell, the config's input stands.
        is_known = pixels and not pixels.get('assumed')
        changes = _normalisation(**pixels) if is_known else {}
    else:
        part = dict(network=backbone, checkpoint=checkpoint, which=which, seed=seed)
        part['layers'] = [stage - 1 for stage in sorted(set(stages))] if stages else ['last']
        channels, changes = _frozen_encoder(part, size if plan.is_dinov3 else None)
        part['type'] = 'vito_mm.FrozenEncoder'
    if changes:
        kept = {name: value for name, value in preprocessor.items() if name != 'rgb_to_bgr'}
        preprocessor = dict(type='SegDataPreProcessor') | kept | changes
    cfg.model = dict(
        type='EncoderDecoder',
        data_preprocessor=preprocessor or None,
        backbone=part,
        decode_head=_linear_head(head[-1] if isinstance(head, list) else head, channels, plan),
        train_cfg=dict(),
        test_cfg=cfg.model.get('test_cfg') or dict(mode='whole'),
    )
    if plan.is_dinov3:
        _cut_into_squares(cfg, size)
    # The registering module is named, so that the file in the work dir can be read by itself.
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    ours = ['vito_mm', 'vito_mm.probes.linear_segmentation_head']
    cfg.custom_imports = dict(
        imports=imports + [name for name in ours if name not in imports],
        allow_failed_imports=False,
    )
    cfg.train_dataloader.batch_size = batch_size
    # An epoch's sampler would be restarted, with a pause of two seconds, after each epoch.
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.train_dataloader.pop('batch_sampler', None)
    if workers is not None:
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.num_workers, loader.persistent_workers = workers, workers > 0
            if not workers:
                loader.pop('prefetch_factor', None)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=steps)
    cfg.val_cfg = dict(type='ValLoop')
    cfg.optim_wrapper = dict(
        type='OptimWrapper', optimizer=dict(type='AdamW', lr=lr, weight_decay=plan.weight_decay)
    )
    cfg.param_scheduler = _schedule(plan, steps)
    cfg.default_hooks = dict(
        timer=dict(type='IterTimerHook'),
        logger=dict(type='LoggerHook', interval=max(1, min(50, steps // 10))),
        param_scheduler=dict(type='ParamSchedulerHook'),
        checkpoint=dict(
            type='vito_mm.AtomicCheckpointHook',
            by_epoch=False,
            interval=min(steps, 2000),
            max_keep_ckpts=1,
        ),
        sampler_seed=dict(type='DistSamplerSeedHook'),
    )
    cfg.custom_hooks = []
    cfg.log_processor = dict(by_epoch=False)
    # MMEngine keeps one visualizer a name, with the folder of the first run of the process.
    cfg.get('visualizer', {}).pop('name', None)
    cfg.default_scope, cfg.launcher, cfg.work_dir = 'mmseg', 'none', os.fspath(work_dir)
    cfg.load_from, cfg.resume, cfg.randomness = None, False, dict(seed=seed)
    return cfg


def check_probe(cfg: Config) -> None:
    """Load the backbone of :func:`probe_config` as its run will; a CheckpointError comes first."""
    import mmseg.models  # noqa: F401  registers the losses and layers that configs name

    from . import linear_segmentation_head  # noqa: F401  registers the backbone

    with DefaultScope.overwrite_default_scope('mmseg'), quiet_logger():
        MODELS.build(cfg.model.backbone).init_weights()


def in_order(metrics: Mapping[str, float]) -> dict[str, float]:
    """The figure that segmentation is compared by first, where the evaluator gives it."""
    return dict(sorted(metrics.items(), key=lambda item: item[0] != 'mIoU'))


def write_report(
    folder: Path, results: Mapping[str, Mapping[str, float]], recipe: str = 'dinov3'
) -> Path:
    """Write the scores of networks by a recipe; see :func:`.training.write_scores`."""
    if not RECIPES[recipe].is_dinov3:
        text = (
            'A linear head on feature maps of frozen networks: batch norm without parameters and a '
            '1x1 convolution, trained by AdamW. In percent.'
        )
        return write_scores(folder, 'segment', 'Linear segmentation', text, results)
    text = (
        "A linear head on the last feature map of frozen networks, by DINOv3's recipe: batch norm "
        'and a 1x1 convolution, trained by AdamW, and evaluated in overlapping windows. In percent.'
    )
    published = 'Published, on ADE20K val', 'mIoU', PUBLISHED
    return write_scores(
        folder, 'linear_segmentation', 'Linear segmentation', text, results, published
    )


def _frozen_resnet(
    backbone: Mapping[str, Any],
    checkpoint: str | None,
    stages: Sequence[int] | None,
    own: Mapping[str, Any],
    which: str,
) -> tuple[dict[str, Any], list[int]]:
    """The backbone's config with the checkpoint, frozen to the last stage, and its channels."""
    kept = {k: v for k, v in backbone.items() if k not in ('init_cfg', 'pretrained')} | own
    num_stages = backbone.get('num_stages', 4)
    stages = sorted(set(stages or [num_stages]))
    if not 1 <= stages[0] <= stages[-1] <= num_stages:
        raise ProbeError(f'--stages must be among 1 to {num_stages}, got {stages}')
    expansion = 1 if kept['depth'] < 50 else 4
    width = kept.get('base_channels', 64) * expansion
    frozen = dict(
        kept,
        type='VITOResNet',
        checkpoint=checkpoint,
        which=which,
        frozen_stages=num_stages,
        norm_eval=True,
        out_indices=tuple(stage - 1 for stage in stages),
    )
    return frozen, [width * 2 ** (stage - 1) for stage in stages]


def _frozen_encoder(
    settings: Mapping[str, Any], size: int | None
) -> tuple[list[int], dict[str, Any]]:
    """Channels of a named network, and what it changes in the data preprocessor."""
    from .linear_segmentation_head import FrozenEncoder

    module = FrozenEncoder(**settings)
    side, preprocessing = size or module.encoder.view.crop, module.encoder.preprocess
    with torch.no_grad():
        try:
            maps = module(torch.zeros(1, 3, side, side))
        except ValueError as error:
            raise ProbeError(f'--stages: {error}') from None
        except AssertionError as error:  # by which transformers refuse sizes
            raise ProbeError(
                f'--size: the network does not take images of {side} pixels: {error}'
            ) from None
    pixels = preprocessing.mean, preprocessing.std, preprocessing.channel_order
    # Transformers take whole patches.
    divisor = dict(size_divisor=max(side // features.shape[2] for features in maps))
    return [features.shape[1] for features in maps], _normalisation(*pixels) | dict(
        test_cfg=divisor
    )


def _normalisation(
    mean: Sequence[float], std: Sequence[float], channel_order: str
) -> dict[str, Any]:
    """The settings of mmseg's data preprocessor that normalise as weights were trained."""
    return dict(mean=list(mean), std=list(std), bgr_to_rgb=channel_order == 'rgb')


def _schedule(plan: Recipe, steps: int) -> list[dict[str, Any]]:
    if not plan.is_dinov3:
        return [dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=steps, by_epoch=False)]
    cosine = dict(type='CosineAnnealingLR', T_max=steps, begin=0, end=steps, by_epoch=False)
    warm_up = dict(type='LinearLR', start_factor=1e-6, begin=0, by_epoch=False)
    last = round(steps * 1500 / 40_000)  # the first step at the whole rate, before MMEngine's end
    return [warm_up | dict(end=last + 1), cosine] if last else [cosine]


def _cut_into_squares(cfg: Config, size: int) -> None:
    """Let training take random squares, and evaluation overlapping ones."""
    square = (size, size)
    for _, part in parts_of(cfg.train_dataloader.dataset, ''):
        if not (pipeline := part.get('pipeline')):
            continue
        crops = [step for step in pipeline if type_name(step) == 'RandomCrop']
        for step in crops:
            step['crop_size'] = square
        if not crops:
            pipeline.insert(-1, dict(type='RandomCrop', crop_size=square, cat_max_ratio=0.75))
    if cfg.model.data_preprocessor:
        cfg.model.data_preprocessor.pop('size_divisor', None)
        cfg.model.data_preprocessor.size = square
    stride = 2 * size // 3
    cfg.model.test_cfg = dict(mode='slide', crop_size=square, stride=(stride, stride))


def _linear_head(head: Mapping[str, Any], channels: Sequence[int], plan: Recipe) -> dict[str, Any]:
    """The config of the head, for feature maps of so many channels."""
    several = len(channels) > 1
    own = dict(dropout_ratio=0.1, norm_cfg=dict(type='SyncBN', requires_grad=True))
    return dict(
        type='vito_mm.LinearSegmentationHead',
        in_channels=channels if several else channels[0],
        in_index=list(range(len(channels))) if several else 0,
        input_transform='resize_concat' if several else None,
        num_classes=head['num_classes'],
        out_channels=head['num_classes'],
        ignore_index=head.get('ignore_index', 255),
        align_corners=head.get('align_corners', False),
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, avg_non_ignore=True),
        **(own if plan.is_dinov3 else {}),
    )
