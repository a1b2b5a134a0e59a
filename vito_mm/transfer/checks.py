"""What a fine-tuning run would stumble over, told from its config before it starts."""

import importlib.util
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope

from vito_mm.checkpoint.config_parts import parts_of
from vito_mm.transfer.tasks import Task
from vito_mm.utils.quiet import quiet_logger
from vito_mm.utils.text import near_text

from .options import SHORT_KEYS, parse_settings

LOADERS = ('train_dataloader', 'val_dataloader')
"""What a run reads."""

_STATES = {'SGD': 1, 'LARS': 1, 'ForeachLARS': 1}
"""Numbers that an optimizer keeps for each parameter; the others' are taken for two, as Adam's."""


def packages_problems(task: Task) -> Iterator[str]:
    """Packages that a task needs and that are not installed.

    Args:
        task (Task): The task.

    Yields:
        str: A problem.
    """
    extra = dict(mmseg='seg', mmdet='det')[task.package]
    needed = {task.package: extra}
    if task.name == 'lvis':
        needed |= dict(lvis='lvis', faster_coco_eval='lvis')
    for package, extra in needed.items():
        if importlib.util.find_spec(package) is None:
            yield f'{task.title} needs {package}: pip install "vito_mm[{extra}]"'


def key_problems(cfg: Config, keys: Sequence[str], where: str) -> Iterator[str]:
    """Keys of a sweep that the config does not have, and which would change nothing.

    Args:
        cfg (Config): Config of a task.
        keys (Sequence[str]): Keys with dots.
        where (str): Name of the config.

    Yields:
        str: A problem.
    """
    for key in keys:
        node: Any = cfg
        path: list[str] = []
        for part in key.split('.'):
            names = _names(node)
            if part not in names:
                place = '.'.join(path) or 'the config'
                yield f'--sweep {key}: {where} has no {part!r} in {place}{near_text(part, names)}'
                break
            node = node[int(part)] if isinstance(node, (list, tuple)) else node[part]
            path.append(part)


