"""Which classes a title names, and the stage that retrieves videos by it."""

import dataclasses
import html
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import regex

from vito_mm.utils.hashing import hash64, priority_of
from vito_mm.utils.worker_pool import WorkerLost, WorkError, run_in_workers
from vito_mm.videos.manifest import PART, part_name

from .stage import Shard, Stage, StageError, lacking
from .tables import DROPPED, Row, read_kept
from .taxonomy import Taxonomy, load_taxonomy

_HUMP = '\x1f'
"""Stands within a hashtag where camel case begins a word."""

# Letters of scripts that put no spaces between words. Each is a word, with the marks that belong
# to it; after a Khmer coeng or a Myanmar virama so does the next letter.
_SPACELESS = (
    r'[[\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]&&[\p{L}\p{Nl}]]'
)
_WORD = regex.compile(
    rf'{_SPACELESS}(?:\p{{M}}|(?<=[\u17d2\u1039]){_SPACELESS})*'
    rf'|[[\p{{L}}\p{{N}}]--{_SPACELESS}][[\p{{L}}\p{{N}}\p{{M}}{_HUMP}]--{_SPACELESS}]*',
    regex.V1,
)
_ASCII_WORD = regex.compile(rf'[a-z0-9][a-z0-9{_HUMP}]*')
_ONE_SPACELESS = regex.compile(_SPACELESS, regex.V1)
_HASHTAG = regex.compile(r'#[\w\p{M}]+')
_CAMEL = regex.compile(r'(?<=[\p{Ll}\p{N}])(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll})')
_POSSESSIVE = regex.compile(r"(?<=[\p{L}\p{N}\p{M}])'s(?![\p{L}\p{N}\p{M}])")
# Of web pages; those without a semicolon are left alone, as in "Tom&not so".
_ENTITY = regex.compile(r'&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});')
# NFKC would make digits of the word beside them: keycaps, circled, raised.
_ORNAMENT = regex.compile('[0-9#*]\ufe0f?\u20e3|\\p{No}')
_ACCENTS = regex.compile(r'(?<=[\p{Latin}\p{Greek}\p{Cyrillic}])\p{Mn}+')
# What has no width: soft hyphens, joiners, marks of direction, variation selectors; and the stroke
# that draws Arabic letters apart.
_UNSEEN = regex.compile(r'[\p{Cf}\ufe00-\ufe0f\u0640]+')
# The zero-width space does separate words, and NFKC would glue TM to the word before it.
_APOSTROPHES = '`\u00b4\u02b9\u02bc\u2018\u2019\u201b\u2032\uff07'
_FIRST = str.maketrans(dict.fromkeys(_APOSTROPHES, "'") | dict.fromkeys(f'™℠\u200b{_HUMP}', ' '))

_IRREGULAR = dict(
    man=('men',),
    woman=('women',),
    child=('children',),
    person=('people',),
    mouse=('mice',),
    dormouse=('dormice',),
    titmouse=('titmice',),
    louse=('lice',),
    goose=('geese',),
    foot=('feet',),
    tooth=('teeth',),
    ox=('oxen',),
    die=('dice',),
    penny=('pence',),
    quiz=('quizzes',),
    phenomenon=('phenomena',),
    criterion=('criteria',),
    bacterium=('bacteria',),
    genus=('genera',),
    octopus=('octopodes',),
)
"""Plurals beside the regular one."""

_NOT_MEN = (
    *('human', 'german', 'roman', 'norman', 'shaman', 'talisman', 'ottoman', 'caiman', 'cayman'),
    *('doberman', 'pullman', 'brahman', 'ataman', 'hetman', 'desman', 'toman', 'dolman'),
)
_VES = (
    *('wolf', 'leaf', 'loaf', 'calf', 'half', 'elf', 'scarf', 'hoof', 'thief', 'sheaf', 'dwarf'),
    *('wharf', 'knife', 'life', 'wife'),
)
"""Endings that have -ves: not all in -f have, and `safe` or `cafe` would make another word."""

_NOT_PLURAL = frozenset(
    ('lens', 'gas', 'canvas', 'atlas', 'pancreas', 'series', 'species', 'news', 'corps', 'chess')
)
_ONLY_PLURAL = frozenset(
    ('arms', 'bars', 'customs', 'glasses', 'goods', 'shades', 'shorts', 'trunks', 'pants', 'tights')
)
"""Words that mean something else in the singular, where no other word goes before them."""

