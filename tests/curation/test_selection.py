"""Selecting: filters, duplicates that all are found, and limits of classes."""

import hashlib
import json
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import write_video
from tests.helpers.scenes import as_json, copy_video, run_on, write_frames, write_scene
from vito_mm.curation.duplicates import find_originals, first_equal, near_pairs
from vito_mm.curation.filters import Filter
from vito_mm.curation.probing import Probe
from vito_mm.curation.selection import Select, label_of
from vito_mm.curation.stage import Shard
from vito_mm.curation.tables import TableError, read_table


def random_hashes(count: int, seed: int, planted: int = 0, flips: int = 20):
    """Hashes of three frames, some rows copies of others with some bits changed, some unknown."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, (count, 3), dtype=np.uint64)
    for _ in range(planted):
        source, target = rng.integers(0, count, 2)
        hashes[target] = hashes[source]
        for _ in range(rng.integers(0, flips + 1)):
            hashes[target, rng.integers(0, 3)] ^= np.uint64(1 << int(rng.integers(0, 64)))
    return hashes, rng.random((count, 3)) < 0.9


def all_near_pairs(hashes, known, max_distance: float) -> set[tuple[int, int]]:
    """By comparing all with all."""
    bits = np.vectorize(lambda value: int(value).bit_count())(hashes[:, None] ^ hashes[None])
    both = known[:, None] & known[None]
    near = (bits * both).sum(2) <= max_distance * both.sum(2)
    first, second = np.nonzero(near & both.any(2))
    return {(i, j) for i, j in zip(first.tolist(), second.tolist(), strict=True) if i < j}


def found_pairs(hashes, known, max_distance: float) -> set[tuple[int, int]]:
    pairs = set()
    for first, second in near_pairs(hashes, known, max_distance):
        pairs |= {(min(p), max(p)) for p in zip(first.tolist(), second.tolist(), strict=True)}
    return pairs


@pytest.mark.parametrize(
    ('count', 'max_distance'),
    [(2, 12), (60, 0), (60, 3), (60, 8), (1000, 1), (1000, 4.4), (1000, 12)],
)
def test_the_pairs_are_those_of_comparing_all_with_all(count, max_distance):
    planted = dict(planted=count // 2, flips=int(6 * max_distance) + 3)
    hashes, known = random_hashes(count, seed=count, **planted)
    expected = all_near_pairs(hashes, known, max_distance)
    assert found_pairs(hashes, known, max_distance) == expected
    assert len(expected) > count // 20 - 1


def test_no_pair_is_missed_among_hashes_that_many_videos_share():
    # Few values in each frame, and values that are near each other: large buckets everywhere.
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**64, 4, dtype=np.uint64)
    flips = np.uint64(1) << rng.integers(0, 64, (1000, 3), dtype=np.uint64)
    hashes = values[rng.integers(0, 4, (1000, 3))] ^ flips
    known = rng.random((1000, 3)) < 0.7
    for max_distance in (1, 2, 6):
        expected = all_near_pairs(hashes, known, max_distance)
        assert found_pairs(hashes, known, max_distance) == expected
        assert len(expected) > 500
    # One value in one frame makes no duplicates, unless no other frame is known of both.
    hashes, known = random_hashes(1500, seed=1, planted=40, flips=4)
    hashes[:1200, 1] = hashes[0, 1]
    expected = all_near_pairs(hashes, known, 4)
    assert found_pairs(hashes, known, 4) == expected
    assert 0 < len(expected) < 30_000


@pytest.mark.parametrize('max_distance', [0, 2, 4, 7.5])
def test_duplicates_are_those_near_the_first_that_is_kept(max_distance):
    hashes, known = random_hashes(400, seed=2, planted=500, flips=12)
    known[::40] = False
    pairs, expected = all_near_pairs(hashes, known, max_distance), []
    for row in range(len(hashes)):
        near = [k for k in range(row) if expected[k] == k and (k, row) in pairs]
        expected.append(near[0] if near else row)
    assert find_originals(hashes, known, max_distance).tolist() == expected
    assert len(set(expected)) < 390


def test_a_hundred_thousand_videos_and_only_planted_duplicates():
    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 2**64, (100_000, 3), dtype=np.uint64)
    sources = rng.permutation(50_000)[:2000]
    targets = 50_000 + rng.permutation(50_000)[:2000]
    flips = np.uint64(1) << rng.integers(0, 64, (12, 2000), dtype=np.uint64)
    hashes[targets] = hashes[sources]
    for number, flip in enumerate(flips):
        hashes[targets, number % 3] ^= flip
    expected = np.arange(len(hashes))
    expected[targets] = sources
    known = np.ones(hashes.shape, bool)
    np.testing.assert_array_equal(find_originals(hashes, known, 4), expected)


def test_many_near_duplicates_of_one_take_no_memory_for_their_pairs(monkeypatch):
    # Rows that all are near each other: two million pairs of 16 bytes, found three times.
    monkeypatch.setattr('vito_mm.curation.duplicates._CHUNK', 2**16)
    rng = np.random.default_rng(4)
    flips = np.uint64(1) << rng.integers(0, 64, (2000, 3), dtype=np.uint64)
    hashes = rng.integers(0, 2**64, 3, dtype=np.uint64) ^ flips
    tracemalloc.start()
    try:
        assert not find_originals(hashes, np.ones(hashes.shape, bool), 2).any()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 15e6


def test_nothing_to_compare_is_no_error_and_equal_rows_are_found():
    for rows, frames in ((0, 0), (0, 3), (5, 0)):
        empty = np.zeros((rows, frames), np.uint64)
        assert find_originals(empty, empty.astype(bool), 4).tolist() == list(range(rows))
    assert list(near_pairs(empty, empty.astype(bool), 4)) == []
    columns = [np.array([3, 1, 3, 3, 1]), np.array([0, 0, 0, 1, 0])]
    assert first_equal(columns).tolist() == [0, 1, 0, 3, 1]


def table_row(name: str, hashes=('00ff00ff00ff00ff',) * 3, **columns) -> dict:
    """Row of a probed video; no two have the same bytes."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    facts = dict(seconds=12.0, width=320, height=240, sha256=digest, hashes=list(hashes))
    return dict(path=f'/videos/{name}.mp4') | facts | columns


