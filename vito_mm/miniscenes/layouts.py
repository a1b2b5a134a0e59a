"""Stills on disk as ADE20K, PASCAL VOC 2012, COCO 2017 and LVIS v1."""

import json
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
from PIL import Image

from .classes import LABEL_MAPS
from .presets import Preset
from .stills import Still, mask_box, render_still

ADE20K_FOLDERS = {'train': 'training', 'val': 'validation'}


def write_ade20k_still(folder: Path, preset: Preset, seed: int, split: str, index: int) -> str:
    """Write a still in the layout of ADE20K; returns its name without an ending.

    Label images hold 1 to 150, which mmseg reduces by one, and no unlabelled pixel.
    """
    still = render_still(preset, seed, 'ade20k', split, index)
    where, labels = ADE20K_FOLDERS[split], LABEL_MAPS['ade20k']
    name = f'ADE_{split}_{index + 1:08d}'
    for kind in ('images', 'annotations'):
        (folder / kind / where).mkdir(parents=True, exist_ok=True)
    write_jpeg(folder / 'images' / where / f'{name}.jpg', still.image)
    write_labels(
        folder / 'annotations' / where / f'{name}.png',
        still.semantic(labels.ids, labels.background),
    )
    return name


def write_voc_still(folder: Path, preset: Preset, seed: int, split: str, index: int) -> str:
    """Write a still in the layout of PASCAL VOC 2012; returns its name without an ending.

    ``SegmentationClassAug`` holds the masks of all stills, ``SegmentationClass`` those of train
    and val alone, as in the original. Masks are exact, so there is no 255 border.
    """
    still = render_still(preset, seed, 'voc', split, index)
    labels = LABEL_MAPS['voc']
    year = {'train': 2007, 'val': 2008, 'aug': 2009}[split]
    name = f'{year}_{index + 1:06d}'
    masks = ['SegmentationClassAug'] + ([] if split == 'aug' else ['SegmentationClass'])
    for kind in ('JPEGImages', 'Annotations', *masks):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    write_jpeg(folder / 'JPEGImages' / f'{name}.jpg', still.image)
    semantic = still.semantic(labels.ids, labels.background)
    for kind in masks:
        write_labels(folder / kind / f'{name}.png', semantic, voc_palette())
    _write_voc_xml(folder / 'Annotations' / f'{name}.xml', f'{name}.jpg', still)
    return name


def _write_voc_xml(file: Path, image_name: str, still: Still) -> None:
    height, width = still.image.shape[:2]
    root = ElementTree.Element('annotation')
    for tag, text in (('folder', 'VOC2012'), ('filename', image_name), ('segmented', '1')):
        ElementTree.SubElement(root, tag).text = text
    size = ElementTree.SubElement(root, 'size')
    for tag, number in (('width', width), ('height', height), ('depth', 3)):
        ElementTree.SubElement(size, tag).text = str(number)
    for label, (x1, y1, x2, y2) in zip(still.labels, still.boxes.tolist(), strict=True):
        item = ElementTree.SubElement(root, 'object')
        ElementTree.SubElement(item, 'name').text = LABEL_MAPS['voc'].names[label]
        for tag, text in (('pose', 'Unspecified'), ('truncated', '0'), ('difficult', '0')):
            ElementTree.SubElement(item, tag).text = text
        box = ElementTree.SubElement(item, 'bndbox')
        # VOC counts pixels from 1 and includes the last one.
        for tag, number in (('xmin', x1 + 1), ('ymin', y1 + 1), ('xmax', x2), ('ymax', y2)):
            ElementTree.SubElement(box, tag).text = str(number)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(file, encoding='utf-8')


def write_voc_lists(folder: Path, names: dict[str, list[str]]) -> None:
    """Write VOC's lists of images from the names of each split."""
    lists = folder / 'ImageSets' / 'Segmentation'
    lists.mkdir(parents=True, exist_ok=True)
    for name, members in {
        **names,
        'trainval': names['train'] + names['val'],
        'trainaug': names['train'] + names['aug'],
    }.items():
        (lists / f'{name}.txt').write_text(''.join(f'{member}\n' for member in members))


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
    """List COCO's 80 categories, whose ids run from 1 to 90 with gaps."""
    ids = (number for number in range(1, 91) if number not in _COCO_UNUSED_IDS)
    return [
        {'id': next(ids), 'name': name, 'supercategory': group}
        for group, names in _COCO_SUPERCATEGORIES
        for name in names.split(',')
    ]


def lvis_categories(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """List LVIS's 1203 categories with their frequencies in a training set.

    As in LVIS, a category in at most 10 training images is rare, in at most 100 common, in more
    frequent. A category without images is rare and counts in no metric.

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
    instances = Counter(item['category_id'] for item in annotations)
    images = Counter(
        category for category, _ in {(x['category_id'], x['image_id']) for x in annotations}
    )
    categories = []
    for number, name in enumerate(LVISV1Dataset.METAINFO['classes'], start=1):
        count = images[number]
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
    """Encode a (height, width) bool mask as COCO's uncompressed run lengths, down the columns."""
    column_major = mask.ravel(order='F')
    changes = np.flatnonzero(column_major[1:] != column_major[:-1]) + 1
    edges = np.concatenate([[0], changes, [column_major.size]])
    counts = np.diff(edges).tolist()
    return {'counts': [0, *counts] if column_major[0] else counts, 'size': list(mask.shape)}


def write_detection_still(
    folder: Path, preset: Preset, seed: int, stream: str, split: str, index: int
) -> dict[str, Any]:
    """Write the picture of a still in the layout of ``'coco'`` or ``'lvis'``.

    Returns:
        dict: ``image`` and ``annotations`` as in an annotation file, the latter without ids.
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
    """Write the annotation files of both splits from the results of the stills, in order."""
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


def write_jpeg(file: Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB as a JPEG of high quality, with the same bytes everywhere."""
    done, data = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not done:
        raise OSError(f'cannot encode {file}')
    file.write_bytes(data.tobytes())


def write_labels(file: Path, labels: np.ndarray, palette: np.ndarray | None = None) -> None:
    """Write (H, W) uint8 labels as a grey PNG, or with (256, 3) uint8 colours as a palette PNG."""
    image = Image.fromarray(labels)
    if palette is not None:
        image = image.convert('L')
        image.putpalette(palette.astype(np.uint8).tobytes())
    image.save(file)


def voc_palette() -> np.ndarray:
    """Compute VOC's colours, (256, 3) uint8: bits of the id spread over the three channels."""
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return palette