def value_problems(cfg: Config, sweep: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Values of a sweep that are no numbers where the config has one.

    Args:
        cfg (Config): Config of a task, which has every key.
        sweep (Mapping[str, Sequence[str]]): What :func:`.options.parse_sweep` returned.

    Yields:
        str: A problem.
    """
    for name, texts in sweep.items():
        key = SHORT_KEYS.get(name, name)
        is_rate = key in SHORT_KEYS.values()
        if not _is_number(_value_at(cfg, key)) and not is_rate:
            continue
        for text in texts:
            value = parse_settings([f'x={text}'])['x']
            if not _is_number(value) or not math.isfinite(value) or (is_rate and value < 0):
                more = ', 0 or more' if is_rate else ''
                yield f'--sweep {name}={text}: a finite number is needed{more}'


def data_problems(cfg: Config, task: Task) -> list[str]:
    """Folders and files of images, annotations and lists that are not there.

    Args:
        cfg (Config): Config of a task.
        task (Task): The task.

    Returns:
        list[str]: Problems; the last says how to name another folder.
    """
    problems = []
    leaves = [leaf for loader in LOADERS for leaf in _leaves(cfg[loader].dataset)]
    roots = {leaf.get('data_root') or '' for leaf in leaves} - {''}
    missing = sorted(filter(_is_missing, roots))
    problems += [f'{task.title}: there is no data folder {root}' for root in missing]
    for loader in LOADERS if not missing else ():  # one line says it all
        for dataset in _leaves(cfg[loader].dataset):
            problems += _missing_of(dataset, f'{task.title}, {loader.split("_")[0]}')
    for evaluator in as_list(cfg.get('val_evaluator')) if not missing else ():
        if (file := evaluator.get('ann_file')) and _is_missing(file):
            problems.append(f'{task.title}, evaluation: there is no annotation file {file}')
    problems = list(dict.fromkeys(problems))
    if problems:
        problems[-1] += (
            f'. Data elsewhere: --data {task.name}=FOLDER in the place of {_root_of(cfg)}, or key '
            f'by key --cfg-options {task.name}:KEY=VALUE'
        )
    return problems


def moved_data(cfg: Config, folder: str) -> dict[str, str]:
    """Settings that let a config take its data from another folder.

    Args:
        cfg (Config): Config of a task.
        folder (str): Folder in the place of the data set's root.

    Returns:
        dict[str, str]: Values by key with dots: every text that is the root or a path below it.
    """
    root = _root_of(cfg)
    moved = {}
    parts = (*LOADERS, 'test_dataloader', 'val_evaluator', 'test_evaluator')
    for key, text in _texts({part: cfg[part] for part in parts if cfg.get(part)}):
        if root and (rest := _rest_below(os.path.normpath(root), text)) is not None:
            moved[key] = folder.rstrip('/') + rest + '/' * text.endswith('/')
    return moved


def without_places(content: dict) -> dict:
    """A config with a placeholder where data lies, since moving it changes no result.

    Args:
        content (dict): A resolved config; left as it is.

    Returns:
        dict: Each ``data_root``, and whatever text is a path below one, without the root.
    """
    # Loaders of one task may have several; which is which stays told by their order.
    roots = [text for key, text in _texts(content) if key.rsplit('.', 1)[-1] == 'data_root']
    places: dict[str, str] = {}
    for root in filter(None, roots):
        place = places.setdefault(os.path.abspath(root), f'<data {len(places)}>')
        places[os.path.normpath(root)] = place  # a relative path lies below a relative root

    def replaced(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {name: replaced(value) for name, value in node.items()}
        if isinstance(node, (list, tuple)):
            return type(node)(replaced(value) for value in node)
        if isinstance(node, str) and '://' not in node:
            for root, place in places.items():
                if (rest := _rest_below(root, node)) is not None:
                    return place + rest
        return node

    return replaced(content)


def class_problems(cfg: Config, task: Task) -> Iterator[str]:
    """Heads whose number of classes is not the data set's.

    Args:
        cfg (Config): Config of a task.
        task (Task): The task.

    Yields:
        str: A problem.
    """
    heads = dict(heads_of(cfg))
    for loader in LOADERS:
        for key, dataset in placed_leaves(cfg[loader].dataset, f'{loader}.dataset'):
            names = classes_of(cfg, dataset)
            if isinstance(names, str):
                yield f'{task.title}: {key}.metainfo.classes: there is no file {names}'
                continue
            for place, count in heads.items() if names else ():
                if count != len(names):
                    yield (
                        f'{task.title}: {place}.num_classes is {count}, but {dataset["type"]} of '
                        f'{loader} has {len(names)} classes. Set --cfg-options '
                        f'{task.name}:{place}.num_classes={len(names)}'
                    )


def checkpoint_bytes(cfg: Config) -> tuple[int, int]:
    """Size of the checkpoints of a run.

    Args:
        cfg (Config): Config of a task.

    Returns:
        tuple[int, int]: Bytes while it trains, with the optimizer's state, and of the weights.
    """
    with quiet(), DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model = MODELS.build(cfg.model)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    states = _STATES.get(str(cfg.optim_wrapper.optimizer.type), 2)
    return weights * (1 + states), weights


def as_list(value: Any) -> list:
    """What a config may hold as one, several or none, as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value] if value else []


def heads_of(cfg: Config) -> Iterator[tuple[str, int]]:
    """Heads that tell classes apart. A region proposal network does not.

    Args:
        cfg (Config): Config of a task.

    Yields:
        tuple[str, int]: Where one stands, such as ``'model.decode_head'``, and how many classes.
    """
    for place, part in parts_of(cfg.model, 'model'):
        name = place.rpartition('.')[2]
        if isinstance(count := part.get('num_classes'), int) and name != 'rpn_head':
            yield place, count