def reasons(rows) -> dict[str, str | None]:
    return {Path(row['path']).stem: row.get('dropped') for row in rows}


def test_copies_are_dropped_and_other_videos_are_not(tmp_path):
    paths = []
    for seed in range(2):
        source = write_scene(tmp_path / f'b{seed}.mp4', seed)
        paths += [
            source,
            copy_video(source, tmp_path / f'a{seed}.mp4', (64, 48)),  # smaller
            copy_video(source, tmp_path / f'c{seed}.mp4', (128, 96), crf=35),  # of equal size
            copy_video(source, tmp_path / f'd{seed}.webm', (96, 96), 'libvpx-vp9', 40),
            write_scene(tmp_path / f'mirrored{seed}.mp4', seed, mirrored=True),
            write_scene(tmp_path / f'other{seed}.mp4', seed + 10),
        ]
    # Dark videos, each different, and two of the same bytes. Halves of one colour each, too.
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 3, (20, 48, 64, 3), dtype=np.uint8)
        paths.append(write_frames(tmp_path / f'dark{index}.mp4', list(noise), 10))
        paths.append(write_video(tmp_path / f'halves{index}.mp4', num_frames=50 + index))
    (tmp_path / 'dark3.mp4').write_bytes((tmp_path / 'dark2.mp4').read_bytes())
    paths.append(tmp_path / 'dark3.mp4')
    rows = [dict(path=str(path)) for path in paths]
    probed = run_on(Probe(min_seconds=1), rows, tmp_path / 'probed')
    found = reasons(run_on(Select(), probed, tmp_path / 'selected'))
    dropped = {name: reason for name, reason in found.items() if reason is not None}
    expected = {f'{x}{s}': f'duplicate: of {tmp_path}/b{s}.mp4' for s in range(2) for x in 'acd'}
    assert dropped == expected | dict(dark3=f'duplicate: of {tmp_path}/dark2.mp4')
    kept = run_on(Select(max_distance=None), probed, tmp_path / 'all')
    assert not any(reasons(kept).values())


