"""Titles: the classes that they name, and the videos that are retrieved by them."""
# ruff: noqa: RUF001

import pickle
import random
import re
from collections import Counter

import pytest

from vito_mm.curation.running import Running, import_table, run_stage
from vito_mm.curation.stage import StageError, open_stage
from vito_mm.curation.tables import read_table, write_file
from vito_mm.curation.taxonomy import Taxonomy, load_taxonomy
from vito_mm.curation.titles import Retrieve, TitleMatcher, plurals_of, singulars_of

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


def test_accents_are_folded_on_both_sides():
    assert named('bernese cafe', 'Bernese café') == ['Bernese café']
    assert named('BERNESE CAFE\u0301', 'Bernese cafe') == ['Bernese cafe']
    assert named('Ёлка', 'елка') == ['елка']
    assert named('σκυλος ΣΚΎΛΟΣ', 'σκύλος') == ['σκύλος']
    assert named('STRASSE', 'Straße') == ['Straße']


def test_scripts_from_right_to_left_are_read_in_the_order_of_their_letters():
    assert named('\u202bקטע על כלב גדול\u202c (4K)', 'כלב גדול') == ['כלב גדול']
    assert named('\u200fقـــطة صغيرة', 'قطة') == ['قطة'], 'letters drawn apart'


def test_entities_are_no_words():
    assert named('cats &amp; dogs', 'amp', 'cat', 'dog') == ['cat', 'dog']
    assert named('cat&nottoday, R&D;', 'nottoday') == ['nottoday'], 'no entity'


def test_marks_of_other_scripts_are_letters():
    # Vowel signs: `cat` and a word that differs from it in its signs alone.
    assert named('मेरी बिल्ली का दिन', 'बिल्ली') == ['बिल्ली']
    assert named('बल्ला', 'बिल्ली') == []
    assert named('बिल्ली', 'बल्ल') == []
    assert named('カキ', 'ガキ') == []  # voiced or not
    assert named('ｶﾞｷ', 'ガキ') == ['ガキ']


def test_scripts_without_spaces_are_searched_anywhere():
    assert named('我的金毛寻回犬好可爱', '金毛寻回犬') == ['金毛寻回犬']
    assert named('かわいい柴犬の動画', '柴犬') == ['柴犬']
    assert named('ゴールデン・レトリバーの子犬', 'ゴールデンレトリバー') == ['ゴールデンレトリバー']
    assert named('รักแมวมาก', 'แมว') == ['แมว']
    assert named('ខ្ញុំស្រលាញ់ឆ្មាណាស់', 'ឆ្មា') == ['ឆ្មា']
    assert named('热狗和狗', '狗', '热狗') == ['狗', '热狗']
    assert named('热狗', '狗', '热狗') == ['热狗']
    # A Thai tone mark and a Khmer subscript belong to the letter before them.
    assert named('ก่', 'ก') == []
    assert named('ឆ្មា', 'ឆ') == []
    assert named('我的iPod坏了', 'iPod') == ['iPod']


def test_korean_has_spaces():
    assert named('귀여운 고양이', '고양이') == ['고양이']
    assert named('고양이들', '고양이') == []


def test_apostrophes_in_names_may_be_left_out():
    for title in ("carpenter's kit", 'carpenter’s kits', 'Carpenters kit', 'carpenter kit'):
        assert named(title, "carpenter's kit") == ["carpenter's kit"]
    for title in ('jack o’lantern', "Jack-o'-Lanterns", 'jack o lantern', 'jackolantern'):
        assert named(title, "jack-o'-lantern") == ["jack-o'-lantern"]


def test_camel_case_is_read_whole_and_in_parts():
    assert named('#iPod', 'iPod', 'pod') == ['iPod']
    assert named('#HotDog', 'dog', 'hot dog', 'hotdog') == ['hot dog', 'hotdog']
    assert named('#TheHotDogs and a dog', 'dog', 'hot dog') == ['dog', 'hot dog']
    assert named('#RedFoxVlog', 'fox', 'dog') == ['fox']
    assert named('RedFoxVlog', 'fox', 'dog') == []
    assert named('a\x1fb', 'b') == ['b']


