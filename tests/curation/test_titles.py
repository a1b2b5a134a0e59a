"""Titles: the classes that they name."""
# ruff: noqa: RUF001

import random
import re
from collections import Counter

import pytest

from tests.helpers.titled_videos import draw_titles, write_taxonomy
from vito_mm.curation.plurals import plurals_of, singulars_of
from vito_mm.curation.taxonomy import Taxonomy, load_taxonomy
from vito_mm.curation.titles import TitleMatcher

NAMES = {
    # Class: names, and the plural of the last word of each.
    'dog': {'dog': 'dogs', 'domestic dog': 'dogs'},
    'hot dog': {'hot dog': 'dogs', 'red hot': 'hots'},
    'tiger': {'tiger': 'tigers', 'big cat': 'cats'},
    'tiger shark': {'tiger shark': 'sharks'},
    'shark fin soup': {'shark fin soup': 'soups', 'fin soup': 'soups'},
    'cat': {'cat': 'cats', 'house cat': 'cats'},
    'fox': {'fox': 'foxes', 'red fox': 'foxes'},
    'wolf': {'wolf': 'wolves'},
    'red': {'red': 'reds', 'big red dog': 'dogs'},
    'robin 2': {'robin 2': '2', 'house': 'houses'},
}


def taxonomy_of(*names: str) -> Taxonomy:
    """Classes of lines such as 'cat, house cat'."""
    synonyms = tuple(tuple(line.split(', ')) for line in names)
    return Taxonomy(tuple(group[0] for group in synonyms), synonyms)


def named(title: str, *names: str) -> list[str]:
    """What a title names among some classes."""
    return [name for _, name in TitleMatcher(taxonomy_of(*names)).match(title)]


def brute_force(title: str) -> list[tuple[int, str]]:
    """The classes of NAMES in a title of ASCII words and any separators, by a pattern a name."""
    title = re.sub(r"'s(?![a-z0-9])", '', title.lower())
    hits = []
    for index, names in enumerate(NAMES.values()):
        for order, (name, plural) in enumerate(names.items()):
            *before, last = name.split()
            for gap in ('[^a-z0-9]+', ''):
                words = gap.join([*before, f'(?:{last}|{plural})'])
                for hit in re.finditer(rf'(?<![a-z0-9])(?={words}(?![a-z0-9]))', title):
                    end = hit.start() + re.match(words, title[hit.start() :]).end()
                    if re.match('[a-z0-9]', title[end:]):  # the singular was the wrong one
                        end += len(plural) - len(last)
                    hits.append((hit.start(), end, index, -len(name.replace(' ', '')), order, name))
    best = {}
    for start, end, index, *rank in hits:
        if not any(s <= start and end <= e and (s, e) != (start, end) for s, e, *_ in hits):
            best[index] = min(best.get(index, rank), rank)
    return [(index, best[index][-1]) for index in sorted(best)]


def test_matches_are_those_of_a_brute_force_search():
    rng = random.Random(0)
    taxonomy = Taxonomy(tuple(NAMES), tuple(tuple(names) for names in NAMES.values()))
    matcher = TitleMatcher(taxonomy)
    words = {word for names in NAMES.values() for name in names for word in name.split()}
    words |= {plural for names in NAMES.values() for plural in names.values()}
    words |= {name.replace(' ', '') for names in NAMES.values() for name in names}
    words = [*sorted(words), 'the', 'dogma', '4k']
    gaps = [*[' '] * 12, '-', '_', ', ', ' 😀 ', "'s ", ' / ', '', '!!']
    counts = Counter()
    for _ in range(4000):
        title = ''
        for _ in range(rng.randint(0, 8)):
            change = rng.choice([str, str, str.title, str.upper])
            title += change(rng.choice(words)) + rng.choice(gaps)
        found = matcher.match(title)
        assert found == brute_force(title), title
        counts[len(found)] += 1
    assert min(counts[n] for n in range(5)) > 50  # titles of all kinds were among them


@pytest.mark.parametrize(
    'title',
    [
        *('golden retriever', 'GOLDEN Retriever', 'My golden-retriever!', 'golden_retriever.mp4'),
        *('golden\u00a0\u200bretriever', 'Golden, Retriever', 'golden 😀 retriever'),
        *('golden™ retriever', 'gol\u00adden retriever', 'göldén rétriever', '𝐆𝐨𝐥𝐝𝐞𝐧 𝐑𝐞𝐭𝐫𝐢𝐞𝐯𝐞𝐫'),
        *('ｇｏｌｄｅｎ　ｒｅｔｒｉｅｖｅｒ', "golden retriever's day", 'golden retriever’s day'),
        *("golden's retrievers", 'goldenretrievers', '#goldenretriever', '#GoldenRetriever'),
        *('#GoldenRetrieverPuppies', '#golden_retriever', '#golden #retriever'),
        *('golden&nbsp;retriever', 'golden &#8211; Retriever', 'the golden retriever&#39;s'),
        *('golden retriever² ①', '①golden retriever', 'golden\u200dretriever 👩\u200d🍳'),
        *('a ❤️goldenretriever❤️', '#My1stGoldenRetriever', 'golden retrievers'),
    ],
)  # fmt: skip
def test_a_name_of_two_words_is_found_however_it_is_written(title):
    assert named(title, 'golden retriever') == ['golden retriever']


