"""Tasks that are configs, the user's or of ``configs/protocols``: metric, place of the weights."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from vito_mm.checkpoint.config_parts import init_cfgs, is_pretrained, strictly, type_name
from vito_mm.transfer.checks import as_list
from vito_mm.transfer.tasks import PROTOCOL_TASKS, Task
from vito_mm.utils.configs import read_config
from vito_mm.utils.text import reason_text

_NEEDED = (
    *('model.backbone.type', 'train_cfg', 'train_dataloader.dataset', 'optim_wrapper.optimizer'),
    *('val_dataloader.dataset', 'val_evaluator', 'val_cfg'),
)

_COCO = dict(bbox=('bbox_mAP', 'box mAP'), segm=('segm_mAP', 'mask mAP'))
_LVIS = dict(bbox=('bbox_AP', 'box mAP'), segm=('segm_AP', 'mask mAP'))
INSTANCES = dict(
    CocoMetric=('coco', _COCO), FasterLVISMetric=('lvis', _LVIS), LVISMetric=('lvis', _LVIS)
)
"""Prefix and metrics of mmdet's evaluators, by their type."""


def read_own(name: str, config: str) -> Config:
    """Read a config that is to be a task.

    Raises:
        ValueError: If there is none, or it lacks a part that a run needs.
    """
    try:
        cfg = read_config(config)
    except Exception as error:  # whatever a config file may raise
        raise ValueError(f'--tasks {name}={config}: {reason_text(error)}') from None
    missing = [key for key in _NEEDED if _value(cfg, key) is None]
    if missing:
        raise ValueError(f'--tasks {name}={config}: the config has no {", ".join(missing)}')
    return cfg


def own_task(name: str, config: str, cfg: Config) -> Task:
    """Make a task of a config, with the metric of its evaluator.

    Raises:
        ValueError: If it is of another package, or nothing says which metric is the score.
    """
    where = f'--tasks {name}={config}'
    package = cfg.get('default_scope') or _package_of(cfg.model['type'])
    if package not in ('mmseg', 'mmdet'):
        raise ValueError(
            f'{where}: it is a config of {package}, and tasks are of mmseg or mmdet (default_scope)'
        )
    metrics = _metrics_of(cfg, package, where)
    if not metrics:
        kinds = ', '.join(map(type_name, as_list(cfg.val_evaluator)))
        raise ValueError(
            f'{where}: which metric of {kinds} is the score? Set it as '
            f'--cfg-options {name}:default_hooks.checkpoint.save_best=METRIC, as it is logged'
        )
    (metric, label, scale), *others = metrics
    also = tuple(name for name, *_ in others)
    title = PROTOCOL_TASKS.get(name, name)
    return Task(name, title, package, metric, label, scale, config, also)


def fit_settings(cfg: Config, task: Task) -> tuple[dict[str, str], list[str]]:
    """Settings, as text by key, that let a config start from a checkpoint alone; and remarks.

    Raises:
        ValueError: If something is missing that cannot be guessed.
    """
    name, settings, remarks = task.name, {}, []
    backbone = cfg.model.backbone
    for key, value in strictly(full_name(backbone['type'])).items():
        settings[f'model.backbone.{key}'] = value
    if settings:
        remarks.append(f'{type_name(backbone)} becomes {" ".join(settings.values())}')
        imports = as_list((cfg.get('custom_imports') or {}).get('imports'))
        if 'vito_mm' not in imports:
            settings['custom_imports.imports'] = f'[{",".join([*imports, "vito_mm"])}]'
    if not cfg.get('default_scope'):  # a pure Python config
        settings['default_scope'] = task.package
    # Random weights are to be random, and others to be those of the checkpoint alone.
    others = {'load_from': cfg.get('load_from')}
    for place, part in (('model', cfg.model), ('model.backbone', backbone)):
        others[f'{place}.pretrained'] = part.get('pretrained')
        others[f'{place}.init_cfg'] = next(filter(is_pretrained, init_cfgs(part)), None)
    dropped = [key for key, value in others.items() if value]
    settings |= dict.fromkeys(dropped, 'None')
    remarks += [f'{key} is dropped' for key in dropped]
    if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
        batch = cfg.train_dataloader.get('batch_size')
        if batch is None:
            raise ValueError(
                f'{name}: train_dataloader has no batch_size. Set --cfg-options '
                f'{name}:auto_scale_lr.base_batch_size=16, the batch over all GPUs'
            )
        settings['auto_scale_lr.base_batch_size'] = str(batch)
        remarks.append(
            f'without auto_scale_lr.base_batch_size the batch over all GPUs is {batch}, that of one'
        )
    visualizer = cfg.get('visualizer') or {}
    backends = [type_name(each) for each in as_list(visualizer.get('vis_backends'))]
    if backends and 'LocalVisBackend' not in backends:
        raise ValueError(
            f"{name}: the suite reads what dict(type='LocalVisBackend') logs. Add it to "
            'visualizer.vis_backends'
        )
    return settings, remarks