def test_a_longer_name_hides_the_name_of_another_class_within_it():
    assert named('hot dog', 'dog', 'hot dog') == ['hot dog']
    assert named('hot dogs for a dog', 'dog', 'hot dog') == ['dog', 'hot dog']
    assert named('tiger shark fins', 'tiger', 'tiger shark', 'shark fin') == [
        'tiger shark',
        'shark fin',
    ]
    assert named('cat and dog', 'dog', 'cat', 'fox') == ['dog', 'cat']


def test_of_the_names_of_a_class_the_longest_is_told():
    assert named('great white shark', 'shark, white shark, great white shark') == [
        'great white shark'
    ]
    assert named('dog, canine; pooch', 'dog, canine, poochy') == ['canine']
    assert named('hound or pooch', 'dog, pooch, hound') == ['pooch']


def test_a_name_that_classes_share_names_all_of_them():
    matcher = TitleMatcher(taxonomy_of('crane bird, crane', 'goose', 'crane'))
    assert matcher.match('a crane') == [(0, 'crane'), (2, 'crane')]
    assert matcher.match('a crane bird') == [(0, 'crane bird')]


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
    ],
)  # fmt: skip
def test_plural_and_singular_are_found_by_each_other(singular, plural):
    assert named(f'two small {plural}', f'small {singular}')
    assert named(f'one small {singular}', f'small {plural}')


def test_latin_plurals_of_a_name_are_found():
    pairs = 'fungus fungi, hippopotamus hippopotami, matrix matrices, larva larvae'
    for pair in f'{pairs}, aquarium aquaria, chateau chateaux, focus focuses'.split(', '):
        singular, plural = pair.split()
        assert named(plural, singular)


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


# The stage.

TAXONOMY = '{"cat": ["kitty"], "dog": [], "hot dog": [], "red fox": ["renard"], "fish": []}'
WORDS = ['cat', 'kitty', 'dogs', 'hot dog', 'red fox', 'fish', 'nothing']


def random_rows(count: int, seed: int = 0) -> list[dict]:
    """Rows whose titles name one or two classes, or none."""
    rng = random.Random(seed)
    return [
        dict(
            path=f'/videos/{rng.randrange(10)}/{number}.mp4',
            title=f'{rng.choice(WORDS)} and {rng.choice(WORDS)}',
            views=number,
        )
        for number in range(count)
    ]


@pytest.fixture
def retrieve(tmp_path):
    """Returns a function that runs the stage on rows and gives all rows of its table."""
    taxonomy = tmp_path / 'taxonomy.json'
    taxonomy.write_text(TAXONOMY)
    runs = iter(range(100))

    def run(rows, shard=50, workers=1, form='jsonl', **settings):
        folder = tmp_path / str(next(runs))
        folder.mkdir()
        write_file(folder / 'videos.jsonl', rows)
        running = Running(workers=workers, form=form)
        import_table(
            folder / 'videos.jsonl',
            folder / 'table',
            running,
            shard,
            needs=('path', 'title'),
            say=lambda message: None,
        )
        stage = Retrieve(str(taxonomy), **settings)
        run_stage(stage, folder / 'table', folder / 'retrieve', running)
        return list(read_table(folder / 'retrieve'))

    return run


def kept_by_class(rows: list[dict]) -> dict[int, list[int]]:
    """Numbers of the rows that each class kept."""
    kept: dict[int, list[int]] = {}
    for row in rows:
        for index in row.get('classes', ()):
            kept.setdefault(index, []).append(row['views'])
    return kept


