"""Classes and all their names: ImageNet's 1,000 with WordNet's synonyms, or classes of the user."""

import hashlib
import importlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vito_mm.utils.text import near_text
from vito_mm.videos.tables import RowError, place_in, read_rows

ENDINGS = ('.txt', '.json', '.jsonl', '.csv')
"""Endings of files of classes."""

_IMAGENET_NAMES = {134: 'crane bird', 639: 'maillot tank suit'}
"""Names of the classes whose first WordNet lemma is that of another class; torchvision's."""


@dataclass(frozen=True)
class Taxonomy:
    """Classes in the order of a classifier's outputs.

    Attributes:
        names (tuple[str, ...]): Display name of each class; no two are the same.
        synonyms (tuple[tuple[str, ...], ...]): All names of each class, the display name first. A
            name may belong to several classes.
        ids (tuple[str, ...], optional): Id of each class, such as WordNet's. Defaults to None.
        source (str): Where the classes come from. Defaults to ''.
    """

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    ids: tuple[str, ...] | None = None
    source: str = ''

    @property
    def fingerprint(self) -> str:
        """Hash of the classes and their names, the same wherever they come from."""
        content = json.dumps([self.names, self.synonyms, self.ids])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def select(self, names: Iterable[str]) -> list[int]:
        """Find the classes that a user names.

        A display name means its class alone, spelled exactly or else in other letter case; so does
        an id. Any other name means all classes that have it: in ImageNet ``'crane'`` is the
        machine, ``'crane bird'`` the bird, and ``'panther'`` both cougar and jaguar.

        Returns:
            list[int]: Indices of the classes, ascending.

        Raises:
            ValueError: If a name is unknown, with names of a similar spelling.
        """
        # By what classes may be called, that which counts first ahead.
        display, ids = [[name] for name in self.names], [[name] for name in self.ids or ()]
        tables = [
            (_squeezed, _by_name(_squeezed, display)),
            (_squeezed, _by_name(_squeezed, ids)),
            (_folded, _by_name(_folded, display)),
            (_folded, _by_name(_folded, self.synonyms)),
        ]
        chosen: set[int] = set()
        unknown = []
        for name in names:
            found = (classes.get(fold(name)) for fold, classes in tables)
            if indices := next(filter(None, found), None):
                chosen |= indices
            else:
                known = [*self.names, *itertools.chain(*self.synonyms)]
                unknown.append(f'{name!r}{near_text(name, known, _folded)}')
        if unknown:
            classes = 'class' if len(unknown) == 1 else 'classes'
            source = self.source or 'the taxonomy'
            raise ValueError(f'{source} has no {classes} {", ".join(unknown)}')
        return sorted(chosen)


def _by_name(fold: Callable[[str], str], names: Iterable[Iterable[str]]) -> dict[str, set[int]]:
    classes: dict[str, set[int]] = {}
    for index, group in enumerate(names):
        for name in group:
            classes.setdefault(fold(name), set()).add(index)
    return classes


def load_taxonomy(source: str) -> Taxonomy:
    """Read classes and their names.

    Args:
        source (str): One of

            - ``'imagenet'``: the 1,000 classes of ILSVRC-2012 with all WordNet lemmas, in the
              order of the outputs of torchvision's and mmpretrain's classifiers, as mmpretrain has
              them. The two classes each that WordNet calls crane and maillot get torchvision's
              names.
            - ``'timm:imagenet-22k'`` and the other lists of timm's ``ImageNetInfo``, with ids of
              WordNet. Where classes share their first lemma, its id is added to the name.
            - A file. ``.txt``: a class per line, ``name, synonym, synonym``; lines that start with
              ``#`` are skipped. ``.json``: a list of such lines; or a list of objects with
              ``name``, and maybe ``synonyms`` (a list) and ``id``; or an object of names with
              their synonyms. ``.jsonl``: such an object per line. ``.csv``: columns ``name``, and
              maybe ``synonyms``, separated by ``;``, and ``id``.

    Raises:
        ImportError: If the package that has the list is not installed.
        ValueError: If there is no such source, or something is wrong in a file: names the line.
    """
    source = str(source)
    if source == 'imagenet':
        return _imagenet()
    if source.startswith('timm:'):
        return _from_timm(source)
    file = Path(source)
    if file.suffix not in ENDINGS:
        raise ValueError(
            f"taxonomy {source!r}: give 'imagenet', 'timm:imagenet-22k' or a file that ends in "
            f'{", ".join(ENDINGS)}'
        )
    read = {'.txt': _read_lines, '.json': _read_json}.get(file.suffix, _read_table)
    try:
        return _build(read(file), source)
    except FileNotFoundError:
        raise ValueError(f'there is no taxonomy {source!r}') from None
    except UnicodeError as error:
        raise ValueError(f'{source}: not UTF-8 ({error})') from None


