"""Annotation files of COCO and LVIS: reading, and the faults that a run would meet."""

import functools
import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vito_mm.utils.text import first_few

LISTS = ('images', 'annotations', 'categories')

_SAMPLE = 1000
"""Masks that are drawn."""

_PART = (list, array)
"""Types of a part of an outline."""


@dataclass(frozen=True)
class Uses:
    """Purposes of an annotation file in a run.

    Attributes:
        learns (bool): A model is trained on it.
        masks (bool): Masks are learnt from or measured.
        metric (str): Rules that measure by it: ``'coco'`` for pycocotools', ``'lvis'`` for those of
            :class:`.FasterLVISMetric`; empty for none.
        name_key (str): Field that names the file of an image; empty where images are not read.
        classes (frozenset[str], optional): Names of the categories that are used. Defaults to None,
            which means all.
    """

    learns: bool = False
    masks: bool = False
    metric: str = ''
    name_key: str = ''
    classes: frozenset[str] | None = None


def read_annotations(file: str) -> dict[str, list[dict]]:
    """Read an annotation file of COCO or LVIS.

    Args:
        file (str): The file.

    Returns:
        dict[str, list[dict]]: Its content.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON as mmdet reads it, or lacks one of ``LISTS``.
    """
    with open(file, encoding='utf-8') as opened:
        content = json.load(opened, object_hook=_with_compact_outlines)
    for name in LISTS:
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise ValueError(f'it has no "{name}"')
        if wrong := [entry for entry in entries if not isinstance(entry, dict)]:
            raise ValueError(f'{name} holds {str(wrong[0])[:40]!r}, which is no object')
    return content


def _with_compact_outlines(entry: dict) -> dict:
    """Keep outlines as arrays: lists of numbers take four times the memory."""
    shape = entry.get('segmentation')
    if isinstance(shape, list):
        with suppress(TypeError, OverflowError):  # what is no outline stays, and is reported
            entry['segmentation'] = [
                array('d', part) if isinstance(part, list) else part for part in shape
            ]
    return entry


def names_of(content: Mapping[str, list[dict]]) -> tuple[str, ...]:
    """Names of the categories of an annotation file, in its order.

    Raises:
        ValueError: If it has no categories, or some have no id or no name.
    """
    categories = content['categories']
    if not categories:
        raise ValueError('it has no "categories"')
    if any(each.get('id') is None or each.get('name') is None for each in categories):
        raise ValueError('some of its "categories" have no id or no name')
    return tuple(str(each['name']) for each in categories)


def problems(content: Mapping[str, list[dict]], uses: Uses) -> list[str]:
    """Find faults of an annotation file on which a run would fail, or be measured wrongly.

    Args:
        content (Mapping[str, list[dict]]): The file.
        uses (Uses): Purposes of the file.

    Returns:
        list[str]: Faults, with the number of entries that have it and the first of them.
    """
    found: list[str] = []
    for name, wanted in _wanted(uses).items():
        found += _counted(name, content[name], functools.partial(_missing, wanted))
        counts = Counter(_key(each.get('id')) for each in content[name])
        twice = [each for each, count in counts.items() if count > 1 and each is not None]
        if twice:
            shown = first_few([repr(each) for each in twice], 3)
            found.append(
                f'{name}: {len(twice)} ids come more than once ({shown}), and each must be of one'
            )
    annotations = content['annotations']
    if not annotations and (uses.learns or uses.metric):
        found.append('annotations: there is none')
    if found or not annotations:  # without its fields nothing else can be told of an entry
        return found
    sizes = {each['id']: (each.get('width'), each.get('height')) for each in content['images']}
    sides = [size[0] for size in sizes.values() if _is_positive(size[0])]
    ends = (max(x + w, y + h) for x, y, w, h in (each['bbox'] for each in annotations))
    reasons = _reasons(content, uses)
    if max(sides, default=0) > 2 and all(end <= 1.001 for end in ends):
        found.append(
            f'annotations: no box reaches beyond 1 (the first is {annotations[0]["bbox"]}), so '
            'they seem to be parts of the image, and pixels are needed'
        )
    elif reasons.total() == len(annotations):
        purpose = 'is there to learn from' if uses.learns else 'can be measured on'
        listed = ', '.join(f'{count} {text}' for text, count in reasons.items())
        found.append(f'annotations: none of {len(annotations)} {purpose}: {listed}')
    if uses.masks:
        form = functools.partial(_mask_fault, sizes=sizes, uses=uses)
        found += _counted('annotations', annotations, form)
        if not any('segmentation' in text or 'mask' in text for text in found):
            found += _drawing_problems(annotations, sizes)
    return found