def test_each_row_gets_the_classes_that_its_title_names(retrieve):
    titles = ['My kitty', 'hot dog', 'dog & cat & kitty', '', 'nothing', 'renard ❤']
    rows = [dict(path=f'/{n}.mp4', title=title, n=n) for n, title in enumerate(titles)]
    found = retrieve(rows)
    assert [{**row} for row in found] == [
        {**rows[0], 'classes': [0], 'matches': ['kitty']},
        {**rows[1], 'classes': [2], 'matches': ['hot dog']},
        {**rows[2], 'classes': [0, 1], 'matches': ['kitty', 'dog']},
        {**rows[3], 'dropped': 'title matches no class: the title is empty'},
        {**rows[4], 'dropped': 'title matches no class'},
        {**rows[5], 'classes': [3], 'matches': ['renard']},
    ]


def test_only_the_wanted_classes_are_queried(retrieve):
    rows = [
        dict(path=f'/{n}.mp4', title=title)
        for n, title in enumerate(['a cat', 'cat and dog', 'hot dog'])
    ]
    found = retrieve(rows, classes=('Dog',))
    assert found[0]['dropped'] == found[2]['dropped'] == 'title matches no class'
    assert (found[1]['classes'], found[1]['matches']) == ([1], ['dog'])


@pytest.mark.parametrize('limit', [1, 20, 60])
def test_a_class_keeps_exactly_as_many_as_the_limit_allows(retrieve, limit):
    rows = random_rows(200)
    named_by_class = kept_by_class(retrieve(rows, limit=1000))
    found = retrieve(rows, limit=limit)
    kept = kept_by_class(found)
    assert min(map(len, named_by_class.values())) < 60
    for index, numbers in named_by_class.items():
        assert len(kept[index]) == min(limit, len(numbers))
        assert set(kept[index]) <= set(numbers)
    for row in found:
        assert ('dropped' in row) != bool(row.get('classes'))
        assert len(row.get('classes', ())) == len(row.get('matches', ()))
    full = [row['dropped'] for row in found if row.get('dropped', '').startswith('all its')]
    assert full
    assert {reason.split(':')[0] for reason in full} == {'all its classes are full'}
    assert 'all its classes are full: cat' in full


def test_the_choice_depends_on_the_seed_and_on_nothing_else(retrieve):
    rows = random_rows(300)
    first = retrieve(rows, limit=15)
    assert retrieve(rows, limit=15, workers=3, shard=7) == first
    assert retrieve(rows, limit=15, workers=2, shard=1000, form='parquet') == first
    by_class = kept_by_class(first)

    backwards = kept_by_class(retrieve(rows[::-1], limit=15, shard=13))
    elsewhere = [{**row, 'path': row['path'].replace('/videos', '/mnt/other')} for row in rows]
    for other in (backwards, kept_by_class(retrieve(elsewhere, limit=15))):
        assert {index: sorted(kept) for index, kept in other.items()} == by_class

    reseeded = kept_by_class(retrieve(rows, limit=15, seed=1))
    assert all(set(reseeded[index]) != set(by_class[index]) for index in by_class)
    # A higher limit adds videos and takes none away.
    more = kept_by_class(retrieve(rows, limit=25))
    assert all(set(by_class[index]) < set(more[index]) for index in by_class)


