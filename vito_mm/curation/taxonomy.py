"""Classes and all their names: ImageNet's 1,000 with WordNet's synonyms, or classes of the user."""

import csv
import functools
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vito_mm.utils.text import near_text

ENDINGS = ('.txt', '.json', '.jsonl', '.csv')
"""What files of classes end in."""

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

    def index(self, name: str) -> int:
        """Index of a class.

        Args:
            name (str): Its display name.

        Returns:
            int: Index of the class.

        Raises:
            ValueError: If there is no such name, with those that are spelled alike.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise ValueError(self._unknown([name])) from None

    def select(self, names: Iterable[str]) -> list[int]:
        """Classes that a user names.

        A display name means its class alone, spelled exactly or else in other letter case; so does
        an id. Any other name means all classes that have it: in ImageNet ``'crane'`` is the
        machine, ``'crane bird'`` the bird, and ``'panther'`` both cougar and jaguar.

        Args:
            names (Iterable[str]): Names or ids.

        Returns:
            list[int]: Indices of the classes, ascending.

        Raises:
            ValueError: If a name is unknown, with those that are spelled alike.
        """
        tables = self._tables()
        chosen: set[int] = set()
        unknown = []
        for name in names:
            for fold, classes in tables:
                if found := classes.get(fold(name)):
                    chosen |= found
                    break
            else:
                unknown.append(name)
        if unknown:
            raise ValueError(self._unknown(unknown))
        return sorted(chosen)

    def _tables(self) -> list[tuple[Any, dict[str, set[int]]]]:
        """Classes by what they may be called, those that count first ahead."""

        def table(fold, names: Iterable[Iterable[str]]) -> tuple[Any, dict[str, set[int]]]:
            classes: dict[str, set[int]] = {}
            for index, group in enumerate(names):
                for name in group:
                    classes.setdefault(fold(name), set()).add(index)
            return fold, classes

        display = [[name] for name in self.names]
        ids = [[name] for name in self.ids or ()]
        return [
            table(_squeezed, display),
            table(_squeezed, ids),
            table(_folded, display),
            table(_folded, self.synonyms),
        ]

    def _unknown(self, names: list[str]) -> str:
        known = [*self.names, *itertools.chain(*self.synonyms)]
        parts = [f'{name!r}{near_text(name, known, _folded)}' for name in names]
        classes = 'class' if len(names) == 1 else 'classes'
        return f'{self.source or "the taxonomy"} has no {classes} {", ".join(parts)}'


def load_taxonomy(source: str) -> Taxonomy:
    """Read classes and their names.

    Args:
        source (str): One of

            - ``'imagenet'``: the 1,000 classes of ILSVRC-2012 with all WordNet lemmas, in the
              order of the outputs of torchvision's and mmpretrain's classifiers. They are read
              from mmpretrain, which the curation needs anyway; timm, which is optional and has the
              same lemmas, is never asked, so that no two machines differ. The two classes each
              that WordNet calls crane and maillot get torchvision's names.
            - ``'timm:imagenet-22k'`` and the other lists of timm's ``ImageNetInfo``, with ids of
              WordNet. Where classes share their first lemma, its id is added to the name.
            - A file. ``.txt``: a class a line, ``name, synonym, synonym``; lines that start with
              ``#`` are left out. ``.json``: a list of such lines; or a list of objects with
              ``name``, and maybe ``synonyms`` (a list) and ``id``; or an object of names with
              their synonyms. ``.jsonl``: such an object a line. ``.csv``: columns ``name``, and
              maybe ``synonyms``, separated by ``;``, and ``id``.

    Returns:
        Taxonomy: The classes.

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
    readers = {'.txt': _read_lines, '.json': _read_json, '.jsonl': _read_jsonl, '.csv': _read_csv}
    try:
        return _build(list(readers[file.suffix](file)), source)
    except FileNotFoundError:
        raise ValueError(f'there is no taxonomy {source!r}') from None
    except UnicodeDecodeError as error:
        raise ValueError(f'{source}: not UTF-8 ({error})') from None


@functools.cache
def _imagenet() -> Taxonomy:
    try:
        from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
    except ModuleNotFoundError as error:
        if (error.name or '').split('.')[0] != 'mmpretrain':
            raise
        raise ImportError(
            "the taxonomy 'imagenet' needs mmpretrain, which is not installed: pip install "
            '"vito_mm[curation]", or give a file'
        ) from None
    lemmas = [_names_in(line) for line in IMAGENET_CATEGORIES]
    names = [_IMAGENET_NAMES.get(index, group[0]) for index, group in enumerate(lemmas)]
    return Taxonomy(
        tuple(names),
        tuple(_unique([name, *group]) for name, group in zip(names, lemmas, strict=True)),
        source='imagenet',
    )


