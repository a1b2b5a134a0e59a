"""Annotation files of COCO and LVIS: reading, and the faults that a run would meet."""

import functools
import json
import math
import os
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LISTS = ('images', 'annotations', 'categories')

_SAMPLE = 1000
"""Masks that are drawn, at least, where there are as many."""

_NO_BOX = array('d', [math.nan] * 4)
_WHOLE, _PARTLY, _HEADLESS, _POINTLESS, _BROKEN, _NONE = range(6)
"""States of a segmentation: fine; some parts of less than three points; the first part of one or
two, which pycocotools fails on; no part of three; no segmentation; none there."""


@dataclass(frozen=True)
class Uses:
    """Purposes of an annotation file in a run.

    Attributes:
        learns (bool): Whether a model is trained on it.
        masks (bool): Whether masks are learnt from or measured.
        metric (str): Whose rules measure by it: ``'coco'`` for pycocotools', ``'lvis'`` for those
            of :class:`.FasterLVISMetric`; empty for none.
        name_key (str): Field that says which file an image is; empty where images are not read.
        classes (frozenset[str], optional): Names of the categories that are used. Defaults to None,
            which means all.
    """

    learns: bool = False
    masks: bool = False
    metric: str = ''
    name_key: str = ''
    classes: frozenset[str] | None = None


@dataclass
class Annotations:
    """An annotation file, without the points of its outlines.

    Attributes:
        images (list[dict]): Entries of ``images``.
        categories (list[dict]): Entries of ``categories``.
        ids (list): Id of each annotation, None where there is none, like the following.
        image_ids (list): Id of the image of each.
        category_ids (list): Id of the category of each.
        boxes (np.ndarray): Left, top, width and height in pixels, float64, shape (N, 4); NaN where
            it is not four numbers.
        areas (np.ndarray): float64, shape (N, ); NaN where it is no number.
        crowds (np.ndarray): Flag ``iscrowd``, int8, shape (N, ); -1 where there is none.
        ignored (np.ndarray): Flag ``ignore``, bool, shape (N, ).
        outlines (np.ndarray): State of the segmentation, int8, shape (N, ).
        mask_sizes (dict[int, list]): Height and width that run-length encodings name, by index.
        sample (dict[int, Any]): Some of the segmentations, by index.
    """

    images: list = field(default_factory=list)
    categories: list = field(default_factory=list)
    ids: list = field(default_factory=list)
    image_ids: list = field(default_factory=list)
    category_ids: list = field(default_factory=list)
    boxes: Any = field(default_factory=lambda: array('d'))
    areas: Any = field(default_factory=lambda: array('d'))
    crowds: Any = field(default_factory=lambda: array('b'))
    ignored: Any = field(default_factory=lambda: array('b'))
    outlines: Any = field(default_factory=lambda: array('b'))
    mask_sizes: dict[int, list] = field(default_factory=dict)
    sample: dict[int, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[tuple[str, Any]]) -> 'Annotations':
        """Collect the entries of a file.

        Args:
            entries (Iterable[tuple[str, Any]]): Name of the list, one of :data:`LISTS`, and entry.

        Returns:
            Annotations: All of them.

        Raises:
            ValueError: If an entry is no object.
        """
        found, step = cls(), 1
        for name, entry in entries:
            if type(entry) is not dict:
                raise ValueError(f'{name} holds {str(entry)[:40]!r}, which is no object')
            if name != 'annotations':
                (found.images if name == 'images' else found.categories).append(entry)
                continue
            index = len(found.ids)
            found._add(index, entry)
            if index % step == 0:
                found.sample[index] = entry.get('segmentation')
                if len(found.sample) >= 2 * _SAMPLE:
                    step *= 2
                    for dropped in [each for each in found.sample if each % step]:
                        del found.sample[dropped]
        found.boxes = np.array(found.boxes).reshape(-1, 4)
        for name in ('areas', 'crowds', 'ignored', 'outlines'):
            setattr(found, name, np.array(getattr(found, name)))
        return found

    def _add(self, index: int, entry: dict) -> None:
        self.ids.append(entry.get('id'))
        self.image_ids.append(entry.get('image_id'))
        self.category_ids.append(entry.get('category_id'))
        try:
            x, y, width, height = entry['bbox']
            self.boxes.extend(array('d', (x, y, width, height)))
        except (KeyError, TypeError, ValueError):
            self.boxes.extend(_NO_BOX)
        area, crowd = entry.get('area'), entry.get('iscrowd')
        self.areas.append(area if isinstance(area, (int, float)) else math.nan)
        self.crowds.append(-1 if crowd is None else bool(crowd))
        self.ignored.append(bool(entry.get('ignore')))
        shape = entry.get('segmentation')
        self.outlines.append(_outline(shape))
        if isinstance(shape, dict):
            self.mask_sizes[index] = shape.get('size')


