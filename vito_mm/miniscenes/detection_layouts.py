"""Stills on disk as COCO 2017 and LVIS v1."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from .classes import LABEL_MAPS
from .files import write_jpeg
from .presets import Preset
from .stills import mask_box, render_still

_COCO_SUPERCATEGORIES = (
    ('person', 'person'),
    ('vehicle', 'bicycle,car,motorcycle,airplane,bus,train,truck,boat'),
    ('outdoor', 'traffic light,fire hydrant,stop sign,parking meter,bench'),
    ('animal', 'bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe'),
    ('accessory', 'backpack,umbrella,handbag,tie,suitcase'),
    (
        'sports',
        'frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,'
        'surfboard,tennis racket',
    ),
    ('kitchen', 'bottle,wine glass,cup,fork,knife,spoon,bowl'),
    (
        'food',
        'banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake',
    ),
    ('furniture', 'chair,couch,potted plant,bed,dining table,toilet'),
    ('electronic', 'tv,laptop,mouse,remote,keyboard,cell phone'),
    ('appliance', 'microwave,oven,toaster,sink,refrigerator'),
    ('indoor', 'book,clock,vase,scissors,teddy bear,hair drier,toothbrush'),
)
_COCO_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)


def coco_categories() -> list[dict[str, Any]]:
    """List COCO's 80 categories.

    Returns:
        list[dict]: ``id`` (1 to 90 with gaps), ``name`` and ``supercategory``.
    """
    ids = (number for number in range(1, 91) if number not in _COCO_UNUSED_IDS)
    return [
        {'id': next(ids), 'name': name, 'supercategory': group}
        for group, names in _COCO_SUPERCATEGORIES
        for name in names.split(',')
    ]


def lvis_categories(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """List LVIS's 1203 categories with their frequencies in a training set.

    As in LVIS, a category in at most 10 training images is rare, in at most 100 common, in more
    frequent. A category that is in no image is rare, and counts in no metric.

    Args:
        annotations: Annotations of the training set.

    Returns:
        list[dict]: ``id`` (1 to 1203), ``name``, ``synset``, ``synonyms``, ``def``, ``frequency``,
        ``image_count`` and ``instance_count``.

    Raises:
        ModuleNotFoundError: If mmdet, which has the names, is missing.
    """
    try:
        from mmdet.datasets import LVISV1Dataset
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'the LVIS layout takes its 1203 category names from mmdet ({error}): install mmdet '
            "(mim install mmdet), or leave 'lvis' out of tasks"
        ) from error
    images, instances = defaultdict(set), defaultdict(int)
    for annotation in annotations:
        images[annotation['category_id']].add(annotation['image_id'])
        instances[annotation['category_id']] += 1
    categories = []
    for number, name in enumerate(LVISV1Dataset.METAINFO['classes'], start=1):
        count = len(images[number])
        categories.append(
            {
                'id': number,
                'name': name,
                'synset': f'{name}.n.01',
                'synonyms': [name],
                'def': '',
                'frequency': 'r' if count <= 10 else 'c' if count <= 100 else 'f',
                'image_count': count,
                'instance_count': instances[number],
            }
        )
    return categories


def encode_mask(mask: np.ndarray) -> dict[str, list[int]]:
    """Encode a mask as COCO's uncompressed run lengths, which are exact.

    Args:
        mask: (height, width) bool.

    Returns:
        dict: ``counts``, the lengths of the runs down the columns, the first one of zeros; and
        ``size``, height and width.
    """
    column_major = mask.ravel(order='F')
    changes = np.flatnonzero(column_major[1:] != column_major[:-1]) + 1
    edges = np.concatenate([[0], changes, [column_major.size]])
    counts = np.diff(edges).tolist()
    return {'counts': [0, *counts] if column_major[0] else counts, 'size': list(mask.shape)}


def write_detection_still(
    folder: Path, preset: Preset, seed: int, stream: str, split: str, index: int
) -> dict[str, Any]:
    """Write the picture of a still, and give its annotations.

    Args:
        folder: Root of the data set.
        preset: Sizes and ranges.
        seed: Seed of the world.
        stream: ``'coco'`` or ``'lvis'``.
        split: ``'train'`` or ``'val'``.
        index: Index of the still in its split.

    Returns:
        dict: ``image`` and ``annotations`` as in an annotation file; the annotations have no ids.
    """
    still = render_still(preset, seed, stream, split, index)
    where = f'{split}2017'
    # Ids of the splits do not overlap, as in COCO.
    image_id = index + 1 + (500000 if split == 'val' else 0)
    name = f'{image_id:012d}.jpg'
    (folder / where).mkdir(parents=True, exist_ok=True)
    write_jpeg(folder / where / name, still.image)
    height, width = still.image.shape[:2]
    ids = LABEL_MAPS[stream].ids
    image = {
        'id': image_id,
        'width': width,
        'height': height,
        # mmdet makes the path of an LVIS image out of this address; nothing is fetched.
        'coco_url': f'http://images.cocodataset.org/{where}/{name}',
    }
    if stream == 'coco':
        image['file_name'] = name
    else:
        # All eight classes are annotated in full, so those that are absent are known to be.
        image['neg_category_ids'] = sorted(set(ids) - {ids[label] for label in still.labels})
        image['not_exhaustive_category_ids'] = []
    annotations = []
    for label, mask in zip(still.labels, still.masks, strict=True):
        x1, y1, x2, y2 = mask_box(mask)
        annotation = {
            'image_id': image_id,
            'category_id': ids[label],
            'bbox': [x1, y1, x2 - x1, y2 - y1],
            'area': int(mask.sum()),
            'segmentation': encode_mask(mask),
        }
        if stream == 'coco':
            annotation['iscrowd'] = 0
        annotations.append(annotation)
    return {'image': image, 'annotations': annotations}


def write_annotation_files(
    folder: Path, stream: str, stills: dict[str, list[dict[str, Any]]]
) -> None:
    """Write the annotation files of both splits.

    Args:
        folder: Root of the data set.
        stream: ``'coco'`` or ``'lvis'``.
        stills: What ``write_detection_still`` gave for ``'train'`` and ``'val'``, in order.
    """
    name = {'coco': 'instances_{}2017.json', 'lvis': 'lvis_v1_{}.json'}[stream]
    annotations, number = {}, 0
    for split, members in stills.items():
        annotations[split] = []
        for annotation in (part for still in members for part in still['annotations']):
            number += 1
            annotations[split].append({'id': number, **annotation})
    categories = coco_categories() if stream == 'coco' else lvis_categories(annotations['train'])
    (folder / 'annotations').mkdir(parents=True, exist_ok=True)
    for split, members in stills.items():
        content = {
            'info': {'description': f'MiniScenes in the layout of {stream}', 'version': '1.0'},
            'licenses': [],
            'images': [still['image'] for still in members],
            'annotations': annotations[split],
            'categories': categories,
        }
        (folder / 'annotations' / name.format(split)).write_text(json.dumps(content))
