"""Matching of titles with the names of classes."""

import html
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import regex

from .plurals import ONLY_PLURAL, plurals_of, singulars_of
from .taxonomy import Taxonomy

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
# NFKC would make digits of the word next to them: keycaps, circled, raised.
_ORNAMENT = regex.compile('[0-9#*]\ufe0f?\u20e3|\\p{No}')
_ACCENTS = regex.compile(r'(?<=[\p{Latin}\p{Greek}\p{Cyrillic}])\p{Mn}+')
# What has no width: soft hyphens, joiners, marks of direction, variation selectors; and the stroke
# that draws Arabic letters apart.
_UNSEEN = regex.compile(r'[\p{Cf}\ufe00-\ufe0f\u0640]+')
# The zero-width space does separate words, and NFKC would glue TM to the word before it.
_APOSTROPHES = '`\u00b4\u02b9\u02bc\u2018\u2019\u201b\u2032\uff07'
_FIRST = str.maketrans(dict.fromkeys(_APOSTROPHES, "'") | dict.fromkeys(f'™℠\u200b{_HUMP}', ' '))


def words_of(text: str) -> list[str]:
    """Split a text into words as they are compared.

    In a hashtag in camel case ``'\\x1f'`` stands where a word begins.
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
    """List the words that a name may consist of in a title."""
    spellings = set()
    # Titles often leave out the apostrophe, and then the s belongs to the word.
    bare = regex.sub(r"'(?=s\b)", '', name.translate(_FIRST), flags=regex.IGNORECASE)
    for text in {name, bare}:
        words = tuple(word.replace(_HUMP, '') for word in words_of(text))
        if not words:
            continue
        *before, last = words
        singulars = [] if not before and last in ONLY_PLURAL else singulars_of(last)
        forms = [(*before, form) for form in (last, *plurals_of(last), *singulars)]
        spellings.update(forms)
        if before and not any(map(_ONE_SPACELESS.match, words)):
            spellings.update((''.join(form),) for form in forms)
    return spellings


class TitleMatcher:
    """Finder of the classes that titles name.

    A name is found where its words stand in the title one after another. How that is read:

    - HTML entities of scraped titles (``&amp;``, ``&#39;``) are read as what they stand for.
    - Letter case, accents of Latin, Greek and Cyrillic letters, and forms of letters that Unicode
      calls compatible (full width, bold) make no difference (NFKC and case folding).
    - All that is neither letter, mark nor digit separates words: spaces, hyphens, underscores,
      punctuation, emoji. A name does not match within a word: ``'cat'`` is not in ``'category'``,
      nor in ``'cat2'``.
    - A possessive ``'s`` is skipped, with a straight or a typographic apostrophe; other
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

        Returns:
            list[tuple[int, str]]: Class index and the name that was found, by class. Of several
            names of a class it is the one of most letters, then the first in the taxonomy.
        """
        words = words_of(title)
        if '#' in title and any(_HUMP in word for word in words):
            parts, joined, places_of_joined = [], [], [0]
            for word in words:
                parts += word.split(_HUMP)
                joined.append(word.replace(_HUMP, ''))
                places_of_joined.append(len(parts))
            hits = self._hits(parts, range(len(parts) + 1))
            hits += self._hits(joined, places_of_joined)
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
        """Find names: place of the first word, place after the last, classes."""
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
    """Leave out the hits that lie within a longer one."""
    furthest, span = 0, None
    for start, end, found in sorted(hits, key=lambda hit: (hit[0], -hit[1])):
        if end > furthest or (start, end) == span:
            furthest, span = end, (start, end)
            yield found