_VOWELS = 'aeiou'


def plurals_of(word: str) -> list[str]:
    """Spellings that the plural of an English noun may have.

    Several rules may apply (``'octopuses'``, ``'octopi'``); a spelling that nobody uses does no
    harm when it is looked for.

    Args:
        word (str): Noun in the singular, in lower case.

    Returns:
        list[str]: Plurals; none for a word of other letters than a to z.
    """
    if not (word.isascii() and word.isalpha()):
        return []
    found = list(_IRREGULAR.get(word, ()))
    if word.endswith('man') and not word.endswith(_NOT_MEN):
        found.append(word[:-2] + 'en')
    if word.endswith(_VES):
        found.append(word.removesuffix('e').removesuffix('f') + 'ves')
    if len(word) > 4 and word.endswith('us'):
        found.append(word[:-2] + 'i')
    if len(word) > 4 and word.endswith('sis'):
        found.append(word[:-2] + 'es')
    if len(word) > 4 and word.endswith('ium'):
        found.append(word[:-2] + 'a')
    if len(word) > 4 and word.endswith(('ex', 'ix')):
        found.append(word[:-2] + 'ices')
    if len(word) > 4 and word.endswith('eau'):
        found.append(word + 'x')
    if len(word) > 4 and word.endswith('a'):
        found.append(word + 'e')
    if word.endswith('y') and word[-2:-1] not in _VOWELS:
        found.append(word[:-1] + 'ies')
    elif word.endswith(('s', 'x', 'z', 'sh')):
        found.append(word + 'es')
    elif word.endswith(('ch', 'o')):  # finches and monarchs, potatoes and flamingos
        found += [word + 'es', word + 's']
    else:
        found.append(word + 's')
    return found


_SINGULARS = {plural: word for word, plurals in _IRREGULAR.items() for plural in plurals}


def singulars_of(word: str) -> list[str]:
    """Spellings that an English plural may have in the singular.

    Args:
        word (str): Noun in lower case.

    Returns:
        list[str]: Singulars; none for what does not look like a plural, such as ``'glass'``,
        ``'bus'``, ``'iris'`` or ``'lens'``, nor for Latin plurals: ``'mini'`` is none.
    """
    if not (word.isascii() and word.isalpha()):
        return []
    if word in _SINGULARS:
        return [_SINGULARS[word]]
    if word.endswith('men') and len(word) > 4:
        return [word[:-2] + 'an']
    if len(word) < 4 or word in _NOT_PLURAL or not word.endswith('s'):
        return []
    if word.endswith('ves'):
        bases = [word[:-3] + 'f', word[:-3] + 'fe']
        return [base for base in bases if base.endswith(_VES)] + [word[:-1]]
    if word.endswith('ies'):
        return [word[:-3] + 'y', word[:-1]]
    if word.endswith('ses'):  # houses, buses and oases
        return [word[:-1], word[:-2], word[:-2] + 'is']
    if word.endswith(('ches', 'shes', 'xes', 'zes', 'oes')):
        return [word[:-2], word[:-1]]
    return [] if word.endswith(('ss', 'us', 'is')) else [word[:-1]]


def words_of(text: str) -> list[str]:
    """Words of a text as they are compared.

    Args:
        text (str): A title or name.

    Returns:
        list[str]: Words; in a hashtag in camel case ``'\\x1f'`` stands where a word begins.
    """
    if '&' in text:
        text = _ENTITY.sub(lambda entity: html.unescape(entity.group()), text)
    text = text.translate(_FIRST)
    if text.isascii():
        if '#' in text:
            text = _HASHTAG.sub(_mark_humps, text)
        text = text.lower()
        if "'" in text:
            text = _POSSESSIVE.sub('', text)
        return _ASCII_WORD.findall(text)
    text = _ORNAMENT.sub(' ', text)
    text = _UNSEEN.sub('', unicodedata.normalize('NFKC', text))
    if '#' in text:
        text = _HASHTAG.sub(_mark_humps, text)
    text = _ACCENTS.sub('', unicodedata.normalize('NFD', text.casefold()))
    text = _POSSESSIVE.sub('', unicodedata.normalize('NFC', text))
    return _WORD.findall(text)


def _mark_humps(hashtag: regex.Match) -> str:
    return _CAMEL.sub(_HUMP, hashtag.group())


