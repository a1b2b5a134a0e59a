"""Titles of MiniScenes: reproducible, in their shares, and naming what they say they name."""

from collections import Counter
from pathlib import Path

import pytest

from vito_mm.curation.taxonomy import load_taxonomy
from vito_mm.curation.titles import TitleMatcher
from vito_mm.miniscenes import CLASSES, get_preset
from vito_mm.miniscenes.titles import KINDS, draw_titles, write_taxonomy, write_titled_table
from vito_mm.videos import read_manifest

LABELS = [get_preset('demo').label_of(index) for index in range(4000)]


def test_taxonomy_has_the_classes_in_order_each_sharing_a_name_with_another(tmp_path):
    write_taxonomy(tmp_path / 'sub' / 'classes.json')
    taxonomy = load_taxonomy(str(tmp_path / 'sub' / 'classes.json'))
    assert taxonomy.names == tuple(scene_class.title for scene_class in CLASSES)
    owners = Counter(name for names in taxonomy.synonyms for name in names)
    assert sorted(owners.values(), reverse=True)[:5] == [2, 2, 2, 2, 1]
    assert all(sum(owners[name] == 2 for name in names) == 1 for names in taxonomy.synonyms)
    assert all(len(names) >= 4 for names in taxonomy.synonyms)


def test_titles_name_what_they_say_they_name(tmp_path):
    write_taxonomy(tmp_path / 'classes.json')
    matcher = TitleMatcher(load_taxonomy(str(tmp_path / 'classes.json')))
    for drawn in draw_titles(LABELS, seed=3):
        found = [index for index, _ in matcher.match(drawn['title'])]
        assert found == drawn['named'], drawn


def test_kinds_come_in_their_shares_and_name_the_right_classes():
    titles = draw_titles(LABELS, seed=1, wrong=0.3)
    counts = Counter(drawn['kind'] for drawn in titles)
    shares = dict(wrong=0.3) | {kind: 0.7 * share for kind, share in KINDS.items()}
    assert counts.keys() == shares.keys()
    for kind, share in shares.items():
        assert abs(counts[kind] / len(titles) - share) < 0.025  # 3 standard deviations
    for label, drawn in zip(LABELS, titles, strict=True):
        named, kind = drawn['named'], drawn['kind']
        assert (label in named) == (kind not in ('wrong', 'none'))
        assert len(named) == {'none': 0, 'several': 2, 'ambiguous': 2}.get(kind, 1)
    assert all(drawn['kind'] != 'wrong' for drawn in draw_titles(LABELS, seed=1, wrong=0))
    assert all(drawn['kind'] == 'wrong' for drawn in draw_titles(LABELS, seed=1, wrong=1))


def test_a_title_depends_on_seed_and_index_alone():
    titles = draw_titles(LABELS[:100], seed=5)
    assert titles == draw_titles(LABELS, seed=5)[:100]
    assert titles != draw_titles(LABELS[:100], seed=6)
    assert len({drawn['title'] for drawn in titles}) > 60


def test_a_share_that_is_none_is_an_error():
    with pytest.raises(ValueError, match=r'wrong=1\.5: give a share from 0 to 1'):
        draw_titles([0], seed=0, wrong=1.5)


def test_table_has_a_titled_row_for_each_video(miniscenes, tmp_path):
    root = Path(miniscenes['videos']).parent
    write_titled_table(root, tmp_path / 'table.jsonl', seed=2)
    rows = list(read_manifest(tmp_path / 'table.jsonl'))
    videos = list(read_manifest(root / 'videos' / 'manifest.jsonl'))
    assert [row['path'] for row in rows] == [str(video['path']) for video in videos]
    assert all(Path(row['path']).is_file() for row in rows)
    drawn = draw_titles([video['label'] for video in videos], seed=2)
    for row, video, title in zip(rows, videos, drawn, strict=True):
        assert row['true_label'] == video['label']
        assert (row['title'], row['kind']) == (title['title'], title['kind'])
        assert row.keys() == {'path', 'title', 'true_label', 'kind'}