def placed_leaves(dataset: Mapping, place: str) -> Iterator[tuple[str, Mapping]]:
    """The data sets within MMEngine's wrappers.

    Args:
        dataset (Mapping): Part of a config.
        place (str): Where it stands, such as ``'train_dataloader.dataset'``.

    Yields:
        tuple[str, Mapping]: Where a data set stands, and the part of the config.
    """
    if 'datasets' in dataset:
        for index, part in enumerate(dataset['datasets']):
            yield from placed_leaves(part, f'{place}.datasets.{index}')
    elif 'dataset' in dataset:
        yield from placed_leaves(dataset['dataset'], f'{place}.dataset')
    else:
        yield place, dataset


def dataset_class(cfg: Config, dataset: Mapping) -> type | None:
    """Class of a data set.

    Args:
        cfg (Config): Config of a task.
        dataset (Mapping): A data set of it, without wrappers.

    Returns:
        type, optional: The class; None if there is none of that name.
    """
    kind = dataset['type']
    with quiet(), DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        return registry.get(kind) if isinstance(kind, str) else kind


def classes_of(cfg: Config, dataset: Mapping) -> Sequence[str]:
    """Names of the classes that a data set will have.

    Args:
        cfg (Config): Config of a task.
        dataset (Mapping): A data set of it, without wrappers.

    Returns:
        Sequence[str]: The names, in order; none where they cannot be told. A text where
        ``metainfo`` names a file that is not there.
    """
    cls = dataset_class(cfg, dataset)
    if not hasattr(cls, '_load_metainfo'):  # none of MMEngine's
        return (dataset.get('metainfo') or {}).get('classes', ())
    with quiet():
        return cls._load_metainfo(dataset.get('metainfo')).get('classes', ())


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the libraries tell while something is only looked at."""
    with quiet_logger(), warnings.catch_warnings(action='ignore'):
        yield


def _names(node: Any) -> list[str]:
    if isinstance(node, (Mapping, Config)):
        return list(node.keys())
    return [str(i) for i in range(len(node))] if isinstance(node, (list, tuple)) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value_at(cfg: Config, key: str) -> Any:
    node: Any = cfg
    for part in key.split('.'):
        node = node[int(part)] if isinstance(node, (list, tuple)) else node[part]
    return node


def _leaves(dataset: Mapping) -> Iterator[Mapping]:
    """The data sets within MMEngine's wrappers."""
    yield from (leaf for _, leaf in placed_leaves(dataset, ''))


def _root_of(cfg: Config) -> str:
    return str(next(_leaves(cfg.val_dataloader.dataset)).get('data_root') or '').rstrip('/')


def _rest_below(root: str, text: str) -> str | None:
    """What of a path comes behind a root, which is normalised; None where it does not lie below."""
    path = os.path.normpath(text) if text else ''
    if path == root:
        return ''
    if root == os.curdir:
        # Every relative path would be below it, and so would every name that is no path.
        inside = text.startswith('./') and path.split('/')[0] != os.pardir
        return f'/{path}' if inside else None
    top = root.rstrip('/')
    return path[len(top) :] if path.startswith(f'{top}/') else None


def _is_missing(path: str) -> bool:
    return '://' not in path and not os.path.exists(path)


def _missing_of(dataset: Mapping, where: str) -> Iterator[str]:
    root = dataset.get('data_root') or ''
    listed = dataset.get('ann_file') or ''
    if listed:
        listed = os.path.join(root, listed)
        if _is_missing(listed):
            yield f'{where}: there is no list or annotation file {listed}'
    for name, prefix in (dataset.get('data_prefix') or {}).items():
        if isinstance(prefix, str):
            folder = os.path.join(root, prefix)
            if _is_missing(folder):
                yield f'{where}: there is no folder {folder} ({name})'
            elif os.path.isdir(folder) and next(os.scandir(folder), None) is None:
                yield f'{where}: the folder {folder} ({name}) is empty'


def _texts(node: Any, key: str = '') -> Iterator[tuple[str, str]]:
    """All texts in a part of a config, by key with dots."""
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, (Mapping, list, tuple)):
        pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
        for name, value in pairs:
            yield from _texts(value, f'{key}.{name}'.lstrip('.'))