def _spellings(name: str) -> set[tuple[str, ...]]:
    """Words that a name may consist of in a title; none if it has no letter or digit."""
    spellings = set()
    # Titles often leave out the apostrophe, and then the s belongs to the word.
    bare = regex.sub(r"'(?=s\b)", '', name.translate(_FIRST), flags=regex.IGNORECASE)
    for text in {name, bare}:
        words = tuple(word.replace(_HUMP, '') for word in words_of(text))
        if not words:
            continue
        *before, last = words
        singulars = [] if not before and last in _ONLY_PLURAL else singulars_of(last)
        forms = [(*before, form) for form in (last, *plurals_of(last), *singulars)]
        spellings.update(forms)
        if before and not any(map(_ONE_SPACELESS.match, words)):
            spellings.update((''.join(form),) for form in forms)
    return spellings


class TitleMatcher:
    """Finds the classes that titles name.

    A name is found where its words stand in the title one after another. How that is read:

    - HTML entities of scraped titles (``&amp;``, ``&#39;``) are read as what they stand for.
    - Letter case, accents of Latin, Greek and Cyrillic letters, and forms of letters that Unicode
      calls compatible (full width, bold) make no difference (NFKC and case folding).
    - All that is neither letter, mark nor digit separates words: spaces, hyphens, underscores,
      punctuation, emoji. A name does not match within a word: ``'cat'`` is not in ``'category'``,
      nor in ``'cat2'``.
    - A possessive ``'s`` is left out, with a straight or a typographic apostrophe; other
      apostrophes separate words. Names that have an ``'s`` are also found without the apostrophe
      (``'carpenters kit'``).
    - The last word of a name may be in the plural, or in the singular where the name itself is a
      plural (:func:`plurals_of`, :func:`singulars_of`). Words of titles are never changed.
    - Names of several words are found as one word as well (``'goldenretriever'``).
    - Hashtags in camel case are read both ways, ``#GoldenRetrieverPuppy`` as three words and one.
    - Scripts without spaces (Han, Hiragana, Katakana, Thai, Lao, Khmer, Myanmar): a name is found
      anywhere within the text; each letter counts as a word, so separators are passed over.
    - A name that lies within a longer one that is found there does not count: ``'hot dog'`` does
      not name the class dog, nor ``'tiger shark'`` the class tiger, unless it stands elsewhere in
      the title too. This holds for all names of the taxonomy, whichever classes are queried.

    Args:
        taxonomy (Taxonomy): Classes and names.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        # Nested dicts by word. Under None are the classes that a spelling names, each with the
        # name and its rank, lowest first: most letters, then the order of the taxonomy.
        self._root: dict[str | None, Any] = {}
        for index, names in enumerate(taxonomy.synonyms):
            for order, name in enumerate(names):
                rank = (-len(''.join(words_of(name))), order)
                for words in _spellings(name):
                    node = self._root
                    for word in words:
                        node = node.setdefault(word, {})
                    found = node.setdefault(None, {})
                    found[index] = min(found.get(index, (rank, name)), (rank, name))

    def match(self, title: str) -> list[tuple[int, str]]:
        """Find the classes that a title names.

        Args:
            title (str): Any text.

        Returns:
            list[tuple[int, str]]: Class index and the name that was found, by class. Of several
            names of a class it is the one of most letters, then the first in the taxonomy.
        """
        words = words_of(title)
        if '#' in title and any(_HUMP in word for word in words):
            parts, wholes, places_of_wholes = [], [], [0]
            for word in words:
                parts += word.split(_HUMP)
                wholes.append(word.replace(_HUMP, ''))
                places_of_wholes.append(len(parts))
            hits = self._hits(parts, range(len(parts) + 1))
            hits += self._hits(wholes, places_of_wholes)
        else:
            hits = self._hits(words, range(len(words) + 1))
        if not hits:
            return []
        best: dict[int, tuple[tuple[int, int], str]] = {}
        for found in _outermost(hits):
            for index, named in found.items():
                if index not in best or named < best[index]:
                    best[index] = named
        return [(index, best[index][1]) for index in sorted(best)]

    def _hits(self, words: list[str], places: Sequence[int]) -> list[tuple[int, int, dict]]:
        """Names in a list of words: place of the first word, place after the last, classes."""
        hits = []
        count = len(words)
        for start, word in enumerate(words):
            node = self._root.get(word)
            end = start + 1
            while node is not None:
                if (found := node.get(None)) is not None:
                    hits.append((places[start], places[end], found))
                if end == count:
                    break
                node = node.get(words[end])
                end += 1
        return hits


def _outermost(hits: list[tuple[int, int, dict]]) -> Iterator[dict]:
    """Those that do not lie within a longer one."""
    furthest, span = 0, None
    for start, end, found in sorted(hits, key=lambda hit: (hit[0], -hit[1])):
        if end > furthest or (start, end) == span:
            furthest, span = end, (start, end)
            yield found


@dataclass
class Retrieve(Stage):
    """Keeps videos whose title names a class, up to a number for each class.

    Which videos a class keeps, where it has too many, is a pseudo-random choice that depends on
    the seed, the class, the name of the file without its folder, and the title: not on the order of
    the table, and not on where the videos are stored. Among rows that are alike in all of these the
    first ones win. A row stays with those of its classes that keep it.

    Of rows with the same path, start and end the first stays, even if its title names nothing.

    The survey reads the table twice: for the paths, then for the titles. It holds 16 bytes a row
    for the hashes of the paths, some 60 while they are sorted, and later 16 bytes for each video
    that a class keeps. Hashes have 64 bits; some two paths of a million get the same one, so that
    one of them is wrongly dropped, with probability 3e-8.

    Attributes:
        taxonomy (str): See :func:`.taxonomy.load_taxonomy`. Defaults to 'imagenet'.
        classes (tuple[str, ...], optional): Classes that are queried, see
            :meth:`.taxonomy.Taxonomy.select`. Defaults to None, all.
        limit (int): Videos of a class, at most. Defaults to 5,000, as in the paper.
        seed (int): Of the choice. Defaults to 0.
    """

    name = 'retrieve'
    needs = ('path', 'title')
    by_shard = True
    makes = ('classes', 'matches')

    taxonomy: str = 'imagenet'
    classes: tuple[str, ...] | None = None
    limit: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        self._loaded: Taxonomy | None = None
        self._matcher: TitleMatcher | None = None
        self._queried: frozenset[int] = frozenset()
        self._first_places: dict[int, int] = {}  # of paths that are listed twice, by their hash
        self._last_kept: dict[int, tuple[int, int]] = {}  # of classes that have too many

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | dict(_matcher=None)

    def _load(self) -> Taxonomy:
        """The taxonomy, read once and then taken along to other machines."""
        if self._loaded is None:
            taxonomy = load_taxonomy(self.taxonomy)
            queried = range(len(taxonomy.names))
            if self.classes is not None:
                queried = taxonomy.select(self.classes)
            self._loaded, self._queried = taxonomy, frozenset(queried)
        return self._loaded

    def identity(self) -> dict[str, Any]:
        """What decides the result; the taxonomy by its content."""
        taxonomy = self._load()
        names = None if self.classes is None else [taxonomy.names[i] for i in sorted(self._queried)]
        return dataclasses.asdict(self) | dict(taxonomy=taxonomy.fingerprint, classes=names)

    def check_settings(self) -> None:
        """Raise for a limit below 1, an unknown taxonomy or an unknown class."""
        if self.limit < 1:
            raise ValueError(f'--limit {self.limit}: give 1 or more')
        self._load()

    def survey(self, shards: Sequence[Shard], workers: int) -> None:
        """Find the paths that are listed twice, and where each class has enough.

        Args:
            shards (Sequence[Shard]): All shards.
            workers (int): Processes that may be used.

        Raises:
            StageError: If a shard cannot be read.
        """
        self.check_settings()
        self._first_places, self._last_kept = {}, {}
        listed = sorted(
            _results(partial(_listed, self), shards, workers), key=lambda result: result[0].number
        )
        self._first_places = _repeated([rows for _, rows in listed])
        del listed
        lowest: dict[int, _Lowest] = {}
        for _, (indices, keys) in _results(partial(_wanted, self), shards, workers):
            for index in np.unique(indices):
                of_class = lowest.setdefault(int(index), _Lowest(self.limit))
                of_class.add(keys[indices == index])
        for index in sorted(lowest):
            if (last := lowest[index].last()) is not None:
                self._last_kept[index] = last

    def prepare_at(self, row: Row, shard: int, index: int) -> int:
        """The row's place in the table, see :meth:`.stage.Stage.prepare_at`."""
        return shard << 32 | index

    def finish(self, row: Row, prepared: int) -> Row:
        """See :meth:`.stage.Stage.finish`."""
        if self._is_repeated(row, prepared):
            return {**row, DROPPED: 'listed twice'}
        matches = self._matches(row)
        if not matches:
            return {**row, DROPPED: f'title matches no class{_oddity(row["title"])}'}
        kept = [
            (index, name)
            for index, name in matches
            if index not in self._last_kept
            or (self._priority(index, row), prepared) <= self._last_kept[index]
        ]
        if not kept:
            names = ', '.join(self._load().names[index] for index, _ in matches)
            return {**row, DROPPED: f'all its classes are full: {names}'}
        return {
            **row,
            'classes': [index for index, _ in kept],
            'matches': [name for _, name in kept],
        }

    def _is_repeated(self, row: Row, place: int) -> bool:
        return self._first_places.get(hash64(part_name(row)), place) != place

    def _matches(self, row: Row) -> list[tuple[int, str]]:
        """Queried classes that a row's title names."""
        if self._matcher is None:
            self._matcher = TitleMatcher(self._load())
        if not isinstance(row['title'], str):
            return []
        found = self._matcher.match(row['title'])
        return [(index, name) for index, name in found if index in self._queried]

    def _priority(self, index: int, row: Row) -> int:
        """Pseudo-random number of a video in a class; the lowest are kept."""
        return priority_of(row['path'], self.seed, self._load().names[index], row['title'])