@pytest.mark.parametrize(
    'title',
    [
        *('', ' ', '😀', 'retriever golden', 'golden old retriever', 'retriever', 'golden'),
        *('goldens retriever', 'golden retrieverx', 'olden retriever', 'golden retriever2'),
        *('GoldenRetrieverPuppy', 'golden retrieverʻs', '#goldenretrieverpuppy'),
    ],
)
def test_no_other_words_are_taken_for_the_name(title):
    assert named(title, 'golden retriever') == []


# Titles and the names in them; after a slash those that are not.
FOUND = {
    # Accents are folded on both sides.
    'bernese cafe': 'Bernese café',
    'BERNESE CAFE\u0301': 'Bernese cafe',
    'Ёлка': 'елка',
    'σκυλος ΣΚΎΛΟΣ': 'σκύλος',
    'STRASSE': 'Straße',
    # From right to left, and with letters drawn apart.
    '\u202bקטע על כלב גדול\u202c (4K)': 'כלב גדול',
    '\u200fقـــطة صغيرة': 'قطة',
    # Entities are no words, and without a semicolon none.
    'cats &amp; dogs': 'cat, dog / amp',
    'cat&nottoday, R&D;': 'nottoday',
    # Marks of other scripts are letters: vowel signs, voiced or not, Thai tone, Khmer subscript.
    'मेरी बिल्ली का दिन': 'बिल्ली',
    'बल्ला': '/ बिल्ली',
    'बिल्ली': '/ बल्ल',
    'カキ': '/ ガキ',
    'ｶﾞｷ': 'ガキ',
    'ก่': '/ ก',
    'ឆ្មា': '/ ឆ',
    # Scripts without spaces are searched anywhere; Korean has spaces.
    '我的金毛寻回犬好可爱': '金毛寻回犬',
    'かわいい柴犬の動画': '柴犬',
    'ゴールデン・レトリバーの子犬': 'ゴールデンレトリバー',
    'รักแมวมาก': 'แมว',
    'ខ្ញុំស្រលាញ់ឆ្មាណាស់': 'ឆ្មា',
    '热狗和狗': '狗, 热狗',
    '热狗': '热狗 / 狗',
    '我的iPod坏了': 'iPod',
    '귀여운 고양이': '고양이',
    '고양이들': '/ 고양이',
}


@pytest.mark.parametrize('title', FOUND)
def test_titles_of_all_scripts_are_read(title):
    found, others = ([n.strip() for n in part.split(',') if n.strip()] for part in
                     FOUND[title].partition('/')[::2])  # fmt: skip
    assert named(title, *found, *others) == found


def test_apostrophes_in_names_may_be_left_out():
    for title in ("carpenter's kit", 'carpenter’s kits', 'Carpenters kit', 'carpenter kit'):
        assert named(title, "carpenter's kit") == ["carpenter's kit"]
    for title in ('jack o’lantern', "Jack-o'-Lanterns", 'jack o lantern', 'jackolantern'):
        assert named(title, "jack-o'-lantern") == ["jack-o'-lantern"]


@pytest.mark.parametrize(
    ('title', 'names', 'expected'),
    [
        # Camel case is read complete and in parts.
        ('#iPod', ['iPod', 'pod'], ['iPod']),
        ('#HotDog', ['dog', 'hot dog', 'hotdog'], ['hot dog', 'hotdog']),
        ('#TheHotDogs and a dog', ['dog', 'hot dog'], ['dog', 'hot dog']),
        ('#RedFoxVlog', ['fox', 'dog'], ['fox']),
        ('RedFoxVlog', ['fox', 'dog'], []),
        ('a\x1fb', ['b'], ['b']),
        # A longer name hides the name of another class within it.
        ('hot dog', ['dog', 'hot dog'], ['hot dog']),
        ('hot dogs for a dog', ['dog', 'hot dog'], ['dog', 'hot dog']),
        (
            'tiger shark fins',
            ['tiger', 'tiger shark', 'shark fin'],
            ['tiger shark', 'shark fin'],
        ),
        ('cat and dog', ['dog', 'cat', 'fox'], ['dog', 'cat']),
        # Of the names of a class the longest is given, then the first.
        (
            'great white shark',
            ['shark, white shark, great white shark'],
            ['great white shark'],
        ),
        ('dog, canine; pooch', ['dog, canine, poochy'], ['canine']),
        ('hound or pooch', ['dog, pooch, hound'], ['pooch']),
        # A name that classes share names all of them.
        ('a crane', ['crane bird, crane', 'goose', 'crane'], ['crane', 'crane']),
        ('a crane bird', ['crane bird, crane', 'goose', 'crane'], ['crane bird']),
    ],
)
def test_names_within_names_and_several_names(title, names, expected):
    assert named(title, *names) == expected