@cache
def _imagenet() -> Taxonomy:
    lines = _import('mmpretrain.datasets.categories', 'imagenet').IMAGENET_CATEGORIES
    lemmas = enumerate(map(_names_in, lines))
    entries = (dict(name=_IMAGENET_NAMES.get(i, group[0]), synonyms=group) for i, group in lemmas)
    return _build((('imagenet', entry) for entry in entries), 'imagenet')


@cache
def _from_timm(source: str) -> Taxonomy:
    data = _import('timm.data', source)
    try:
        info = data.ImageNetInfo(source.removeprefix('timm:'))
    except AssertionError as error:
        raise ValueError(f'taxonomy {source!r}: {error}') from None
    lemmas = {name: _names_in(info.label_name_to_description(name)) for name in info.label_names()}
    counts = Counter(group[0] for group in lemmas.values())
    entries = []
    for class_id, group in lemmas.items():
        name = f'{group[0]} ({class_id})' if counts[group[0]] > 1 else group[0]
        entries.append((source, dict(name=name, synonyms=group, id=class_id)))
    return _build(entries, source)


def _import(module: str, source: str) -> Any:
    package = module.split('.')[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or '').split('.')[0] != package:
            raise
        remedy = '"vito_mm[curation]", or give a file' if package == 'mmpretrain' else package
        raise ImportError(
            f'the taxonomy {source!r} needs {package}, which is not installed: pip install {remedy}'
        ) from None


def _build(entries: Iterable[tuple[str, Any]], source: str) -> Taxonomy:
    """Build the taxonomy of places in a file and the classes there: lines or objects."""
    names: dict[str, str] = {}
    synonyms, ids = [], []
    for where, entry in entries:
        if isinstance(entry, str):
            name, *others = entry.split(',')
            entry = dict(name=name, synonyms=others)
        if not isinstance(entry, dict) or 'name' not in entry:
            raise ValueError(f'{where}: an object with "name" is wanted, not {entry!r}')
        name, others, class_id = entry['name'], entry.get('synonyms') or [], entry.get('id')
        if isinstance(others, str):
            others = others.split(';')
        if not isinstance(name, str):
            raise ValueError(f'{where}: the name of a class is text, not {name!r}')
        if not isinstance(others, list) or not all(isinstance(each, str) for each in others):
            raise ValueError(f'{where}: synonyms are a list of text, not {others!r}')
        name = _squeezed(name)
        group = tuple(filter(None, dict.fromkeys(map(_squeezed, (name, *others)))))
        ''.join(group).encode()  # a UnicodeError if it is no text
        if not name or not any(letter.isalnum() for each in group for letter in each):
            raise ValueError(f'{where}: a class without a name of letters or digits')
        if name in names:
            raise ValueError(f'{where}: the class {name!r} is there twice, see {names[name]}')
        names[name] = where
        synonyms.append(group)
        ids.append(None if class_id in (None, '') else str(class_id))
    if not names:
        raise ValueError(f'{source} lists no class')
    if any(ids) and None in ids:
        raise ValueError(
            f'{list(names.values())[ids.index(None)]}: no id, which other classes have'
        )
    return Taxonomy(tuple(names), tuple(synonyms), tuple(ids) if any(ids) else None, source)


def _read_lines(file: Path) -> Iterator[tuple[str, str]]:
    with file.open(encoding='utf-8-sig') as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.lstrip().startswith('#'):
                yield f'{file}, line {number}', line


def _read_json(file: Path) -> Iterator[tuple[str, Any]]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, count in Counter(key for key, _ in items).items():
            if count > 1:
                raise ValueError(f'{key!r} is there twice')
        return dict(items)

    text = file.read_text(encoding='utf-8-sig')
    try:
        content = json.loads(text, object_pairs_hook=pairs)
    except ValueError as error:
        raise ValueError(f'{file}: cannot be read as JSON ({error})') from None
    if isinstance(content, dict):
        for name, others in content.items():
            yield f'{file}, class {name!r}', dict(name=name, synonyms=others)
    elif isinstance(content, list):
        yield from ((f'{file}, class {n}', entry) for n, entry in enumerate(content, start=1))
    else:
        raise ValueError(f'{file}: a list or an object of classes is wanted, not {content!r}')


def _read_table(file: Path) -> Iterator[tuple[str, Any]]:
    for number, row in read_rows(file, needs=('name',)):
        where = place_in(file, number)
        if isinstance(row, RowError):
            raise ValueError(f'{where}: {row}')
        yield where, row


def _names_in(line: str) -> list[str]:
    return [name for name in map(_squeezed, line.split(',')) if name]


def _squeezed(name: str) -> str:
    return ' '.join(name.split())


def _folded(name: str) -> str:
    return _squeezed(name).casefold()