def checkpoint_settings(cfg: Config) -> dict[str, str]:
    """Settings for the place and frequency of checkpoints, which the suite resumes from."""
    hook = _value(cfg, 'default_hooks.checkpoint') or {}
    settings = {}
    if not hook.get('interval', -1) > 0:
        steps = cfg.train_cfg.get('max_iters')
        settings['interval'] = str(max(1, steps // 10)) if steps else '1'
        settings['by_epoch'] = str(not steps)
    # The score is that of the last evaluation, so no other checkpoint is kept.
    settings |= {key: 'None' for key in ('save_best', 'out_dir') if hook.get(key)}
    return {f'default_hooks.checkpoint.{key}': value for key, value in settings.items()}


def full_name(kind: Any) -> str:
    """Type of a part of a config as a registry takes it, also where it is the class itself."""
    return kind if isinstance(kind, str) else f'{kind.__module__}.{kind.__qualname__}'


def _metrics_of(cfg: Config, package: str, where: str) -> list[tuple[str, str, float]]:
    """Metrics that are logged, the score first: name, label, and scale to percent."""
    for evaluator in as_list(cfg.val_evaluator):
        kind = type_name(evaluator)
        if kind == 'IoUMetric':
            names = [(name, name) for name in as_list(evaluator.get('iou_metrics', 'mIoU'))]
            prefix, scale = evaluator.get('prefix'), 1.0
        elif kind in INSTANCES:
            default, known = INSTANCES[kind]
            asked = as_list(evaluator.get('metric', 'bbox'))
            names = [known[each] for each in known if each in asked]
            prefix, scale = evaluator.get('prefix') or default, 100.0
        else:
            continue
        if names:
            return [(f'{prefix}/{name}' if prefix else name, label, scale) for name, label in names]
    best = as_list(_value(cfg, 'default_hooks.checkpoint.save_best'))
    if not best or best[0] == 'auto':
        return []
    rules = as_list(_value(cfg, 'default_hooks.checkpoint.rule'))
    if rules[:1] == ['less'] or (not rules and 'loss' in best[0].lower()):  # as MMEngine has it
        raise ValueError(
            f'{where}: of {best[0]}, which default_hooks.checkpoint.save_best names, less is '
            "better (rule='less'), and the suite takes the highest score. Name another metric"
        )
    # mmdet's metrics are fractions, but for panoptic quality; mmseg's are percentages.
    is_fraction = package == 'mmdet' and not best[0].endswith(('PQ', 'SQ', 'RQ'))
    return [(best[0], best[0], 100.0 if is_fraction else 1.0)]


def _package_of(kind: Any) -> str:
    name = full_name(kind)
    return name.partition('.')[0] if '.' in name else 'no package'


def _value(cfg: Config, key: str) -> Any:
    """Value of a key with dots; None where there is none."""
    node: Any = cfg
    for name in key.split('.'):
        node = node.get(name) if isinstance(node, Mapping | Config) else None
    return node