@pytest.mark.parametrize(
    ('singular', 'plural'),
    [
        *[('dog', 'dogs'), ('fox', 'foxes'), ('bus', 'buses'), ('glass', 'glasses')],
        *[('bush', 'bushes'), ('finch', 'finches'), ('monarch', 'monarchs'), ('tabby', 'tabbies')],
        *[('monkey', 'monkeys'), ('wolf', 'wolves'), ('knife', 'knives'), ('shelf', 'shelves')],
        *[('leaf', 'leaves'), ('reef', 'reefs'), ('giraffe', 'giraffes'), ('safe', 'safes')],
        *[('man', 'men'), ('fireman', 'firemen'), ('doberman', 'dobermans'), ('child', 'children')],
        *[('mouse', 'mice'), ('goose', 'geese'), ('mongoose', 'mongooses'), ('foot', 'feet')],
        *[('tooth', 'teeth'), ('person', 'people'), ('person', 'persons'), ('ox', 'oxen')],
        *[('goldfish', 'goldfish'), ('goldfish', 'goldfishes'), ('sheep', 'sheep')],
        *[('octopus', 'octopuses'), ('oasis', 'oases'), ('mantis', 'mantises'), ('lens', 'lenses')],
        *[('potato', 'potatoes'), ('flamingo', 'flamingos'), ('hourglass', 'hourglasses')],
        *[('house', 'houses'), ('horse', 'horses'), ('olive', 'olives'), ('cookie', 'cookies')],
        *[('fungus', 'fungi'), ('hippopotamus', 'hippopotami'), ('matrix', 'matrices')],
        *[('larva', 'larvae'), ('aquarium', 'aquaria'), ('chateau', 'chateaux')],
        *[('focus', 'focuses')],
    ],
)  # fmt: skip
def test_plural_and_singular_are_found_by_each_other(singular, plural):
    assert named(f'two small {plural}', f'small {singular}')
    if not plural.endswith(('i', 'a', 'ae', 'x', 'ices')):  # Latin ones are known of names alone
        assert named(f'one small {singular}', f'small {plural}')


@pytest.mark.parametrize(
    ('name', 'title'),
    [
        *[('glass', 'glas'), ('bus', 'bu'), ('bus', 'bi'), ('lens', 'len'), ('gas', 'ga')],
        *[('iris', 'iri'), ('safe', 'saves'), ('cafe', 'caves'), ('serf', 'serves')],
        *[('german', 'germen'), ('walrus', 'walru'), ('boss', 'bos'), ('news', 'new')],
        *[('bars', 'bar'), ('shades', 'shade'), ('series', 'sery'), ('dogs dinner', 'dog dinner')],
        *[('fly', 'flys'), ('dog', 'dogss'), ('grass', 'gras'), ('mini', 'minus')],
    ],
)
def test_what_is_no_plural_or_singular_of_a_name_is_not_taken_for_one(name, title):
    assert named(title, name) == []


def test_words_of_other_scripts_have_no_english_plural():
    assert plurals_of('кот') == plurals_of('猫') == plurals_of('r2') == []
    assert singulars_of('котs') == []


def test_all_names_of_imagenet_are_found_by_themselves():
    taxonomy = load_taxonomy('imagenet')
    matcher = TitleMatcher(taxonomy)
    for index, names in enumerate(taxonomy.synonyms):
        for name in names:
            letters = re.sub("'s|[^a-z]", '', name.lower())
            hashtag = '#' + re.sub('[^a-z]', '', name.lower())
            for title in (name, f'The {name.upper()}: 4K', hashtag, f"{name}'s"):
                found = dict(matcher.match(title)).get(index, '')
                assert len(re.sub("'s|[^a-z]", '', found.lower())) >= len(letters), title
    assert matcher.match('hotdog') == [(934, 'hotdog')]
    assert [index for index, _ in matcher.match('a tiger shark, not a tiger')] == [3, 292]


def test_titles_of_miniscenes_name_what_they_are_drawn_to_name(tmp_path):
    write_taxonomy(tmp_path / 'classes.json')
    matcher = TitleMatcher(load_taxonomy(str(tmp_path / 'classes.json')))
    for drawn in draw_titles([index % 8 for index in range(4000)], seed=3):
        assert [index for index, _ in matcher.match(drawn['title'])] == drawn['named'], drawn