def remarks(content: Mapping[str, list[dict]], uses: Uses) -> Iterator[str]:
    """Reasons for which more than one annotation in a hundred is skipped by mistake.

    Args:
        content (Mapping[str, list[dict]]): A file without :func:`problems`.
        uses (Uses): Purposes of the file.

    Yields:
        str: A warning.
    """
    number = len(content['annotations'])
    for text, count in _reasons(content, uses).items():
        if text not in (_CROWD, _OTHER, _IGNORED) and count > number / 100:
            yield f'{count} of {number} annotations are skipped, since each {text}'


def used_images(
    content: Mapping[str, list[dict]], uses: Uses, only_annotated: bool = False
) -> list[dict]:
    """Images that a run reads: all, or those with an annotation of one of the classes."""
    if not only_annotated:
        return content['images']
    known = _known_categories(content, uses)
    entries = content['annotations']
    annotated = {each['image_id'] for each in entries if each['category_id'] in known}
    return [image for image in content['images'] if image['id'] in annotated]


_CROWD = 'is a crowd'
_OTHER = 'has a category that is none of the classes'
_IGNORED = 'is marked "ignore"'


def _reasons(content: Mapping[str, list[dict]], uses: Uses) -> Counter[str]:
    """Reasons for which annotations do not count, and for how many of them: mmdet's conditions."""
    known = _known_categories(content, uses)
    sizes = {each['id']: (each.get('width'), each.get('height')) for each in content['images']}

    def reason(entry: Mapping) -> str:
        if entry['image_id'] not in sizes:
            return 'names an image that is not listed'
        if entry['category_id'] not in known:
            return _OTHER
        if entry.get('ignore'):
            return _IGNORED
        if entry.get('iscrowd') and uses.metric != 'lvis':
            return _CROWD
        if uses.learns:
            x, y, width, height = entry['bbox']
            image_width, image_height = sizes[entry['image_id']]
            if min(x + width, image_width) <= max(x, 0) or min(y + height, image_height) <= max(
                y, 0
            ):
                return 'has a box outside its image'
            if width < 1 or height < 1:
                return 'has a box of less than a pixel'
            shape = entry.get('segmentation')
            if uses.masks and isinstance(shape, list) and not any(map(_is_outline, shape)):
                return 'has an outline of less than three points'
        if (uses.learns or uses.metric == 'lvis') and entry['area'] <= 0:
            return 'has an area of 0'
        return ''

    counts = Counter(map(reason, content['annotations']))
    del counts['']
    return counts


def _known_categories(content: Mapping[str, list[dict]], uses: Uses) -> set:
    return {
        category['id']
        for category in content['categories']
        if uses.classes is None or category['name'] in uses.classes
    }


def _wanted(uses: Uses) -> dict[str, dict[str, tuple[Callable[[Any], bool], str]]]:
    """Conditions on the fields that a run reads, by list and field, each with its words."""
    images = dict(id=(_is_id, 'id'))
    annotations = dict(
        id=(_is_id, 'id'),
        image_id=(_is_id, 'image_id'),
        category_id=(_is_id, 'category_id'),
        bbox=(_is_box, 'bbox of four numbers'),
        area=(_is_number, 'area'),
    )
    categories = dict(id=(_is_id, 'id'), name=(lambda value: value is not None, 'name'))
    if uses.name_key:
        images[uses.name_key] = (lambda value: isinstance(value, str) and value, uses.name_key)
    if uses.name_key or uses.masks or uses.metric == 'lvis':
        images |= {name: (_is_positive, f'{name} in pixels') for name in ('width', 'height')}
    if uses.masks:
        annotations['segmentation'] = (bool, 'segmentation')
    if uses.metric == 'lvis':
        for name in ('neg_category_ids', 'not_exhaustive_category_ids'):
            images[name] = (lambda value: isinstance(value, list), f'list {name}')
        words = 'frequency "r", "c" or "f" (1 to 10, 11 to 100, more than 100 training images)'
        categories['frequency'] = (lambda value: value in ('r', 'c', 'f'), words)
    if uses.metric == 'coco':
        annotations['iscrowd'] = (lambda value: value is not None, 'iscrowd (0 or 1)')
        words = 'id other than 0 that is a number, and pycocotools takes 0 for unmatched'
        annotations['id'] = (lambda value: _is_number(value) and value != 0, words)
    return dict(images=images, annotations=annotations, categories=categories)