COPY = 'duplicate: of /videos/{}.mp4'
NEAR = ['0' * 16, f'{0xF:016x}', f'{0xFF:016x}', f'{0xFFF:016x}']


@pytest.mark.parametrize(
    ('rows', 'kept'),
    [
        # The longest, but for rounding; then the largest; then the first.
        (dict(a={}, b=dict(seconds=12.04), c=dict(seconds=13.0, width=160)), dict(a='c', b='c')),
        (dict(a={}, b=dict(seconds=12.04)), dict(b='a')),
        (dict(a={}, d=dict(width=200, height=390), b={}), dict(a='d', b='d')),
        # Of a chain only what is near the one that is kept is dropped.
        ({n: dict(hashes=[h]) for n, h in zip('abcd', NEAR, strict=True)}, dict(b='a', d='c')),
        (
            {
                n: dict(hashes=[h], seconds=20.0 if n == 'b' else 12.0)
                for n, h in zip('abcd', NEAR, strict=True)
            },
            dict(a='b', c='b'),
        ),
        # Equal bytes are named after what is kept in the end.
        (
            dict(a=dict(sha256='a1'), b=dict(sha256='a1'), c=dict(sha256='c3', seconds=20.0)),
            dict(a='c', b='c'),
        ),
        # Only frames with a hash in both are compared; without any, equal bytes are what remains.
        (
            dict(
                a=dict(hashes=[NEAR[0], NEAR[0], '']),
                b=dict(hashes=['', NEAR[1], 'f' * 16]),
                c=dict(hashes=['', '', NEAR[0]]),
                d=dict(hashes=['', '', ''], sha256='d4'),
                e=dict(hashes=['', '', '']),
                f=dict(hashes=['', '', ''], sha256='d4'),
            ),
            dict(b='a', f='d'),
        ),
        (dict(a=dict(hashes=[], sha256='a1'), b=dict(hashes=[], sha256='a1')), dict(b='a')),
        # A duplicate of another class is one.
        (dict(a=dict(labels=[3]), b=dict(labels=[5])), dict(b='a')),
        # A part is as long as it is, whatever the length of its file.
        (
            dict(a=dict(seconds=900.0, start=100.0, end=104.0), b=dict(seconds=5.0)),
            dict(a='b'),
        ),
    ],
)
def test_of_duplicates_one_is_kept(tmp_path, rows, kept):
    for row in rows.values():
        row |= dict(label_frames=[1], label_scores=[0.5]) if 'labels' in row else {}
    found = run_on(Select(), [table_row(name, **row) for name, row in rows.items()], tmp_path)
    assert reasons(found) == {n: COPY.format(kept[n]) if n in kept else None for n in rows}
    assert [row.get('labels') for row in found] == [row.get('labels') for row in rows.values()]


def test_what_a_filter_drops_hides_no_duplicate(tmp_path):
    rows = [table_row('a', seconds=900.0), table_row('b'), table_row('c')]
    found = reasons(run_on(Select(('seconds<=600',)), rows, tmp_path))
    assert found == dict(a='filter seconds: 900', b=None, c='duplicate: of /videos/b.mp4')


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('seconds<=12', None),
        ('seconds<12', 'filter seconds: 12'),
        (' seconds == 12.0 ', None),
        ('seconds!=12', 'filter seconds: 12'),
        ('width>=1e2', None),
        ('width>320', 'filter width: 320'),
        ('aspect<=1.34', None),
        ('aspect<=1.3', 'filter aspect: 1.333333333'),
        ('numbers>=3', None),
        ('numbers<3', 'filter numbers: 3'),  # the largest counts
        ('likes>=100', None),  # text, as in CSV
        ('view count>0', None),
        ('some>0', 'filter some: none'),
    ],
)
def test_filters_compare_columns_with_numbers(text, reason):
    row = table_row('a', numbers=[1, 3, 2], likes='120', **{'view count': 7})
    assert Filter.parse(text).apply(row).get('dropped') == reason
    upright = row | dict(width=240, height=320)  # no matter for the aspect
    assert text[0] == 'w' or Filter.parse(text).apply(upright).get('dropped') == reason


