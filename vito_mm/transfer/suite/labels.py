"""Labels that the files of a data set hold, against the classes that a config has."""

import functools
import json
import mmap
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS

from vito_mm.transfer.config_parts import parts_of, type_name
from vito_mm.transfer.tasks import Task

from .checks import LOADERS, as_list, classes_of, dataset_class, heads_of, placed_leaves, quiet

_KEY = b'"categories"'
_PART = 16 * 1024**2
"""Bytes; of a larger file only the categories are parsed, and they are taken for smaller."""

_MASKS = 8
"""Masks of a data set that are read."""

_SHOWN = 5


def label_problems(cfg: Config, task: Task) -> Iterator[str]:
    """Annotation files and masks whose labels are not those of the config.

    Args:
        cfg (Config): Config of a task whose data is there.
        task (Task): The task.

    Yields:
        str: A problem.
    """
    if task.package == 'mmseg':
        yield from _mask_problems(cfg, task)
    for listed in _listed(cfg) if task.package == 'mmdet' else ():
        where = f'{task.title}, {listed.place}'
        try:
            names = category_names(listed.file)
        except (OSError, ValueError) as error:
            yield f'{where}: {listed.file} cannot be read as COCO annotations: {error}'
            continue
        if found := _difference(names, listed):
            yield (
                f'{where}: {listed.file} has {len(names)} categories, the config '
                f'{len(listed.classes)} classes: {found}. Name the right file, or, with names.txt '
                'holding the names of the categories in their order, a line each: --cfg-options '
                f'{task.name}:{listed.key}.metainfo.classes=names.txt, and num_classes of the head'
            )


def label_remarks(cfg: Config, task: Task) -> Iterator[str]:
    """What of the labels is left out, though nobody may have meant it.

    Args:
        cfg (Config): Config of a task without :func:`label_problems`.
        task (Task): The task.

    Yields:
        str: A remark.
    """
    for listed in _listed(cfg) if task.package == 'mmdet' else ():
        names = category_names(listed.file)
        extra = [name for name in names if name not in listed.classes]
        if extra and listed.by_name and not listed.chosen:
            yield (
                f'{task.title}, {listed.place}: {listed.file} has {len(names)} categories, of '
                f'which {len(extra)} are no class of the config and are left out: {_few(extra)}'
            )


@dataclass(frozen=True)
class _Listed:
    """An annotation file, and the classes that its labels are taken for.

    Attributes:
        place (str): The loader, or what evaluates.
        key (str): Where the data set stands in the config.
        file (str): The file.
        classes (tuple[str, ...]): Classes of the data set.
        chosen (bool): Whether the config names them, and not the data set's class alone.
        by_name (bool): Whether mmdet takes the categories of these names, and not all.
    """

    place: str
    key: str
    file: str
    classes: tuple[str, ...]
    chosen: bool
    by_name: bool


def _listed(cfg: Config) -> Iterator[_Listed]:
    from mmdet.datasets import CocoDataset, LVISV05Dataset, LVISV1Dataset

    by_count = (LVISV1Dataset.load_data_list, LVISV05Dataset.load_data_list)
    for loader in LOADERS:
        for key, leaf in placed_leaves(cfg[loader].dataset, f'{loader}.dataset'):
            # What a class of its own makes of the file is not known.
            reads = getattr(dataset_class(cfg, leaf), 'load_data_list', None)
            classes = classes_of(cfg, leaf)
            if reads not in (CocoDataset.load_data_list, *by_count) or isinstance(classes, str):
                continue
            chosen = 'classes' in (leaf.get('metainfo') or {})
            facts = tuple(classes), chosen, reads not in by_count
            ann_file = os.path.join(leaf.get('data_root') or '', leaf.get('ann_file') or '')
            files = {ann_file: loader}
            for each in as_list(cfg.get('val_evaluator')) if loader == 'val_dataloader' else ():
                files.setdefault(each.get('ann_file') or '', 'val_evaluator')
            for file, place in files.items():
                if os.path.isfile(file):
                    yield _Listed(place, key, file, *facts)


def _difference(names: Sequence[str], listed: _Listed) -> str:
    """How the labels differ that mmdet makes of categories, empty where they do not."""
    classes = listed.classes
    if not listed.by_name:
        return '' if len(names) == len(classes) else 'each category is a label, whatever its name'
    if missing := [name for name in classes if name not in names]:
        return (
            f'it lacks {len(missing)} of them ({_few(missing)}). mmdet counts through those that '
            'are there, so that the classes behind these would have the labels of others'
        )
    labels = [name for name in names if name in classes]
    if twice := [name for name in classes if labels.count(name) > 1]:
        return f'it has {_few(twice)} more than once, and mmdet gives each a label of its own'
    if other := [pair for pair in zip(labels, classes, strict=False) if pair[0] != pair[1]]:
        return (
            f'they are in another order (first: {other[0][0]} in the file, {other[0][1]} in the '
            'config), and mmdet numbers them in that of the file'
        )
    return ''