def _missing(wanted: Mapping[str, tuple[Callable[[Any], bool], str]], entry: Mapping) -> str:
    """The first field of an entry that is missing or has another kind of value."""
    for key, (is_fine, words) in wanted.items():
        if not is_fine(entry.get(key)):
            return f'have no {words}'
    return ''


def _counted(
    name: str, entries: Sequence[Mapping], fault_of: Callable[[Mapping], str]
) -> Iterator[str]:
    """Faults of the entries of a list, each with the number of entries and the first of them."""
    indices: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        if fault := fault_of(entry):
            indices.setdefault(fault, []).append(index)
    for fault, (first, *more) in indices.items():
        entry = entries[first]
        image = f', of image {entry["image_id"]!r}' if 'image_id' in entry else ''
        yield (
            f'{name}: {1 + len(more)} of {len(entries)} {fault}. The first is number {first + 1} '
            f'of the list, with id {entry.get("id")!r}{image}'
        )


def _mask_fault(entry: Mapping, sizes: Mapping, uses: Uses) -> str:
    """Fault in the form of a mask; in training mmdet skips parts of less than three points."""
    shape = entry['segmentation']
    if isinstance(shape, dict):
        counts, size = shape.get('counts'), shape.get('size')
        is_fine = isinstance(counts, (list, str)) and isinstance(size, list) and len(size) == 2
        if is_fine and isinstance(counts, list):
            is_fine = sum(counts) == size[0] * size[1]
        if is_fine and sizes.get(entry['image_id']) not in (None, tuple(size[::-1])):
            return 'have a mask of another size than their image'
    else:
        is_fine = isinstance(shape, list) and all(isinstance(part, _PART) for part in shape)
        if is_fine and uses.metric:  # pycocotools fails where the first part has one or two points
            is_fine = any(map(_is_outline, shape)) and len(shape[0]) > 4
    return '' if is_fine else 'have a segmentation that is neither outlines nor an encoding'


def _drawing_problems(annotations: Sequence[Mapping], sizes: Mapping) -> Iterator[str]:
    """Masks of a sample that cannot be drawn, or that are empty."""
    empty: list[bool] = []

    def fault(entry: Mapping) -> str:
        shape = entry['segmentation']
        outlines = isinstance(shape, list)
        if entry['image_id'] not in sizes or (outlines and not any(map(_is_outline, shape))):
            return ''
        width, height = map(int, sizes[entry['image_id']])
        try:
            area = _area(shape, height, width)
        except Exception as error:  # whatever pycocotools makes of it
            return f'(of a sample) have a mask that is broken, {type(error).__name__}: {error}'
        if min(entry['bbox'][2:]) >= 4:
            empty.append(area == 0)
        return ''

    yield from _counted('annotations', annotations[:: 1 + len(annotations) // _SAMPLE], fault)
    if sum(empty) > len(empty) / 2:
        yield (
            f'annotations: {sum(empty)} of {len(empty)} that were drawn have an empty mask; pixels '
            'are needed'
        )


def _area(shape: Any, height: int, width: int) -> int:
    """Pixels of a mask, drawn as mmdet does."""
    from pycocotools import mask as masks

    if isinstance(shape, list):
        parts = [list(part) for part in shape if _is_outline(part)]
        shape = masks.merge(masks.frPyObjects(parts, height, width))
    elif isinstance(shape['counts'], list):
        shape = masks.frPyObjects(shape, height, width)
    return int(masks.decode(shape).sum())


def _is_outline(part: Sequence) -> bool:
    return len(part) >= 6 and len(part) % 2 == 0


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, float, str))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_box(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 4 and all(map(_is_number, value))


def _key(value: Any) -> Any:
    """An id, or None for what can be none, such as a list."""
    return value if _is_id(value) else None