@pytest.mark.parametrize(
    ('part', 'reason'),
    [
        ({}, None),
        (dict(start=2.0), 'filter seconds: 10'),
        (dict(end=11.5), 'filter seconds: 11.5'),
        (dict(start=1.0, end=900.0), 'filter seconds: 11'),
        (dict(end=900.0), None),
    ],
)
def test_the_length_of_a_part_is_filtered(part, reason):
    row = table_row('a', **part)
    assert Filter.parse('seconds>=12').apply(row).get('dropped') == reason
    del row['seconds']
    assert Filter.parse('seconds>=12').apply(row)['dropped'] == 'filter seconds: none'


def test_filters_of_labels_take_labels_away(tmp_path):
    labels = dict(labels=[2, 5, 7], label_frames=[1, 30, 8], label_scores=[0.9, 0.4, 0.05])
    other = dict(classes=[2, 5, 7, 9], top1=5)
    rows = [
        table_row('a', ['1' * 16], **labels, **other),
        table_row('b', ['2' * 16], labels=[2], label_frames=[1], label_scores=[0.9]),
        table_row('c', ['4' * 16], labels=[2], label_frames=[5], label_scores=[0.01]),
    ]
    stage = Select(('label_frames>=2', 'label_scores>=0.1'))
    found = run_on(stage, rows, tmp_path)
    assert found[0]['labels'] == [5]
    assert found[0]['label_frames'] == [30]
    assert found[0]['label_scores'] == [0.4]
    assert {name: found[0][name] for name in other} == other
    assert found[0]['label'] == 5
    assert found[1]['dropped'] == 'filter label_frames: 1'
    assert found[2]['dropped'] == 'filter label_scores: 0.01'


@pytest.mark.parametrize('text', ['seconds', 'seconds=5', '<=5', 'seconds<=ten', 'a<b<5', 'a<nan'])
def test_filters_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match=r'give a column, one of .* and a number') as error:
        Select((text,))
    assert repr(text) in str(error.value)


def test_columns_that_the_table_lacks_are_named_with_those_that_it_has(tmp_path):
    with pytest.raises(TableError, match=r"no column 'hight' .*mean 'height'\?\), but 'path', "):
        run_on(Select(('hight>=240',)), [table_row('a')], tmp_path / '1')
    with pytest.raises(TableError, match=r"'title<=3'.* has 'Tea for two', which is no number"):
        run_on(Select(('title<=3',)), [table_row('a', title='Tea for two')], tmp_path / '2')


def test_the_label_is_the_one_on_most_frames_with_the_name_of_its_class(tmp_path):
    for frames, scores, label in (
        ([1, 5, 3], [0.9, 0.1, 0.5], 4),
        ([5, 5, 3], [0.2, 0.3, 0.9], 4),
        ([5, 5, 5], [0.3, 0.3, 0.3], 2),
    ):
        row = dict(labels=[2, 4, 8], label_frames=frames, label_scores=scores)
        assert label_of(row) == label
        assert label_of({name: values[::-1] for name, values in row.items()}) == label
    (tmp_path / 'two.txt').write_text('tea, chai\ncoffee\n')
    stage = Select(taxonomy=str(tmp_path / 'two.txt'))
    one = dict(labels=[1], label_frames=[5], label_scores=[0.5])
    rows = [table_row('a', ['1' * 16], **one), table_row('b', ['8' * 16, '1' * 16])]
    found = run_on(stage, rows, tmp_path / '1')
    assert (found[0]['label'], found[0]['class_name']) == (1, 'coffee')
    assert not {'label', 'class_name'} & set(found[1])
    rows[0]['labels'] = [2]
    with pytest.raises(TableError, match=r'has the label 2, but the taxonomy .* only 2 classes'):
        run_on(stage, rows, tmp_path / '2')