def category_names(file: str) -> tuple[str, ...]:
    """Names of the categories of a COCO or LVIS annotation file, in its order.

    Args:
        file (str): The file.

    Returns:
        tuple[str, ...]: The names.

    Raises:
        ValueError: If it is no JSON or has no categories.
    """
    status = os.stat(file)
    return _category_names(file, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _category_names(file: str, size: int, mtime_ns: int) -> tuple[str, ...]:
    if not size:
        raise ValueError('it is empty')
    categories = _far_categories(file) if size > _PART else None
    if categories is None:
        try:
            content = json.loads(Path(file).read_bytes())
        except ValueError as error:
            raise ValueError(f'it is no JSON, {error}') from None
        categories = content.get('categories') if isinstance(content, dict) else None
    if not isinstance(categories, list) or not categories:
        raise ValueError('it has no "categories"')
    if not all(isinstance(each, dict) and {'id', 'name'} <= set(each) for each in categories):
        raise ValueError('some of its "categories" have no id or no name')
    return tuple(str(each['name']) for each in categories)


def _far_categories(file: str) -> list | None:
    """Categories of a large file without its annotations; None where they are not found so."""
    with open(file, 'rb') as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
        place = text.rfind(_KEY)
        is_last = len(text) - place <= _PART
        is_cut_off = not text[-64:].rstrip().endswith(b'}')
        # Where the word comes twice, one may belong to something else.
        if place < 0 or is_cut_off or (not is_last and text.find(_KEY) < place):
            return None
        part = text[place : place + _PART]
    try:
        if is_last:  # valid only if what follows closes the outermost object
            return json.loads(b'{' + part)['categories']
        words = part.decode(errors='ignore')
        colon = re.match(r'"categories"\s*:\s*', words)
        return json.JSONDecoder().raw_decode(words, colon.end())[0] if colon else None
    except ValueError:
        return None


def _mask_problems(cfg: Config, task: Task) -> Iterator[str]:
    heads = dict(heads_of(cfg))
    if not heads:
        return
    head = dict(parts_of(cfg.model, 'model'))[min(heads, key=heads.get)]
    for loader in LOADERS:
        for key, leaf in placed_leaves(cfg[loader].dataset, f'{loader}.dataset'):
            where = f'{task.title}, {loader}'
            steps = leaf.get('pipeline', ())
            step = next((step for step in steps if type_name(step) == 'LoadAnnotations'), None)
            if step is None:  # what another transform makes of a mask is not known
                continue
            try:
                with quiet():
                    samples, load = _samples_of(cfg, leaf, step)
            except Exception as error:  # whatever a config may hold that the classes do not take
                yield f'{where}: {leaf["type"]} cannot be made: {type(error).__name__}: {error}'
                continue
            if not samples:
                yield f'{where}: {leaf["type"]} finds no image in {leaf.get("data_root")}'
            last = len(samples) - 1
            chosen = {round(i * last / (_MASKS - 1)) for i in range(_MASKS)} if samples else ()
            found = (_mask_fault(samples[i], load, head) for i in sorted(chosen))
            if fault := next(filter(None, found), ''):
                yield (
                    f'{where}: the mask {fault}. Name the right folder by {key}.data_prefix, or '
                    f'set num_classes, {key}.metainfo.classes, or reduce_zero_label of data set '
                    'and LoadAnnotations, which takes 0 for no class and counts from 1'
                )


def _samples_of(cfg: Config, leaf: Mapping, step: Mapping) -> tuple[list[dict], Any]:
    """Where images and masks of a data set are, as its own class finds them, and what loads one."""
    scope = cfg.get('default_scope')
    with DATASETS.switch_scope_and_registry(scope) as registry:
        dataset = registry.build(dict(leaf, pipeline=[], lazy_init=True))
    with TRANSFORMS.switch_scope_and_registry(scope) as registry:
        load = registry.build(dict(step))
    return [each for each in dataset.load_data_list() if each.get('seg_map_path')], load


def _mask_fault(sample: dict, load: Any, head: Mapping) -> str:
    """What is wrong with a mask, its file first; empty where nothing is."""
    import mmcv
    import numpy as np
    from mmengine import fileio

    file, count = sample['seg_map_path'], head['num_classes']
    try:
        # As LoadAnnotations reads it, but before it keeps 8 bits of each number.
        content = fileio.get(file, backend_args=load.backend_args)
        raw = mmcv.imfrombytes(content, flag='unchanged', backend=load.imdecode_backend).squeeze()
        if raw.ndim != 2:
            return f'{file} has {raw.shape[-1]} channels, and labels are the numbers of one'
        labels = load(dict(sample, seg_fields=[]))['gt_seg_map']
    except Exception as error:  # whatever a file may hold
        return f'{file} cannot be read: {type(error).__name__}: {error}'
    wrong = (labels >= count) & (labels != head.get('ignore_index', 255)) | (raw > 255)
    if not wrong.any():
        return ''
    counted = ' from 1 on' if sample.get('reduce_zero_label') else ' from 0 on'
    shown = _few([str(value) for value in np.unique(raw[wrong])])
    return f'{file} has {shown} where the config has {count} classes, counted{counted}'


def _few(names: Sequence[str]) -> str:
    return ', '.join(names[:_SHOWN]) + ', ...' * (len(names) > _SHOWN)
