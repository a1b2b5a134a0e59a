"""Contents of data sets, compared with the classes and images that their config expects."""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS

from vito_mm.checkpoint.config_parts import parts_of, placed_datasets, type_name
from vito_mm.evaluation.annotations import (
    Uses,
    names_of,
    problems,
    read_annotations,
    remarks,
    used_images,
)
from vito_mm.transfer.checks import (
    as_list,
    classes_of,
    dataset_class,
    heads_of,
    is_missing,
    quiet,
)
from vito_mm.transfer.identity import LOADERS
from vito_mm.transfer.own_task import INSTANCES
from vito_mm.transfer.tasks import Task
from vito_mm.utils.text import first_few

_SAMPLE = 8
"""Images and masks of a data set that are read."""

_MORE = 100
"""Masks that are read where the first ones show no class but 0."""


def label_problems(cfg: Config, task: Task) -> tuple[list[str], list[str]]:
    """Find annotations, masks and images that a run would fail on, or learn or measure wrongly.

    Annotation files are read completely, all images and masks are looked for, and a sample of each
    data set is read.

    Returns:
        tuple[list[str], list[str]]: Problems, and warnings of labels that are skipped, though
        nobody may have meant it.
    """
    if task.package == 'mmseg':
        return list(_mask_problems(cfg, task)), []
    found: list[str] = []
    warnings: list[str] = []
    for listed in _listed(cfg):
        where = f'{task.title}, {listed.place}'
        try:
            content = read_annotations(listed.file)
            names = names_of(content)
        except (OSError, ValueError) as error:
            found.append(f'{where}: {listed.file} cannot be read as COCO annotations: {error}')
            continue
        if difference := _difference(names, listed):
            found.append(
                f'{where}: {listed.file} has {len(names)} categories, the config '
                f'{len(listed.classes)} classes: {difference}. Name the right file, or, with '
                'names.txt holding the names of the categories in their order, a line each: '
                f'--cfg-options {task.name}:{listed.key}.metainfo.classes=names.txt, and '
                'num_classes of the head'
            )
            continue
        faults = problems(content, listed.uses)
        found += (f'{where}: {listed.file}: {fault}' for fault in faults)
        if faults:
            continue
        if listed.leaf is not None:
            found += (f'{where}: {fault}' for fault in _image_problems(cfg, listed, content))
        extra = [name for name in names if name not in listed.classes]
        if extra and listed.by_name and not listed.chosen:
            warnings.append(
                f'{where}: {listed.file} has {len(names)} categories, of which {len(extra)} are no '
                f'class of the config and are skipped: {first_few(extra)}'
            )
        warnings += (f'{where}: {listed.file}: {text}' for text in remarks(content, listed.uses))
    return found, warnings


@dataclass(frozen=True)
class _Listed:
    """An annotation file, and the classes of its labels."""

    place: str  # the loader, or 'val_evaluator'
    key: str  # of the data set in the config
    file: str
    classes: tuple[str, ...]
    chosen: bool  # by the config, and not by the class of the data set alone
    by_name: bool  # mmdet takes the categories of these names, and not all
    uses: Uses
    leaf: Mapping | None  # the data set that reads it; None if it is evaluated by alone