def read_annotations(file: str) -> Annotations:
    """Read an annotation file of COCO or LVIS.

    It is parsed entry by entry, so that a file of a million annotations takes its own size in
    memory and not five times as much.

    Args:
        file (str): The file.

    Returns:
        Annotations: What it holds.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON as mmdet reads it, or lacks one of the three lists.
    """
    status = os.stat(file)
    return _read(file, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read(file: str, size: int, mtime_ns: int) -> Annotations:
    try:
        with open(file, encoding='utf-8') as opened:
            text = opened.read()
    except UnicodeDecodeError as error:
        raise ValueError(f'it is no UTF-8 text, {error}') from None
    if not text.strip():
        raise ValueError('it is empty')
    if text.startswith('\ufeff'):
        raise ValueError('it begins with a byte order mark, which pycocotools refuses: remove it')
    seen: set[str] = set()
    try:
        found = Annotations.of(_entries(text, seen))
    except json.JSONDecodeError as error:
        raise ValueError(f'it is no JSON, {error}') from None
    for name in LISTS:
        if name not in seen:
            raise ValueError(f'it has no "{name}"')
    return found


def _entries(text: str, seen: set[str]) -> Iterator[tuple[str, Any]]:
    """The entries of the lists of a JSON object, one after the other."""
    decode = json.JSONDecoder().raw_decode
    blank = re.compile(r'[ \t\n\r]*').match

    def take(signs: str, place: int) -> tuple[str, int]:
        place = blank(text, place).end()
        if place >= len(text) or text[place] not in signs:
            raise json.JSONDecodeError(f'Expecting one of {" ".join(signs)}', text, place)
        return text[place], blank(text, place + 1).end()

    sign, place = take('{', 0)
    if text[place : place + 1] == '}':
        sign, place = take('}', place)
    while sign != '}':
        key, place = decode(text, place)
        if not isinstance(key, str):
            raise json.JSONDecodeError('Expecting a name', text, place)
        _, place = take(':', place)
        if key in LISTS and text[place : place + 1] == '[':
            if key in seen:
                raise ValueError(f'it has "{key}" twice')
            seen.add(key)
            sign, place = take('[', place)
            if text[place : place + 1] == ']':
                sign, place = take(']', place)
            while sign != ']':
                entry, place = decode(text, place)
                yield key, entry
                sign, place = take(',]', place)
        else:
            _, place = decode(text, place)
        sign, place = take(',}', place)
    if place < len(text):
        raise json.JSONDecodeError('Extra data', text, place)


def _outline(shape: Any) -> int:
    """State of a segmentation, as far as can be told without drawing it."""
    if not shape:
        return _NONE
    if isinstance(shape, dict):
        counts, size = shape.get('counts'), shape.get('size')
        if not (isinstance(counts, (list, str)) and isinstance(size, list) and len(size) == 2):
            return _BROKEN
        if isinstance(counts, list) and sum(counts) != size[0] * size[1]:
            return _BROKEN
        return _WHOLE
    if not isinstance(shape, list) or not all(isinstance(part, list) for part in shape):
        return _BROKEN
    drawn = sum(len(part) >= 6 and len(part) % 2 == 0 for part in shape)
    if not drawn:
        return _POINTLESS
    return _HEADLESS if len(shape[0]) <= 4 else _WHOLE if drawn == len(shape) else _PARTLY


def problems(found: Annotations, uses: Uses) -> Iterator[str]:
    """Faults of an annotation file on which a run would fail, or be measured wrongly.

    Args:
        found (Annotations): The file.
        uses (Uses): Purposes of the file.

    Yields:
        str: A fault, with the number of entries that have it and the first of them.
    """
    yield from _field_problems(found, uses)
    numbered = {_key(image.get('id')): index for index, image in enumerate(found.images)}
    for name, ids in (
        ('images', [image.get('id') for image in found.images]),
        ('annotations', found.ids),
        ('categories', [category.get('id') for category in found.categories]),
    ):
        yield from _repeated(name, ids)
    if uses.metric == 'coco':
        wrong = [not isinstance(each, (int, float)) or each == 0 for each in found.ids]
        yield from _counted(
            found,
            np.array(wrong, bool),
            'have an id that is 0 or no number, which pycocotools takes for unmatched or fails on. '
            'Number them from 1',
        )
    if not found.ids:
        if uses.learns or uses.metric:
            yield 'annotations: there is none'
        return
    places = np.array([numbered.get(_key(each), -1) for each in found.image_ids])
    sizes = _sizes(found)
    usable, reasons = _usable(found, uses, places, sizes)
    if _is_normalised(found, places, sizes):
        yield (
            f'annotations: no box reaches beyond 1 (the first is {found.boxes[0].tolist()}), so '
            'they seem to be parts of the image, and pixels are needed'
        )
    elif not usable.any():
        purpose = 'is there to learn from' if uses.learns else 'can be measured on'
        told = ', '.join(f'{count} {text}' for text, count in reasons.items())
        yield f'annotations: none of {len(found.ids)} {purpose}: {told}'
    if uses.masks:
        yield from _mask_problems(found, uses, places, sizes)


def remarks(found: Annotations, uses: Uses) -> Iterator[str]:
    """Annotations that are left out, though nobody may have meant it.

    Args:
        found (Annotations): A file without :func:`problems`.
        uses (Uses): Purposes of the file.

    Yields:
        str: A remark, if it is more than one in a hundred.
    """
    numbered = {_key(image.get('id')): index for index, image in enumerate(found.images)}
    places = np.array([numbered.get(_key(each), -1) for each in found.image_ids])
    _, reasons = _usable(found, uses, places, _sizes(found))
    for text, count in reasons.items():
        meant = text in (_CROWD, _OTHER, _IGNORED)
        if not meant and count > len(found.ids) / 100:
            yield f'{count} of {len(found.ids)} annotations are left out, since each {text}'


def names_of(found: Annotations) -> tuple[str, ...]:
    """Names of the categories of an annotation file, in its order.

    Args:
        found (Annotations): The file.

    Returns:
        tuple[str, ...]: The names.

    Raises:
        ValueError: If it has no categories, or some have no id or no name.
    """
    if not found.categories:
        raise ValueError('it has no "categories"')
    if any(each.get('id') is None or each.get('name') is None for each in found.categories):
        raise ValueError('some of its "categories" have no id or no name')
    return tuple(str(each['name']) for each in found.categories)


def used_images(found: Annotations, uses: Uses, only_annotated: bool) -> list[dict]:
    """Images that a run reads.

    Args:
        found (Annotations): A file without :func:`problems`.
        uses (Uses): Purposes of the file.
        only_annotated (bool): Whether images without a category of the classes are left out.

    Returns:
        list[dict]: Entries of ``images``.
    """
    if not only_annotated:
        return found.images
    known = _known_categories(found, uses)
    annotated = {
        image
        for image, category in zip(found.image_ids, found.category_ids, strict=True)
        if category in known
    }
    return [image for image in found.images if image['id'] in annotated]


_CROWD = 'is a crowd'
_OTHER = 'has a category that is none of the classes'
_IGNORED = 'is marked "ignore"'


def _usable(
    found: Annotations, uses: Uses, places: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, Counter[str]]:
    """Which annotations count, and why the others do not: the conditions of mmdet's data sets."""
    known = _known_categories(found, uses)
    x, y, width, height = found.boxes.T
    image_width, image_height = sizes[places].T
    across = np.minimum(x + width, image_width) - np.maximum(x, 0)
    down = np.minimum(y + height, image_height) - np.maximum(y, 0)
    conditions: dict[str, np.ndarray] = {
        'names an image that is not listed': places < 0,
        _OTHER: ~np.array([_key(each) in known for each in found.category_ids], bool),
        _IGNORED: found.ignored.astype(bool),
        _CROWD: found.crowds == 1 if uses.metric != 'lvis' else np.zeros(len(places), bool),
    }
    if uses.learns:
        conditions |= {
            'has a box outside its image': ~((across > 0) & (down > 0)),
            'has an area of 0': ~(found.areas > 0),
            'has a box of less than a pixel': ~((width >= 1) & (height >= 1)),
        }
        if uses.masks:
            conditions['has an outline of less than three points'] = found.outlines == _POINTLESS
    elif uses.metric == 'lvis':
        conditions['has an area of 0'] = ~(found.areas > 0)
    usable, reasons = np.ones(len(places), bool), Counter()
    for text, hit in conditions.items():
        if count := int((usable & hit).sum()):
            reasons[text] = count
        usable &= ~hit
    return usable, reasons


def _known_categories(found: Annotations, uses: Uses) -> set:
    return {
        _key(category.get('id'))
        for category in found.categories
        if uses.classes is None or category.get('name') in uses.classes
    }


def _sizes(found: Annotations) -> np.ndarray:
    """Width and height of the images, and of none for those that are not listed (the last row)."""
    pairs = [(image.get('width'), image.get('height')) for image in found.images]
    rows = [pair if all(map(_is_size, pair)) else (math.nan, math.nan) for pair in pairs]
    return np.array([*rows, (math.nan, math.nan)])


def _is_normalised(found: Annotations, places: np.ndarray, sizes: np.ndarray) -> bool:
    x, y, width, height = found.boxes.T
    ends = np.maximum(x + width, y + height)
    return bool(np.nanmax(sizes[places], initial=0.0) > 2 and (ends <= 1.001).all())


def _field_problems(found: Annotations, uses: Uses) -> Iterator[str]:
    """Fields that are missing or no such value."""
    wanted: dict[str, Callable[[Any], bool]] = dict(id=_is_id)
    if uses.name_key:
        wanted |= {uses.name_key: lambda value: isinstance(value, str) and bool(value)}
    if uses.name_key or uses.masks or uses.metric == 'lvis':
        wanted |= dict(width=_is_size, height=_is_size)
    if uses.metric == 'lvis':
        federated = ('neg_category_ids', 'not_exhaustive_category_ids')
        wanted |= {name: lambda value: isinstance(value, list) for name in federated}
    yield from _entry_problems('images', found.images, wanted)
    wanted = dict(id=_is_id, name=lambda value: value is not None)
    if uses.metric == 'lvis':
        wanted['frequency'] = lambda value: value in ('r', 'c', 'f')
    yield from _entry_problems('categories', found.categories, wanted)
    for name, wrong in {
        'id': [not _is_id(each) for each in found.ids],
        'image_id': [not _is_id(each) for each in found.image_ids],
        'category_id': [not _is_id(each) for each in found.category_ids],
        'bbox of four numbers': ~np.isfinite(found.boxes).all(axis=1),
        'area': ~np.isfinite(found.areas),
        'iscrowd (0 or 1)': found.crowds < 0 if uses.metric == 'coco' else (),
        'segmentation': found.outlines == _NONE if uses.masks else (),
    }.items():
        yield from _counted(found, np.array(wrong, bool), f'have no {name}')


def _entry_problems(
    name: str, entries: Sequence[Mapping], wanted: Mapping[str, Callable[[Any], bool]]
) -> Iterator[str]:
    for key, is_fine in wanted.items():
        wrong = [entry for entry in entries if not is_fine(entry.get(key))]
        if wrong:
            first = wrong[0]
            yield (
                f'{name}: {len(wrong)} of {len(entries)} have no {_FIELDS.get(key, key)}, the '
                f'first is that of id {first.get("id")!r}, with {key}={first.get(key)!r}'
            )


_FIELDS = dict(
    width='width in pixels',
    height='height in pixels',
    frequency='frequency "r", "c" or "f" (1 to 10, 11 to 100, more than 100 training images)',
    neg_category_ids='list neg_category_ids, the categories that were looked for and not found',
    not_exhaustive_category_ids='list not_exhaustive_category_ids',
)


def _counted(found: Annotations, wrong: np.ndarray, fault: str) -> Iterator[str]:
    indices = np.flatnonzero(wrong)
    if len(indices):
        first = int(indices[0])
        yield (
            f'annotations: {len(indices)} of {len(found.ids)} {fault}. The first is number '
            f'{first + 1} of the list, with id {found.ids[first]!r}, of image '
            f'{found.image_ids[first]!r}'
        )


def _repeated(name: str, ids: Sequence[Any]) -> Iterator[str]:
    counts = Counter(map(_key, ids))
    if twice := [each for each, count in counts.items() if count > 1 and each is not None]:
        shown = ', '.join(repr(each) for each in twice[:3]) + ', ...' * (len(twice) > 3)
        yield f'{name}: {len(twice)} ids come more than once ({shown}), and each must be of one'


def _mask_problems(
    found: Annotations, uses: Uses, places: np.ndarray, sizes: np.ndarray
) -> Iterator[str]:
    """Masks that cannot be drawn: all by their form, some by drawing them."""
    bad = found.outlines == _BROKEN
    if uses.metric:  # in training mmdet leaves such parts out
        bad |= (found.outlines == _POINTLESS) | (found.outlines == _HEADLESS)
    yield from _counted(found, bad, 'have a segmentation that is neither outlines nor an encoding')
    other = np.zeros(len(places), bool)
    for index, size in found.mask_sizes.items():
        other[index] = places[index] >= 0 and list(sizes[places[index]][::-1]) != size
    yield from _counted(found, other & ~bad, 'have a mask of another size than their image')
    failed, empty, drawn, error_text = np.zeros_like(bad), np.zeros_like(bad), 0, ''
    for index, shape in found.sample.items():
        if bad[index] or other[index] or places[index] < 0 or found.outlines[index] >= _POINTLESS:
            continue
        width, height = sizes[places[index]]
        if math.isnan(width):
            continue
        try:
            area = _area(shape, int(height), int(width))
        except Exception as error:  # whatever pycocotools makes of it
            failed[index] = True
            error_text = error_text or f'{type(error).__name__}: {error}'
        else:
            if found.boxes[index, 2:].min() >= 4:
                drawn += 1
                empty[index] = area == 0
    yield from _counted(found, failed, f'(of a sample) have a mask that is broken, {error_text}')
    if empty.sum() > drawn / 2:
        fault = f'(of {drawn} that were drawn) have an empty mask; pixels are needed'
        yield from _counted(found, empty, fault)


def _area(shape: Any, height: int, width: int) -> int:
    """Pixels of a mask, drawn as mmdet does."""
    from pycocotools import mask as masks

    if isinstance(shape, list):
        parts = [part for part in shape if len(part) >= 6 and len(part) % 2 == 0]
        shape = masks.merge(masks.frPyObjects(parts, height, width))
    elif isinstance(shape['counts'], list):
        shape = masks.frPyObjects(shape, height, width)
    return int(masks.decode(shape).sum())


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, float, str))


def _is_size(value: Any) -> bool:
    return isinstance(value, (int, float)) and value > 0


def _key(value: Any) -> Any:
    """An id, or None for what can be none, such as a list."""
    return value if _is_id(value) else None
