"""Variants of a task: a part of the labels, a frozen backbone, rates that fall with depth."""

from collections.abc import Iterator, Sequence

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from vito_mm.checkpoint.config_parts import parts_of, placed_datasets, type_name
from vito_mm.transfer.checks import quiet
from vito_mm.transfer.labels import TrainingImages
from vito_mm.transfer.own_task import full_name
from vito_mm.transfer.tasks import Task

LAYER_DECAY = {
    'optim_wrapper.constructor': 'vito_mm.TrainableParamsConstructor',
    'optim_wrapper.paramwise_cfg.layer_decay_rate': '1.0',
}
"""Settings under which ``layer_decay`` of a sweep is a key of the config."""

FROZEN = {'model.backbone.frozen': 'True'}
"""Settings under which nothing of the backbone is trained."""

_CONSTRUCTORS = ('', 'DefaultOptimWrapperConstructor', 'TrainableParamsConstructor')


def label_settings(cfg: Config, labels: float, seed: int | None = None) -> dict[str, str]:
    """Settings, as text by key, that leave a part of the labelled training images.

    Args:
        cfg (Config): Config of the task with all labels.
        labels (float): Percent; 100 needs no settings.
        seed (int, optional): Seed of the draw, of which alone the settings then are.
    """
    settings: dict[str, str] = {}
    if labels == 100:
        return settings
    for key, leaf in placed_datasets(cfg.train_dataloader.dataset, 'train_dataloader.dataset'):
        if seed is not None:
            settings[f'{key}.subset_seed'] = str(seed)
            continue
        settings[f'{key}.type'] = 'vito_mm.LabelledFraction'
        settings[f'{key}.stock'] = full_name(leaf['type'])
        settings[f'{key}.fraction'] = str(labels / 100)
    return settings


def part_problems(
    task: Task, images: TrainingImages, labels: Sequence[float], batch: int
) -> Iterator[str]:
    """Parts of the labels that are too small to learn from."""
    for part in labels:
        count = sum(max(1, round(each * part / 100)) for each in images.counts)
        text = f'{task.title}: {part:g} % of {sum(images.counts)} labelled images are {count}'
        if count < images.classes:
            yield f'{text}, and {images.classes} classes are to be learnt. Give --labels more'
        elif count < batch:
            yield f'{text}, less than a batch of {batch}. Give --labels more'


def part_notes(cfg: Config, task: Task) -> Iterator[str]:
    """Data sets that give parts of the labels epochs of other lengths."""
    is_by_class = any(
        type_name(part) == 'ClassBalancedDataset'
        for _, part in parts_of(cfg.train_dataloader.dataset, '')
    )
    if is_by_class and 'max_epochs' in cfg.train_cfg:
        yield (
            f'{task.title}: ClassBalancedDataset repeats images by the frequency of their classes '
            'in each part of the labels, so the number of steps differs between the parts'
        )


def decay_problems(cfg: Config, task: Task, rates: Sequence[str]) -> Iterator[str]:
    """Rates out of (0, 1], and configs whose constructor or backbone does not take them."""
    from vito_mm.engine.layer_depth import layer_depths

    for rate in rates:
        try:
            if 0 < float(rate) <= 1:
                continue
        except ValueError:
            pass
        yield f'--layer-decay {rate}: give a number above 0, up to 1'
    kind = type_name(dict(type=cfg.optim_wrapper.get('constructor') or ''))
    if kind not in _CONSTRUCTORS:
        yield (
            f'--layer-decay: {task.title} has optim_wrapper.constructor={kind}, which sets its own '
            'rates. Set them there'
        )
    try:
        layer_depths(build_without_storage(cfg, dict(cfg.model.backbone, checkpoint=None)))
    except ValueError as error:
        yield f'--layer-decay: {task.title}: {error}'


def build_without_storage(cfg: Config, part: dict) -> nn.Module:
    """Build a part of a model on the meta device, or on the CPU if it computes while it is made."""
    with quiet(), DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        try:
            with torch.device('meta'):
                return MODELS.build(part)
        except (RuntimeError, NotImplementedError):  # Swin asks for values of a linspace
            return MODELS.build(part)


_STATES = {'SGD': 1, 'LARS': 1, 'ForeachLARS': 1}
"""Numbers that an optimizer keeps for each parameter; others are counted with two, as Adam's."""


def checkpoint_bytes(cfg: Config) -> tuple[int, int]:
    """Size of a run's checkpoints: with the optimizer's state, and of the weights alone."""
    model = build_without_storage(cfg, cfg.model)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    states = _STATES.get(str(cfg.optim_wrapper.optimizer.type), 2)
    return weights * (1 + states), weights