def _listed(cfg: Config) -> Iterator[_Listed]:
    from mmdet.datasets import CocoDataset, LVISV05Dataset, LVISV1Dataset

    by_count = (LVISV1Dataset.load_data_list, LVISV05Dataset.load_data_list)
    for loader in LOADERS:
        for key, leaf in placed_datasets(cfg[loader].dataset, f'{loader}.dataset'):
            # The use that a class of its own makes of the file is not known.
            reads = getattr(dataset_class(cfg, leaf), 'load_data_list', None)
            classes = classes_of(cfg, leaf)
            if reads not in (CocoDataset.load_data_list, *by_count) or isinstance(classes, str):
                continue
            facts = tuple(classes), 'classes' in (leaf.get('metainfo') or {}), reads not in by_count
            uses = Uses(
                learns=loader == 'train_dataloader',
                masks=any(step.get('with_mask') for step in leaf.get('pipeline', ())),
                name_key='coco_url' if reads == LVISV1Dataset.load_data_list else 'file_name',
                classes=None if reads in by_count else frozenset(classes),
            )
            ann_file = os.path.join(leaf.get('data_root') or '', leaf.get('ann_file') or '')
            files = {ann_file: (loader, uses, leaf)}
            for each in as_list(cfg.get('val_evaluator')) if loader == 'val_dataloader' else ():
                file = each.get('ann_file') or ''
                alone = 'val_evaluator', Uses(classes=uses.classes), None
                place, known, read_by = files.get(file, alone)
                metric, *_ = INSTANCES.get(type_name(each), (known.metric,))
                masks = known.masks or 'segm' in as_list(each.get('metric'))
                files[file] = place, replace(known, metric=metric, masks=masks), read_by
            for file, (place, purpose, read_by) in files.items():
                if os.path.isfile(file):
                    yield _Listed(place, key, file, *facts, purpose, read_by)


def _image_problems(cfg: Config, listed: _Listed, content: Mapping) -> Iterator[str]:
    """Images that are missing, or not of the size that the annotations are for."""
    with quiet(), DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        dataset = registry.build(dict(listed.leaf, pipeline=[], lazy_init=True))
    only_annotated = listed.uses.learns and (dataset.filter_cfg or {}).get('filter_empty_gt', False)
    images = used_images(content, listed.uses, only_annotated)
    names = [
        image[listed.uses.name_key].replace('http://images.cocodataset.org/', '')
        for image in images
    ]
    if not listed.by_name:  # mmdet takes LVIS v0.5's names of 2014 for those of 2017
        names = [name[-16:] if name.startswith('COCO') else name for name in names]
    paths = [os.path.join(dataset.data_prefix['img'], name) for name in names]
    if fault := _missing_text(paths, 'images'):
        yield f'{listed.file} lists images that are not there: {fault}'
        return
    load = _loader_of(cfg, listed.leaf)
    for index in _spread(len(images)) if load else ():
        stated = images[index]['width'], images[index]['height']
        try:
            height, width = load(dict(img_path=paths[index]))['img'].shape[:2]
        except Exception as error:  # whatever a file may hold
            yield f'the image {paths[index]} cannot be read: {type(error).__name__}: {error}'
            return
        if (width, height) != stated:
            yield (
                f'the image {paths[index]} has {width} x {height} pixels, and {listed.file} says '
                f'{stated[0]} x {stated[1]}, so that its boxes would be elsewhere'
            )
            return


def _difference(names: Sequence[str], listed: _Listed) -> str:
    """Difference of the labels that mmdet makes of categories, empty where there is none."""
    classes = listed.classes
    if not listed.by_name:
        return '' if len(names) == len(classes) else 'each category is a label, whatever its name'
    labels = enumerate(zip_longest([name for name in names if name in classes], classes))
    others = [f'{i} is {name} and not {wanted}' for i, (name, wanted) in labels if name != wanted]
    order = 'mmdet numbers the categories that are classes in the order of the file, where label '
    return order + first_few(others) if others else ''


def _mask_problems(cfg: Config, task: Task) -> Iterator[str]:
    heads = dict(heads_of(cfg))
    if not heads:
        return
    head = dict(parts_of(cfg.model, 'model'))[min(heads, key=heads.get)]
    for loader in LOADERS:
        for key, leaf in placed_datasets(cfg[loader].dataset, f'{loader}.dataset'):
            where = f'{task.title}, {loader}'
            try:
                # Images and masks as the data set's own class finds them.
                with quiet(), DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
                    dataset = registry.build(dict(leaf, pipeline=[], lazy_init=True))
                samples = [each for each in dataset.load_data_list() if each.get('seg_map_path')]
                load = _loader_of(cfg, leaf, 'LoadAnnotations')
            except Exception as error:  # whatever a config may hold that the classes do not take
                yield f'{where}: {leaf["type"]} cannot be made: {type(error).__name__}: {error}'
                continue
            if load is None:  # masks from another transform are not known
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
            if not missing and (fault := _sample_fault(samples, load, _loader_of(cfg, leaf), head)):
                yield (
                    f'{where}: the mask {fault}. Name the right folder by {key}.data_prefix, or '
                    f'set num_classes, {key}.metainfo.classes, or reduce_zero_label of data set '
                    'and LoadAnnotations, which takes 0 for no class and counts from 1'
                )