def _oddity(title: Any) -> str:
    if not isinstance(title, str):
        return ': the title is no text'
    return '' if title.strip() else ': the title is empty'


def _listed(stage: Retrieve, shard: Shard) -> np.ndarray:
    """(2, N) uint64: hash of the part and place of each row of a shard that has all it needs."""
    rows = read_kept(shard.source, [*stage.needs, *PART])
    listed = [
        (hash64(part_name(row)), stage.prepare_at(row, shard.number, index))
        for index, row in enumerate(rows)
        if lacking(stage, row) is None
    ]
    return np.array(listed, np.uint64).reshape(-1, 2).T


def _repeated(listed: list[np.ndarray]) -> dict[int, int]:
    """First place of each hash that occurs more than once, from the :func:`_listed` of shards."""
    hashes, places = np.concatenate(listed, axis=1)
    _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    first = first[counts > 1]
    return dict(zip(hashes[first].tolist(), places[first].tolist(), strict=True))


def _wanted(stage: Retrieve, shard: Shard) -> tuple[np.ndarray, np.ndarray]:
    """What the titles of a shard name: (M,) int64 classes, (M, 2) uint64 priorities and places."""
    classes, keys = [], []
    for index, row in enumerate(read_kept(shard.source, [*stage.needs, *PART])):
        place = stage.prepare_at(row, shard.number, index)
        if lacking(stage, row) is None and not stage._is_repeated(row, place):
            for index_of_class, _ in stage._matches(row):
                classes.append(index_of_class)
                keys.append((stage._priority(index_of_class, row), place))
    return np.array(classes, np.int64), np.array(keys, np.uint64).reshape(-1, 2)


