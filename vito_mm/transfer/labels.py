"""Contents of data sets, against what their config makes of them."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS

from vito_mm.checkpoint.config_parts import parts_of, type_name
from vito_mm.evaluation.annotations import (
    Uses,
    names_of,
    problems,
    read_annotations,
    remarks,
    used_images,
)
from vito_mm.transfer.tasks import Task

from .checks import LOADERS, as_list, classes_of, dataset_class, heads_of, placed_leaves, quiet

_SAMPLE = 8
"""Images and masks of a data set that are read."""

_MORE = 100
"""Masks that are read where the first ones show no class but 0."""

_SHOWN = 5


def label_problems(cfg: Config, task: Task) -> Iterator[str]:
    """Annotations, masks and images that a run would fail on, or learn or measure wrongly.

    Annotation files are read as a whole, and all images and masks are looked for. Of each data set
    a sample of images and masks is read.

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
            found = read_annotations(listed.file)
            names = names_of(found)
        except (OSError, ValueError) as error:
            yield f'{where}: {listed.file} cannot be read as COCO annotations: {error}'
            continue
        if difference := _difference(names, listed):
            yield (
                f'{where}: {listed.file} has {len(names)} categories, the config '
                f'{len(listed.classes)} classes: {difference}. Name the right file, or, with '
                'names.txt holding the names of the categories in their order, a line each: '
                f'--cfg-options {task.name}:{listed.key}.metainfo.classes=names.txt, and '
                'num_classes of the head'
            )
            continue
        faults = list(problems(found, listed.uses))
        yield from (f'{where}: {listed.file}: {fault}' for fault in faults)
        if listed.leaf is not None and not faults:
            yield from (f'{where}: {fault}' for fault in _image_problems(cfg, listed))