@pytest.mark.parametrize('labels', [['cat', 'dog'], [999], [3, 1], 'cat', 7])
def test_labels_of_the_user_are_no_classes(tmp_path, labels):
    rows = [table_row('a', ['1' * 16], labels=labels, label='mine', class_name='My cat')]
    (found,) = run_on(Select(('seconds>=1',)), rows, tmp_path / '1')
    assert found == rows[0]
    with pytest.raises(TableError, match='--per-class needs labels'):
        run_on(Select(per_class=3), rows, tmp_path / '2')


def labelled(count: int) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        dict(
            path=f'/videos/{number:04d}.mp4',
            sha256=hashlib.sha256(bytes([number])).hexdigest(),
            hashes=[f'{int(h):016x}' for h in rng.integers(0, 2**63, 3)],
            labels=[int(rng.integers(0, 5))],
            label_frames=[7],
            label_scores=[0.5],
        )
        for number in range(count)
    ]


def kept_names(rows) -> set[str]:
    return {Path(row['path']).stem for row in rows if 'dropped' not in row}


def test_a_class_keeps_exactly_as_many_as_it_may_chosen_by_seed_and_file_name(tmp_path):
    rows = labelled(200)
    found = run_on(Select(per_class=12, seed=3), rows, tmp_path / '1', rows_per_shard=30)
    expected = set()
    for label in range(5):
        names = [Path(row['path']).name for row in rows if row['labels'] == [label]]
        assert len(names) > 12
        digest = {n: hashlib.blake2b(f'3\0{n}'.encode(), digest_size=8).digest() for n in names}
        expected |= {name[:4] for name in sorted(names, key=digest.get)[:12]}
    assert kept_names(found) == expected
    assert {row.get('dropped') for row in found} == {None, 'its class is full'}
    # Neither order nor folder of the files has a say, and a larger collection changes little.
    moved = [dict(row, path=row['path'].replace('videos', 'disk')) for row in rows[::-1]]
    assert kept_names(run_on(Select(per_class=12, seed=3), moved, tmp_path / '2', 200)) == expected
    fewer = kept_names(run_on(Select(per_class=12, seed=3), rows[:150], tmp_path / '3', 200))
    assert {name for name in expected if int(name) < 150} <= fewer
    assert kept_names(run_on(Select(per_class=12, seed=4), rows, tmp_path / '4', 200)) != expected
    plenty = run_on(Select(per_class=200), rows, tmp_path / '5', 200)
    assert len(kept_names(plenty)) == 200


def test_duplicates_and_filtered_videos_take_no_place_of_a_class(tmp_path):
    rows = labelled(10)
    for number, row in enumerate(rows):
        row['labels'] = [1]
        row['likes'] = number
    rows[9]['sha256'] = rows[8]['sha256']
    found = run_on(Select(('likes>=4',), per_class=5), rows, tmp_path)
    assert kept_names(found) == {'0004', '0005', '0006', '0007', '0008'}


def test_columns_that_are_missing_or_odd_are_named(tmp_path):
    with pytest.raises(TableError, match=r'--per-class needs labels, which /videos/a.mp4 does not'):
        run_on(Select(per_class=5), [table_row('a')], tmp_path / '1')
    with pytest.raises(TableError, match=r'"sha256" and "hashes".*"probe".*--max-distance -1'):
        run_on(Select(), [dict(path='/a.mp4')], tmp_path / '2')
    rows = [dict(path='/a.mp4', sha256='of something else')] * 2
    assert kept_names(run_on(Select(max_distance=-1), rows, tmp_path / '3')) == {'a'}
    with pytest.raises(ValueError, match='--max-distance 13: give'):
        Select(max_distance=13)
    odd = (
        ('hashes', ['xyz'], '/videos/a.mp4: the column .hashes. has'),
        ('sha256', 'no', '/videos/a.mp4: the column .sha256. has'),
        ('seconds', 'long', "rows.jsonl, line 1: seconds is 'long'"),
        ('labels', [1, 2], 'differ in length'),
        ('labels', ['cat'], "the column .labels. has .'cat'.; a list of indices"),
        ('labels', [-1], 'the column .labels. has .-1.; a list of indices'),
    )
    for number, (column, value, message) in enumerate(odd):
        row = table_row('a', label_frames=[3], label_scores=[0.5]) | {column: value}
        with pytest.raises(TableError, match=message):
            run_on(Select(), [row], tmp_path / f'odd-{number}')