class _Lowest:
    """The lowest of the keys that a class gets, in bounded memory.

    Args:
        limit (int): How many are kept.
    """

    buffer = 256

    def __init__(self, limit: int) -> None:
        self.limit, self.total, self.waiting = limit, 0, 0
        self.parts: list[np.ndarray] = []

    def add(self, keys: np.ndarray) -> None:
        """Take (N, 2) keys, compared by the first column and then by the second."""
        self.parts.append(keys)
        self.total += len(keys)
        self.waiting += len(keys)
        if self.waiting >= self.buffer:
            self._settle()

    def _settle(self) -> None:
        keys = np.concatenate(self.parts)
        self.parts = [keys[np.lexsort((keys[:, 1], keys[:, 0]))[: self.limit]]]
        self.waiting = 0

    def last(self) -> tuple[int, int] | None:
        """The highest key that is kept; None if all are."""
        if self.total <= self.limit:
            return None
        self._settle()
        priority, place = self.parts[0][-1].tolist()
        return priority, place


def _results(work: Any, shards: Sequence[Shard], workers: int) -> Iterator[tuple[Shard, Any]]:
    for shard, result in run_in_workers(work, shards, workers):
        if isinstance(result, WorkError | WorkerLost):
            raise StageError(f"stage 'retrieve' cannot survey {shard.source}: {result}")
        yield shard, result
