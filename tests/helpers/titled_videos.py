"""Titles for the videos of MiniScenes, as people write them: right, wrong or unrelated."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vito_mm.miniscenes.classes import CLASSES
from vito_mm.miniscenes.seeding import item_rng
from vito_mm.utils.atomic import write_json
from vito_mm.videos.manifest import read_manifest, write_manifest

SYNONYMS = (
    ('zebra plate', 'moon disc', '縞の円盤'),
    ('tartan wedge', 'chequered wedge'),
    ('polka tile', 'domino'),
    ('smudge star', 'blotch fish'),
    ('target cross', 'halo crux'),
    ('moon', 'bare sickle'),
    ('hatched leaf', 'ribleaf'),
    ('sun wheel', 'spoked cog'),
)
"""Invented further names of each class. One name, the moon, is part of another."""

AMBIGUOUS = (
    *('bullseye', 'picnic cloth', 'picnic cloth', 'sunburst'),
    *('bullseye', 'sliver', 'sliver', 'sunburst'),
)
"""The name that each class shares with one other."""

KINDS = dict(right=0.4, synonym=0.25, plural=0.1, several=0.1, ambiguous=0.05, none=0.1)
"""Shares among the titles that are not wrong."""

WRONG = 0.2
"""Share of titles that are."""

_TEMPLATES = (
    *('{}', 'My {} in 4K!', 'How to draw a {} (part 2)', '{} vs the wind | day 3', 'Look: {} 😍'),
    *('why_{}_turns', "The {}'s first day", '“{}” - live', 'Größte {} ever'),
)
_HASHTAG = '#{} #video'
_PLURAL_TEMPLATES = ('{} everywhere', 'Top 10 {}!', 'all about {}…')
_NOTHING = (
    *('something odd', 'striped triangle', 'a square of dots', 'disc, striped', 'wheel'),
    *('moonlight disco', 'my channel trailer', '円', ''),
)


def write_taxonomy(file: str | os.PathLike) -> None:
    """Write the classes with all names to a ``.json`` file, for ``load_taxonomy``."""
    file = Path(file)
    classes = {
        scene_class.title: [*SYNONYMS[label], AMBIGUOUS[label]]
        for label, scene_class in enumerate(CLASSES)
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, classes, ensure_ascii=False)


def draw_titles(labels: Sequence[int], seed: int) -> list[dict[str, Any]]:
    """Draw a title for each video: ``title``, ``kind``, and ``named``, the classes that it names.

    The kinds are ``'wrong'``, which names another class only, and the remaining ones of ``KINDS``:
    ``'right'`` has the title of the class, ``'synonym'`` another of its names, ``'plural'`` its
    plural, ``'several'`` another class too, ``'ambiguous'`` a name shared with another class, and
    ``'none'`` no name of any class.
    """
    return [_draw_title(label, seed, index) for index, label in enumerate(labels)]


def _draw_title(label: int, seed: int, index: int) -> dict[str, Any]:
    # The videos have no split 'aug', so its generators are free.
    rng = item_rng(seed, 'videos', index, split='aug')
    shares = np.array([WRONG, *((1 - WRONG) * share for share in KINDS.values())])
    kind = str(rng.choice(['wrong', *KINDS], p=shares / shares.sum()))
    other = int(label + rng.integers(1, len(CLASSES))) % len(CLASSES)
    name, named, templates = CLASSES[label].title, [label], (*_TEMPLATES, _HASHTAG)
    if kind == 'wrong':
        name, named = CLASSES[other].title, [other]
    elif kind == 'synonym':
        name = str(rng.choice(SYNONYMS[label]))
    elif kind == 'plural':
        plural = name + ('es' if name.endswith('s') else 's')
        name = name[:-1] + 'ves' if name.endswith('f') else plural
        templates = _PLURAL_TEMPLATES
    elif kind == 'several':
        pair = [name, CLASSES[other].title]
        rng.shuffle(pair)
        name, named, templates = ' and '.join(pair), sorted([label, other]), _TEMPLATES
    elif kind == 'ambiguous':
        name = AMBIGUOUS[label]
        named = [index for index, shared in enumerate(AMBIGUOUS) if shared == name]
    elif kind == 'none':
        name, named = str(rng.choice(_NOTHING)), []
    template = str(rng.choice(templates))
    name = [str, str.title, str.upper][rng.integers(3)](name)
    if template == _HASHTAG:
        name = name.replace(' ', '')
    return dict(title=template.format(name), kind=kind, named=named)


def write_titled_table(root: str | os.PathLike, file: str | os.PathLike, seed: int) -> None:
    """Write a table of the videos of MiniScenes, titled, for the curation."""
    videos = list(read_manifest(Path(root) / 'videos' / 'manifest.jsonl'))
    titles = draw_titles([row['label'] for row in videos], seed)
    write_manifest(
        file,
        (
            dict(
                path=os.path.abspath(row['path']),
                title=drawn['title'],
                true_label=row['label'],
                kind=drawn['kind'],
            )
            for row, drawn in zip(videos, titles, strict=True)
        ),
    )