def test_parts_of_one_file_are_no_duplicates_of_each_other(tmp_path):
    """Not by their file, and not by what they show; copies of the file are, part by part."""
    still = table_row('a') | dict(hashes=['0123456789abcdef'] * 3, sha256='ab' * 32)
    copy, like = (still | dict(path=f'/videos/{name}.mp4') for name in 'bc')
    like['sha256'] = 'cd' * 32
    parts = [dict(start=0.0, end=10.0), dict(start=10.0, end=20.0), dict(start=20.0)]
    rows = [still | part for part in parts] + [still | parts[1]]
    rows += [copy | parts[2], copy | dict(start=5.0), like | dict(start=3.0)]
    rows += [table_row('d') | part for part in ({}, *parts)]
    found = run_on(Select(), rows, tmp_path / 'work')
    reasons = [row.get('dropped') for row in found]
    assert reasons[:4] == [None, None, None, 'duplicate: of itself, listed twice']
    assert reasons[4] == 'duplicate: of /videos/a.mp4#t=20.0'
    assert reasons[5].startswith('duplicate: of /videos/a.mp4#t=')  # they show the same
    assert reasons[6].startswith('duplicate: of /videos/a.mp4#t=')
    assert reasons[7:] == [None] * 4


def busy_table(count: int = 120) -> list[dict]:
    """Rows of everything: duplicates of duplicates, repeated paths, filtered ones, full classes."""
    rng = np.random.default_rng(5)
    rows = labelled(count)
    for row in rows:
        row.update(seconds=float(rng.integers(10, 14)), width=320, height=240)
        row['title'] = f'title {row["path"]}'
    for _ in range(60):
        source, target = rng.integers(0, count, 2)
        bits = int(rows[source]['hashes'][0], 16) ^ (1 << int(rng.integers(0, 64)))
        rows[target]['hashes'] = [f'{bits:016x}', *rows[source]['hashes'][1:]]
    for target in rng.integers(0, count, 10):
        rows[target]['path'] = rows[0]['path']
    return rows


def test_the_result_depends_neither_on_shards_nor_on_processes(tmp_path):
    settings, rows = dict(filters=('seconds<13',), per_class=9), busy_table()
    expected = run_on(Select(**settings), rows, tmp_path / '1', rows_per_shard=200, workers=1)
    kinds = {(row.get('dropped') or 'kept').split('/')[0].split(':')[0] for row in expected}
    assert kinds == {'kept', 'filter seconds', 'duplicate', 'its class is full'}
    for size in (7, 50):
        found = run_on(Select(**settings), rows, tmp_path / f'more{size}', size, workers=2)
        assert as_json(found) == as_json(expected)
    stage = Select(**settings)  # decisions travel with it
    files = sorted((tmp_path / 'more7/table').glob('part-*'))
    stage.survey([Shard(number, file, file) for number, file in enumerate(files)], workers=1)
    assert json.dumps(stage.identity()) == json.dumps(Select(**settings).identity())
    there = pickle.loads(pickle.dumps(stage))
    found = [
        there.finish(row, (number, index))
        for number, file in enumerate(files)
        for index, row in enumerate(read_table(file))
    ]
    assert as_json(found) == as_json(expected)


def test_the_classes_of_a_selection_are_known_by_their_content(tmp_path):
    found = []
    for name, content in (('a', '["cat"]'), ('b', '["cat"]'), ('b', '["dog"]')):
        (tmp_path / f'{name}.json').write_text(content)
        found.append(Select(taxonomy=str(tmp_path / f'{name}.json')).identity())
    assert found[0] == found[1] != found[2]
