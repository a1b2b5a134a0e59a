"""Stills on disk as ADE20K and PASCAL VOC 2012."""

from pathlib import Path
from xml.etree import ElementTree

from .classes import LABEL_MAPS
from .files import voc_palette, write_jpeg, write_labels
from .presets import Preset
from .stills import Still, render_still

ADE20K_FOLDERS = {'train': 'training', 'val': 'validation'}


def write_ade20k_still(folder: Path, preset: Preset, seed: int, split: str, index: int) -> str:
    """Write a still as ADE20K has it.

    Label images hold 1 to 150, which mmseg reduces by one, and no unlabelled pixel.

    Args:
        folder: Root of the data set.
        preset: Sizes and ranges.
        seed: Seed of the world.
        split: ``'train'`` or ``'val'``.
        index: Index of the still in its split.

    Returns:
        str: Name of the still, without an ending.
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
    """Write a still as PASCAL VOC 2012 has it.

    ``SegmentationClassAug`` holds the masks of all stills, ``SegmentationClass`` those of train
    and val alone, as in the original. Masks are exact, so there is no 255 border.

    Args:
        folder: Root of the data set (``VOC2012``).
        preset: Sizes and ranges.
        seed: Seed of the world.
        split: ``'train'``, ``'val'`` or ``'aug'``.
        index: Index of the still in its split.

    Returns:
        str: Name of the still, without an ending.
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
    """Write VOC's lists of images.

    Args:
        folder: Root of the data set.
        names: Names of the stills of ``'train'``, ``'val'`` and ``'aug'``.
    """
    lists = folder / 'ImageSets' / 'Segmentation'
    lists.mkdir(parents=True, exist_ok=True)
    for name, members in {
        **names,
        'trainval': names['train'] + names['val'],
        'trainaug': names['train'] + names['aug'],
    }.items():
        (lists / f'{name}.txt').write_text(''.join(f'{member}\n' for member in members))
