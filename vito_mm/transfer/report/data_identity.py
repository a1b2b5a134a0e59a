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

from vito_mm.checkpoint.config_parts import placed_datasets, type_name
from vito_mm.utils.hashing import sha256_of_file
from vito_mm.utils.text import count_text

PUBLIC_SETS = {
    ('PascalVOCDataset', 1449): 'PASCAL VOC',
    ('ADE20KDataset', 2000): 'ADE20K',
    ('CityscapesDataset', 500): 'Cityscapes',
    ('BDD100KDataset', 1000): 'BDD100K',
    ('CocoDataset', 5000): 'COCO',
    ('CocoDataset', 10_000): 'BDD100K',
}
"""Public data sets by OpenMMLab's class and the number of images in their validation set."""

IMAGENET = (1000, 50_000)
"""Classes and validation images of ImageNet-1k."""

UCF101 = 13_320
"""Videos of UCF101."""

_OF_DAVIS = ('JPEGImages/480p', 'Annotations/480p')
_LVIS_BYTES = 100_000_000  # of the list of LVIS' validation images, at least


@dataclass(frozen=True)
class DataIdentity:
    """The data of an evaluation.

    Attributes:
        name (str): Of the data set if it is a known one, else its folder, or file.
        text (str): What is counted in it, such as ``'8 classes, 160 images'``.
        digest (str): Hash of the number of files by folder, sizes of some, and content of lists.
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
        folders = [f'{kind}/{name}' for name in names for kind in _OF_DAVIS]
        facts = [fact for each in folders for fact in (each, *_listing(place / each).facts)]
        return DataIdentity(named, count_text(len(names), 'sequence'), _digest(*facts))
    if all((place / part).is_dir() for part in ('train', 'val')):
        train, val = (_listing(place / part) for part in ('train', 'val'))
        classes = len(val.counts)
        if (classes, val.total) == IMAGENET:
            named = 'ImageNet-1k'
        text = f'{classes} classes, {count_text(val.total, "image")}'
        return DataIdentity(named, text, _digest(*train.facts, 'val', *val.facts))
    found = _listing(place)
    if _listing(place, '.avi').total == UCF101:
        named = 'UCF101'
    return DataIdentity(named, count_text(found.total, 'file'), _digest(*found.facts))


def identify_places(places: Mapping[str, str | os.PathLike]) -> DataIdentity:
    """Identify several folders or files together, by the names of their options."""
    found = {name: identify_place(place) for name, place in sorted(places.items())}
    named = ', '.join(f'{name.replace("_", " ")}: {each.name}' for name, each in found.items())
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
                found = _listing(folder)
                counts.append(found.total)
                facts += found.facts
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


@dataclass(frozen=True)
class _Listing:
    """Files below a folder: how many each folder in it has, and sizes of some."""

    counts: Mapping[str, int]
    sizes: Sequence[str]

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def facts(self) -> list[str]:
        return [*(f'{place}/{count}' for place, count in self.counts.items()), *self.sizes]


def _listing(folder: Path, ending: str = '') -> _Listing:
    """List a folder; hidden files do not count, nor those with another ending.

    Files are counted and not named, as there may be millions; data that were made again have the
    same names, but other sizes.
    """
    counts: dict[str, int] = {}
    some: list[str] = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        files = sorted(n for n in files if not n.startswith('.') and n.endswith(ending))
        if files:
            counts[os.path.relpath(place, folder)] = len(files)
            some += [os.path.join(place, name) for name in files[:: max(1, len(files) // 20)]]
    chosen = [file for file in some[:: max(1, len(some) // 1000)] if os.path.exists(file)]
    return _Listing(counts, [f'{os.path.basename(x)}/{os.path.getsize(x)}' for x in chosen])


def _digest(*facts: str) -> str:
    """Hash texts; file names may hold what UTF-8 cannot."""
    data = '\0'.join(facts).encode('utf-8', 'surrogatepass')
    return hashlib.sha256(data).hexdigest()[:16]