@functools.cache
def _from_timm(source: str) -> Taxonomy:
    try:
        from timm.data import ImageNetInfo
    except ModuleNotFoundError as error:
        if (error.name or '').split('.')[0] != 'timm':
            raise
        raise ImportError(
            f'the taxonomy {source!r} needs timm, which is not installed: pip install timm'
        ) from None
    try:
        info = ImageNetInfo(source.removeprefix('timm:'))
    except AssertionError as error:
        raise ValueError(f'taxonomy {source!r}: {error}') from None
    ids = tuple(info.label_names())
    lemmas = [_names_in(info.label_name_to_description(name)) for name in ids]
    firsts = [group[0] for group in lemmas]
    counts = Counter(firsts)
    names = [
        f'{name} ({class_id})' if counts[name] > 1 else name
        for name, class_id in zip(firsts, ids, strict=True)
    ]
    synonyms = tuple(_unique([name, *group]) for name, group in zip(names, lemmas, strict=True))
    return Taxonomy(tuple(names), synonyms, ids, source)


class _Entry(NamedTuple):
    """A class as a file has it."""

    where: str
    name: Any
    synonyms: Any
    id: str | None = None


def _build(entries: list[_Entry], source: str) -> Taxonomy:
    if not entries:
        raise ValueError(f'{source} lists no class')
    names: dict[str, str] = {}
    synonyms = []
    for entry in entries:
        if not isinstance(entry.name, str):
            raise ValueError(f'{entry.where}: the name of a class is text, not {entry.name!r}')
        others = entry.synonyms
        if not isinstance(others, list) or not all(isinstance(name, str) for name in others):
            raise ValueError(f'{entry.where}: synonyms are a list of text, not {others!r}')
        name = _squeezed(entry.name)
        group = _unique(_squeezed(other) for other in (name, *others))
        if not name or not any(letter.isalnum() for other in group for letter in other):
            raise ValueError(f'{entry.where}: a class without a name of letters or digits')
        if name in names:
            raise ValueError(f'{entry.where}: the class {name!r} is there twice, see {names[name]}')
        names[name] = entry.where
        synonyms.append(group)
    ids = [entry.id for entry in entries]
    if any(value is not None for value in ids):
        for entry in entries:
            if entry.id is None:
                raise ValueError(f'{entry.where}: no id, which other classes have')
    return Taxonomy(
        tuple(names),
        tuple(synonyms),
        None if ids[0] is None else tuple(ids),
        source,
    )


def _read_lines(file: Path) -> Iterator[_Entry]:
    with file.open(encoding='utf-8-sig') as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.lstrip().startswith('#'):
                yield _entry_of_line(f'{file}, line {number}', line)


def _read_json(file: Path) -> Iterator[_Entry]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        key, count = Counter(key for key, _ in items).most_common(1)[0] if items else ('', 0)
        if count > 1:
            raise ValueError(f'{key!r} is there twice')
        return dict(items)

    try:
        content = json.loads(file.read_text(encoding='utf-8-sig'), object_pairs_hook=pairs)
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise ValueError(f'{file}: cannot be read as JSON ({error})') from None
    if isinstance(content, dict):
        for name, others in content.items():
            yield _Entry(f'{file}, class {name!r}', name, others)
        return
    if not isinstance(content, list):
        raise ValueError(f'{file}: a list or an object of classes is wanted, not {content!r}')
    for number, entry in enumerate(content, start=1):
        where = f'{file}, class {number}'
        yield _entry_of_line(where, entry) if isinstance(entry, str) else _of_object(where, entry)


def _read_jsonl(file: Path) -> Iterator[_Entry]:
    with file.open(encoding='utf-8-sig') as lines:
        for number, line in enumerate(lines, start=1):
            where = f'{file}, line {number}'
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise ValueError(f'{where}: not JSON ({error})') from None
            yield _of_object(where, entry)


def _read_csv(file: Path) -> Iterator[_Entry]:
    with file.open(encoding='utf-8-sig', newline='') as lines:
        table = csv.DictReader(lines)
        if table.fieldnames and 'name' not in table.fieldnames:
            raise ValueError(
                f'{file}, line 1: there is no column "name", only '
                f'{", ".join(map(repr, table.fieldnames))}'
            )
        for row in table:
            yield _of_object(f'{file}, line {table.line_num}', row)


def _of_object(where: str, entry: Any) -> _Entry:
    if not isinstance(entry, dict) or 'name' not in entry:
        raise ValueError(f'{where}: an object with "name" is wanted, not {entry!r}')
    others = entry.get('synonyms') or []
    if isinstance(others, str):
        others = others.split(';')
    class_id = entry.get('id')
    return _Entry(where, entry['name'], others, None if class_id in (None, '') else str(class_id))


def _entry_of_line(where: str, line: str) -> _Entry:
    name, *others = line.split(',')
    return _Entry(where, name, others)


def _names_in(line: str) -> tuple[str, ...]:
    return _unique(_squeezed(name) for name in line.split(','))


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))


def _squeezed(name: str) -> str:
    return ' '.join(name.split())


def _folded(name: str) -> str:
    return _squeezed(name).casefold()
