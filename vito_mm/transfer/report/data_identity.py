"""Identity of the data of an evaluation: where they lie does not matter, which files they are does.

The data sets that papers report on are recognised, so that published figures are shown next to
results on them alone.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vito_mm.checkpoint.config_parts import type_name
from vito_mm.transfer.identity import placed_datasets
from vito_mm.utils.hashing import sha256_of_file
from vito_mm.utils.text import count_text

PUBLIC_SETS = {
    ('PascalVOCDataset', 1449): 'PASCAL VOC',
    ('ADE20KDataset', 2000): 'ADE20K',
    ('CityscapesDataset', 500): 'Cityscapes',
    ('BDD100KDataset', 1000): 'BDD100K',
    ('CocoDataset', 5000): 'COCO',
}
"""Public data sets by OpenMMLab's class and the number of images in their validation set."""

IMAGENET = (1000, 50_000)
"""Classes and validation images of ImageNet-1k."""

UCF101 = 13_320
"""Videos of UCF101."""

_MASKS = Path('Annotations/480p')
_LVIS_BYTES = 100_000_000  # of the list of LVIS' validation images, at least
_SIZES = 1000  # files whose size is looked at: all of ImageNet's would take minutes on some disks


@dataclass(frozen=True)
class DataIdentity:
    """The data of an evaluation.

    Attributes:
        name (str): Of the data set if it is a known one, else its folder, or file.
        text (str): What is counted in it, such as ``'8 classes, 160 images'``.
        digest (str): Hash of the files' names, of some of their sizes, and of lists' content.
    """

    name: str
    text: str = ''
    digest: str = ''


def identify_place(place: str | os.PathLike, split: str = 'val') -> DataIdentity:
    """Identify a folder of images or videos, or a manifest.

    Args:
        place: Folder with ``train/<class>/`` and ``val/<class>/``, one laid out as DAVIS 2017, any
            other, or a file.
        split (str): List of DAVIS' layout. Defaults to 'val'.
    """
    place = Path(place)
    named = '/'.join(place.absolute().parts[-2:]).strip('/')
    if place.is_file():
        return DataIdentity(named, digest=sha256_of_file(place)[:16])
    listed = place / 'ImageSets' / '2017' / f'{split}.txt'
    if listed.is_file():
        names = listed.read_text().split()
        if split == 'val' and len(names) == 30 and {'bike-packing', 'blackswan'} <= {*names}:
            named = 'DAVIS 2017'
        files = [f'{listed.name}/{name}/{len(_names(place / _MASKS / name))}' for name in names]
        sample = _sizes(place / _MASKS, [f'{name}/00000.png' for name in names])
        return DataIdentity(named, count_text(len(names), 'sequence'), _digest(*files, *sample))
    if all((place / part).is_dir() for part in ('train', 'val')):
        train, val = (_names(place / part) for part in ('train', 'val'))
        classes = len({name.partition('/')[0] for name in val if '/' in name})
        if (classes, len(val)) == IMAGENET:
            named = 'ImageNet-1k'
        parts = [*(f'train/{name}' for name in train), *(f'val/{name}' for name in val)]
        text = f'{classes} classes, {count_text(len(val), "image")}'
        return DataIdentity(named, text, _digest(*parts, *_sizes(place, parts)))
    files = _names(place)
    if sum(name.endswith('.avi') for name in files) == UCF101:
        named = 'UCF101'
    text = count_text(len(files), 'file')
    return DataIdentity(named, text, _digest(*files, *_sizes(place, files)))


def identify_places(places: Mapping[str, str | os.PathLike]) -> DataIdentity:
    """Identify several folders or files together, by the names of their options."""
    found = {name: identify_place(place) for name, place in sorted(places.items())}
    named = ', '.join(each.name for each in found.values())
    facts = (f'{name}/{each.digest}' for name, each in found.items())
    return DataIdentity(named, digest=_digest(*facts) if found else '')


def identify_data_sets(train: Mapping[str, Any], val: Mapping[str, Any]) -> DataIdentity:
    """Identify the data sets of a config of mmseg or mmdet.

    Args:
        train (Mapping): Data set to learn from.
        val (Mapping): Data set to measure on.
    """
    facts: list[str] = []
    images = 0
    known = ''
    for part, config in (('train', train), ('val', val)):
        for _, leaf in placed_datasets(config, ''):
            kind, root = type_name(leaf), Path(leaf.get('data_root') or '')
            facts.append(f'{part}/{kind}')
            prefixes = leaf.get('data_prefix') or {}
            folders = [root / place for place in prefixes.values() if place is not None]
            listed = root / (leaf.get('ann_file') or '')
            if listed.is_file():
                facts.append(f'{listed.name}/{sha256_of_file(listed)}')
            counts = []
            for folder in folders or [root]:
                names = _names(folder)
                counts.append(len(names))
                facts += [*names, *_sizes(folder, names)]
            if part == 'train':
                continue
            if listed.suffix == '.txt':
                images += sum(bool(line.strip()) for line in listed.read_text().splitlines())
            else:
                images += min(counts)
            known = PUBLIC_SETS.get((kind, images), '')
            if kind.startswith('LVIS') and listed.stat().st_size > _LVIS_BYTES:
                known = 'LVIS'
            named = '/'.join(root.absolute().parts[-2:]).strip('/')
    return DataIdentity(known or named, count_text(images, 'image'), _digest(*facts))


def _names(folder: Path) -> list[str]:
    """Files below a folder, relative to it, sorted; hidden ones do not count."""
    found = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith('.')]
        below = os.path.relpath(place, folder)
        found += [os.path.normpath(f'{below}/{name}') for name in files if not name.startswith('.')]
    return sorted(found)


def _sizes(folder: Path, names: Sequence[str]) -> list[str]:
    """Sizes of some files, evenly chosen: data that were made again have the same names."""
    step = max(1, len(names) // _SIZES)
    places = [os.path.join(folder, name) for name in names[::step]]
    return [str(os.path.getsize(place)) for place in places if os.path.exists(place)]


def _digest(*facts: str) -> str:
    """Hash texts; file names may hold what UTF-8 cannot."""
    data = '\0'.join(facts).encode('utf-8', 'surrogatepass')
    return hashlib.sha256(data).hexdigest()[:16]