def label_remarks(cfg: Config, task: Task) -> Iterator[str]:
    """What of the labels is left out, though nobody may have meant it.

    Args:
        cfg (Config): Config of a task without :func:`label_problems`.
        task (Task): The task.

    Yields:
        str: A remark.
    """
    for listed in _listed(cfg) if task.package == 'mmdet' else ():
        where = f'{task.title}, {listed.place}: {listed.file}'
        found = read_annotations(listed.file)
        names = names_of(found)
        extra = [name for name in names if name not in listed.classes]
        if extra and listed.by_name and not listed.chosen:
            yield (
                f'{where} has {len(names)} categories, of which {len(extra)} are no class of the '
                f'config and are left out: {_few(extra)}'
            )
        yield from (f'{where}: {remark}' for remark in remarks(found, listed.uses))


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
        uses (Uses): What a run does with the file.
        leaf (Mapping, optional): The data set that reads it; None if it is evaluated by alone.
    """

    place: str
    key: str
    file: str
    classes: tuple[str, ...]
    chosen: bool
    by_name: bool
    uses: Uses
    leaf: Mapping | None


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
            steps = [step for step in leaf.get('pipeline', ()) if type_name(step)]
            uses = Uses(
                learns=loader == 'train_dataloader',
                masks=any(step.get('with_mask') for step in steps),
                name_key='coco_url' if reads == LVISV1Dataset.load_data_list else 'file_name',
                classes=None if reads in by_count else frozenset(classes),
            )
            ann_file = os.path.join(leaf.get('data_root') or '', leaf.get('ann_file') or '')
            files = {ann_file: (loader, uses, leaf)}
            for each in as_list(cfg.get('val_evaluator')) if loader == 'val_dataloader' else ():
                file = each.get('ann_file') or ''
                place, known, read_by = files.get(
                    file, ('val_evaluator', Uses(classes=uses.classes), None)
                )
                measured = dict(
                    metric=_METRICS.get(type_name(each), known.metric),
                    masks=known.masks or 'segm' in as_list(each.get('metric')),
                )
                files[file] = place, replace(known, **measured), read_by
            for file, (place, purpose, read_by) in files.items():
                if os.path.isfile(file):
                    facts = tuple(classes), chosen, reads not in by_count
                    yield _Listed(place, key, file, *facts, purpose, read_by)


_METRICS = dict(CocoMetric='coco', FasterLVISMetric='lvis', LVISMetric='lvis')


def _image_problems(cfg: Config, listed: _Listed) -> Iterator[str]:
    """Images that are not there, or not of the size that the annotations are for."""
    with quiet(), DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        dataset = registry.build(dict(listed.leaf, pipeline=[], lazy_init=True))
    folder, key = dataset.data_prefix['img'], listed.uses.name_key
    only_annotated = listed.uses.learns and (dataset.filter_cfg or {}).get('filter_empty_gt', False)
    images = used_images(read_annotations(listed.file), listed.uses, only_annotated)
    names = [image[key].replace('http://images.cocodataset.org/', '') for image in images]
    if not listed.by_name:  # mmdet takes LVIS v0.5's names of 2014 for those of 2017
        names = [name[-16:] if name.startswith('COCO') else name for name in names]
    paths = [os.path.join(folder, name) for name in names]
    if fault := _missing_text(paths, 'images'):
        yield f'{listed.file} lists images that are not there: {fault}'
        return
    load = _loader_of(cfg, listed.leaf)
    for index in _spread(len(images)) if load else ():
        try:
            height, width = load(dict(img_path=paths[index]))['img'].shape[:2]
        except Exception as error:  # whatever a file may hold
            yield f'the image {paths[index]} cannot be read: {type(error).__name__}: {error}'
            return
        stated = images[index]['width'], images[index]['height']
        if (width, height) != stated:
            yield (
                f'the image {paths[index]} has {width} x {height} pixels, and {listed.file} says '
                f'{stated[0]} x {stated[1]}, so that its boxes would be elsewhere'
            )
            return


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


def _mask_problems(cfg: Config, task: Task) -> Iterator[str]:
    heads = dict(heads_of(cfg))
    if not heads:
        return
    head = dict(parts_of(cfg.model, 'model'))[min(heads, key=heads.get)]
    for loader in LOADERS:
        for key, leaf in placed_leaves(cfg[loader].dataset, f'{loader}.dataset'):
            where = f'{task.title}, {loader}'
            try:
                with quiet():
                    samples = _samples_of(cfg, leaf)
                    load = _loader_of(cfg, leaf, 'LoadAnnotations')
            except Exception as error:  # whatever a config may hold that the classes do not take
                yield f'{where}: {leaf["type"]} cannot be made: {type(error).__name__}: {error}'
                continue
            if load is None:  # what another transform makes of a mask is not known
                continue
            if not samples:
                yield f'{where}: {leaf["type"]} finds no image in {leaf.get("data_root")}'
                continue
            missing = [
                f'{where}: {text}'
                for kind, field in (('images', 'img_path'), ('masks', 'seg_map_path'))
                if (text := _missing_text([sample[field] for sample in samples], kind))
            ]
            yield from missing
            if missing:
                continue
            if fault := _sample_fault(samples, load, _loader_of(cfg, leaf), head):
                yield (
                    f'{where}: the mask {fault}. Name the right folder by {key}.data_prefix, or '
                    f'set num_classes, {key}.metainfo.classes, or reduce_zero_label of data set '
                    'and LoadAnnotations, which takes 0 for no class and counts from 1'
                )


def _samples_of(cfg: Config, leaf: Mapping) -> list[dict]:
    """Where images and masks of a data set are, as its own class finds them."""
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        dataset = registry.build(dict(leaf, pipeline=[], lazy_init=True))
    return [each for each in dataset.load_data_list() if each.get('seg_map_path')]


def _loader_of(cfg: Config, leaf: Mapping, name: str = 'LoadImageFromFile') -> Any:
    """The transform of a pipeline that loads images or masks; None where it has none."""
    step = next((step for step in leaf.get('pipeline', ()) if type_name(step) == name), None)
    with TRANSFORMS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        return registry.build(dict(step)) if step else None


def _sample_fault(samples: Sequence[dict], load: Any, load_image: Any, head: Mapping) -> str:
    """What is wrong with masks of a data set, the first file first; empty where nothing is."""
    values: set[int] = set()
    for index in _spread(len(samples)):
        if fault := _mask_fault(samples[index], load, load_image, head, values):
            return fault
    for index in _spread(len(samples), _MORE) if values <= {0, 255} else ():
        if fault := _mask_fault(samples[index], load, load_image, head, values):
            return fault
        if not values <= {0, 255}:
            break
    if values <= {0, 255}:
        count = min(_MORE, len(samples))
        return (
            f'{samples[0]["seg_map_path"]} and all of {count} that were read hold nothing but '
            f'{" and ".join(map(str, sorted(values)))}, where 255 is left out of learning and '
            'measuring: masks hold the number of the class of each pixel'
        )
    return ''


def _mask_fault(sample: dict, load: Any, load_image: Any, head: Mapping, values: set[int]) -> str:
    """What is wrong with a mask, its file first; what it holds is added to the values."""
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
    if wrong.any():
        counted = ' from 1 on' if sample.get('reduce_zero_label') else ' from 0 on'
        shown = _few([str(value) for value in np.unique(raw[wrong])])
        return f'{file} has {shown} where the config has {count} classes, counted{counted}'
    values.update(np.unique(raw).tolist())
    image = sample['img_path']
    try:
        size = load_image(dict(img_path=image))['img'].shape[:2] if load_image else raw.shape
    except Exception as error:  # whatever a file may hold
        return f'{file} is of the image {image}, which cannot be read: {error}'
    if size != raw.shape:
        return (
            f'{file} has {raw.shape[1]} x {raw.shape[0]} pixels, and its image {image} '
            f'{size[1]} x {size[0]}'
        )
    return ''


def _missing_text(paths: Sequence[str], kind: str) -> str:
    """How many files are not there, and the first; empty where all are."""
    missing = _missing(paths)
    if not missing:
        return ''
    return f'{len(missing)} of {len(paths)} {kind} are not there, the first is {missing[0]}'


def _missing(paths: Iterable[str]) -> list[str]:
    """Files that are not there. Each folder is listed once: less work than to ask for each file."""
    by_folder = defaultdict(list)
    for path in paths:
        if not re.match(r'[\w.+-]+://', path):  # what a file backend has is not asked for
            by_folder[os.path.dirname(path)].append(path)
    missing = []
    for folder, wanted in by_folder.items():
        try:
            with os.scandir(folder or '.') as entries:
                there = {entry.name for entry in entries if _leads_somewhere(entry)}
        except OSError:
            there = set()
        missing += [path for path in wanted if os.path.basename(path) not in there]
    return missing


def _leads_somewhere(entry: os.DirEntry) -> bool:
    return not entry.is_symlink() or os.path.exists(entry.path)


def _spread(count: int, wanted: int = _SAMPLE) -> list[int]:
    """Indices of a sample, evenly over all."""
    return sorted({round(i * (count - 1) / (wanted - 1)) for i in range(wanted)}) if count else []


def _few(names: Sequence[str]) -> str:
    return ', '.join(names[:_SHOWN]) + ', ...' * (len(names) > _SHOWN)