@dataclass(frozen=True)
class TrainingImages:
    """Labelled images that a run trains on, as the data sets' own filters leave them."""

    counts: tuple[int, ...]  # of each data set
    classes: int  # that they show; of masks those in a sample


def training_images(cfg: Config, task: Task) -> TrainingImages:
    """Count the training images of a config and the classes that they show.

    Raises:
        ValueError: If a data set is none of MMEngine's, of which alone a part can be taken.
    """
    counts, seen = [], set()
    for key, leaf in placed_datasets(cfg.train_dataloader.dataset, 'train_dataloader.dataset'):
        scope = DATASETS.switch_scope_and_registry(cfg.get('default_scope'))
        with quiet(), redirect_stdout(io.StringIO()), scope as registry:  # pycocotools prints
            dataset = registry.build(dict(leaf, pipeline=[]))
        if not hasattr(dataset, 'get_subset_'):
            raise ValueError(f'--labels: {key} of {task.title} is no data set of MMEngine')
        dataset.full_init()
        counts.append(len(dataset))
        if task.package == 'mmdet':
            seen.update(*(dataset.get_cat_ids(index) for index in range(len(dataset))))
        elif load := _loader_of(cfg, leaf, 'LoadAnnotations'):
            for index in _spread(len(dataset), _MORE):
                labels = load(dict(dataset.get_data_info(index), seg_fields=[]))['gt_seg_map']
                seen.update(np.unique(labels).tolist())
    return TrainingImages(tuple(counts), len(seen - {255}))


def _loader_of(cfg: Config, leaf: Mapping, name: str = 'LoadImageFromFile') -> Any:
    """The transform of a pipeline that loads images or masks; None where it has none."""
    step = next((step for step in leaf.get('pipeline', ()) if type_name(step) == name), None)
    with TRANSFORMS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        return registry.build(dict(step)) if step else None


def _sample_fault(samples: Sequence[dict], load: Any, load_image: Any, head: Mapping) -> str:
    """Fault of the masks of a data set, the first file first; empty where there is none."""
    values: set[int] = set()
    few, more = _spread(len(samples)), _spread(len(samples), _MORE)
    for place, index in enumerate([*few, *more]):
        if place >= len(few) and not values <= {0, 255}:
            return ''
        if fault := _mask_fault(samples[index], load, load_image, head, values):
            return fault
    if not values <= {0, 255}:
        return ''
    return (
        f'{samples[0]["seg_map_path"]} and all of {len(more)} that were read hold nothing but '
        f'{" and ".join(map(str, sorted(values)))}, where 255 is skipped in learning and '
        'measuring: masks hold the number of the class of each pixel'
    )


def _mask_fault(sample: dict, load: Any, load_image: Any, head: Mapping, values: set[int]) -> str:
    """Fault of a mask, its file first; the values in it are added to the others."""
    import mmcv
    from mmengine import fileio

    file, image, count = sample['seg_map_path'], sample['img_path'], head['num_classes']
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
        start = 1 if sample.get('reduce_zero_label') else 0
        shown = first_few([str(value) for value in np.unique(raw[wrong])])
        return f'{file} has {shown} where the config has {count} classes, counted from {start} on'
    values.update(np.unique(raw).tolist())
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
    """Number of files that are missing, and the first; empty where there is none."""
    missing = [path for path in paths if is_missing(path)]
    if not missing:
        return ''
    return f'{len(missing)} of {len(paths)} {kind} are not there, the first is {missing[0]}'


def _spread(count: int, wanted: int = _SAMPLE) -> list[int]:
    """Indices of a sample, evenly over all."""
    return sorted({round(i * (count - 1) / (wanted - 1)) for i in range(wanted)}) if count else []