def test_the_choice_is_uniform_over_the_table(retrieve):
    rows = [dict(path=f'/{n}.mp4', title='cat', views=n) for n in range(3000)]
    kept = kept_by_class(retrieve(rows, limit=900, shard=500))[0]
    thirds = Counter(number // 1000 for number in kept)
    assert sum(thirds.values()) == 900
    assert all(abs(thirds[part] - 300) < 60 for part in range(3))  # 4 standard deviations


def test_among_rows_of_equal_file_name_and_title_the_first_are_kept(retrieve):
    rows = [dict(path=f'/{n}/video.mp4', title='a cat', views=n) for n in range(40)]
    for shard in (1, 9, 100):
        kept = kept_by_class(retrieve(rows, limit=17, shard=shard, workers=2))
        assert kept == {0: list(range(17))}


def test_of_rows_of_one_path_the_first_stays_even_if_they_are_equal(retrieve):
    rows = random_rows(60)
    copies = [*rows, *rows[:20], {**rows[3], 'title': 'fish'}, {**rows[0], 'title': 'cat'}]
    rng = random.Random(1)
    middle = copies[20:60]
    rng.shuffle(middle)
    copies = copies[:20] + middle + copies[60:]
    for shard in (3, 1000):
        found = retrieve(copies, shard=shard, workers=2, limit=12)
        assert [row.get('dropped') for row in found[60:]] == ['listed twice'] * 22
        assert found[:60] == retrieve(copies[:60], limit=12)


def test_a_row_without_a_title_does_not_count_as_the_first(retrieve):
    rows = [
        dict(path='/a.mp4'),
        dict(path='/a.mp4', title='cat', views=1),
        dict(path='/a.mp4', title='cat', views=2),
    ]
    found = retrieve(rows, limit=1)
    assert [row.get('dropped') for row in found] == ['has no title', None, 'listed twice']


def test_titles_and_names_that_are_no_unicode_pass_through(retrieve):
    rows = [dict(path='/\udcff.mp4', title='cat \ud83d', views=0), dict(path='/b', title='dog')]
    assert [row['classes'] for row in retrieve(rows)] == [[0], [1]]


def test_the_surveyed_stage_is_small_and_takes_what_it_needs_along(tmp_path, retrieve):
    rows = random_rows(400)
    retrieve(rows, limit=10)
    stage = Retrieve(str(tmp_path / 'taxonomy.json'), limit=10)
    shards = open_stage(stage, tmp_path / '0' / 'table', tmp_path / 'other', 'jsonl', False)
    stage.survey(shards, 1)
    expected = list(read_table(tmp_path / '0' / 'retrieve'))

    (tmp_path / 'taxonomy.json').unlink()  # another machine may not have it
    data = pickle.dumps(stage)
    assert len(data) < 2000
    other = pickle.loads(data)
    for one in (stage, other):
        made = [
            one.finish(row, one.prepare_at(row, number // 50, number % 50))
            for number, row in enumerate(rows)
        ]
        assert made == expected


def test_identity_has_the_content_of_the_taxonomy_and_not_its_place(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 't.json').write_text(TAXONOMY)
    first, second = (
        Retrieve(str(tmp_path / name / 't.json'), classes).identity()
        for name, classes in [('a', ('DOG', 'kitty')), ('b', ('cat', 'dog', 'dog'))]
    )
    assert first == second
    assert first['classes'] == ['cat', 'dog']
    (tmp_path / 'b' / 't.json').write_text('["cat", "dog"]')
    third = Retrieve(str(tmp_path / 'b' / 't.json'), ('cat', 'dog')).identity()
    assert first['taxonomy'] != third['taxonomy']


def test_a_shard_that_cannot_be_read_is_named(tmp_path, retrieve):
    table = tmp_path / 'table'
    table.mkdir()
    write_file(table / 'part-000000.jsonl', [dict(path='/a.mp4', title='cat')])
    (table / 'part-000001.jsonl').write_text('{"path": "/b.mp4", "title": \n')
    stage = Retrieve(str(tmp_path / 'taxonomy.json'))
    with pytest.raises(StageError, match=r'cannot survey .*part-000001\.jsonl: .*not JSON'):
        run_stage(stage, table, tmp_path / 'retrieve', Running(workers=2))


def test_wrong_settings_are_told(tmp_path, retrieve):
    taxonomy = str(tmp_path / 'taxonomy.json')
    with pytest.raises(ValueError, match='--limit 0: give 1 or more'):
        Retrieve(taxonomy, limit=0).check_settings()
    with pytest.raises(ValueError, match=r"no class 'dgo' .*'dog'"):
        Retrieve(taxonomy, ('dgo',)).check_settings()
    with pytest.raises(ValueError, match='there is no taxonomy'):
        Retrieve(str(tmp_path / 'nowhere.txt')).check_settings()
    with pytest.raises(StageError, match=r'keeps none of 1 videos \(1 title matches no class\)'):
        retrieve([dict(path='/a.mp4', title='nothing')])
