"""Retrieval: the videos whose titles name a class, and the choice where there are too many."""

import pickle
import random
from collections import Counter

import pytest

from tests.helpers.scenes import run_on
from vito_mm.curation.retrieval import Retrieve
from vito_mm.curation.running import Running, run_stage
from vito_mm.curation.stage import StageError
from vito_mm.curation.stage_folder import open_stage
from vito_mm.curation.tables import read_table, write_file

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
    (tmp_path / 'taxonomy.json').write_text(TAXONOMY)
    runs = iter(range(100))

    def run(rows, shard=50, workers=1, **settings):
        stage = Retrieve(str(tmp_path / 'taxonomy.json'), **settings)
        return run_on(stage, rows, tmp_path / str(next(runs)), shard, workers=workers)

    return run


def kept_by_class(rows: list[dict]) -> dict[int, list[int]]:
    """Numbers of the rows that each class kept."""
    kept: dict[int, list[int]] = {}
    for row in rows:
        for index in row.get('classes', ()):
            kept.setdefault(index, []).append(row['views'])
    return kept


def test_each_row_gets_the_queried_classes_that_its_title_names(retrieve):
    titles = ['My kitty', 'hot dog', 'dog & cat & kitty', '', 'nothing', 'renard \ud83d']
    rows = [dict(path=f'/{n}\udcff.mp4', title=title, n=n) for n, title in enumerate(titles)]
    expected = [
        dict(classes=[0], matches=['kitty']),
        dict(classes=[2], matches=['hot dog']),
        dict(classes=[0, 1], matches=['kitty', 'dog']),
        dict(dropped='title matches no class: the title is empty'),
        dict(dropped='title matches no class'),
        dict(classes=[3], matches=['renard']),
    ]
    assert retrieve(rows) == [row | more for row, more in zip(rows, expected, strict=True)]
    found = retrieve(rows, classes=('Dog',))
    assert [row.get('matches') for row in found] == [None, None, ['dog'], None, None, None]


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
    full = [row['dropped'] for row in found if row.get('dropped', '').startswith('all its')]
    assert 'all its classes are full: cat' in full


def test_the_choice_depends_on_the_seed_and_on_nothing_else(retrieve):
    rows = random_rows(300)
    first = retrieve(rows, limit=15)
    assert retrieve(rows, limit=15, workers=3, shard=40) == first
    assert retrieve(rows, limit=15, workers=2, shard=1000) == first
    by_class = kept_by_class(first)

    backwards = kept_by_class(retrieve(rows[::-1], limit=15, shard=130))
    elsewhere = [{**row, 'path': row['path'].replace('/videos', '/mnt/other')} for row in rows]
    for other in (backwards, kept_by_class(retrieve(elsewhere, limit=15))):
        assert {index: sorted(kept) for index, kept in other.items()} == by_class

    reseeded = kept_by_class(retrieve(rows, limit=15, seed=1))
    assert all(set(reseeded[index]) != set(by_class[index]) for index in by_class)
    # A higher limit adds videos and takes none away.
    more = kept_by_class(retrieve(rows, limit=25))
    assert all(set(by_class[index]) < set(more[index]) for index in by_class)


def test_the_choice_is_uniform_over_the_table_and_the_same_in_parts(retrieve, monkeypatch):
    rows = [dict(path=f'/{n}.mp4', title='cat', views=n) for n in range(1500)]
    kept = kept_by_class(retrieve(rows, limit=450, shard=100))[0]
    thirds = Counter(number // 500 for number in kept)
    assert sum(thirds.values()) == 450
    assert all(abs(thirds[part] - 150) < 40 for part in range(3))  # 4 standard deviations
    monkeypatch.setattr('vito_mm.curation.retrieval._WAITING', 10)
    assert kept_by_class(retrieve(rows, limit=450, shard=100))[0] == kept


def test_among_rows_of_equal_file_name_and_title_the_first_are_kept(retrieve):
    rows = [dict(path=f'/{n}/video.mp4', title='a cat', views=n) for n in range(40)]
    for shard in (9, 100):
        assert kept_by_class(retrieve(rows, shard, 2, limit=17)) == {0: list(range(17))}


def test_of_rows_of_one_path_the_first_stays_even_if_they_are_equal(retrieve):
    rows = random_rows(60)
    random.Random(1).shuffle(rows)
    copies = [*rows, *rows[:20], rows[3] | dict(title='fish'), rows[0] | dict(title='cat')]
    for shard in (17, 1000):
        found = retrieve(copies, shard=shard, workers=2, limit=12)
        assert [row.get('dropped') for row in found[60:]] == ['listed twice'] * 22
        assert found[:60] == retrieve(copies[:60], limit=12)
    # A row without a title is none of them.
    rows = [dict(path='/a.mp4'), *[dict(path='/a.mp4', title='cat', views=i) for i in (1, 2)]]
    found = [row.get('dropped') for row in retrieve(rows, limit=1)]
    assert found == ['has no title', None, 'listed twice']


def test_the_surveyed_stage_is_small_and_takes_what_it_needs_along(tmp_path, retrieve):
    rows = random_rows(400)
    retrieve(rows, limit=10)
    stage = Retrieve(str(tmp_path / 'taxonomy.json'), limit=10)
    shards = open_stage(stage, tmp_path / '0' / 'table', tmp_path / 'other', False)
    stage.survey(shards, 1)
    expected = list(read_table(tmp_path / '0' / 'retrieve'))

    (tmp_path / 'taxonomy.json').unlink()  # another machine may not have it
    data = pickle.dumps(stage)
    assert len(data) < 2000
    other = pickle.loads(data)
    for one in (stage, other):
        made = [one.finish(row, (number // 50, number % 50)) for number, row in enumerate(rows)]
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
    write_file(table / 'part-000000.parquet', [dict(path='/a.mp4', title='cat')])
    (table / 'part-000001.parquet').write_text('PAR1')
    stage = Retrieve(str(tmp_path / 'taxonomy.json'))
    with pytest.raises(StageError, match=r'cannot survey .*part-000001\.parquet: .*Parquet'):
        run_stage(stage, table, tmp_path / 'retrieve', Running(workers=2))


def test_wrong_settings_are_named(tmp_path, retrieve):
    taxonomy = str(tmp_path / 'taxonomy.json')
    with pytest.raises(ValueError, match=r"no class 'dgo' .*'dog'"):
        Retrieve(taxonomy, ('dgo',)).check_settings()
    with pytest.raises(ValueError, match='there is no taxonomy'):
        Retrieve(str(tmp_path / 'nowhere.txt')).check_settings()
