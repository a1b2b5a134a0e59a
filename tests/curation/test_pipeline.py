"""The curation as a pipeline by its command, on videos whose truth is known."""

import csv
import io
import json
import os
import re
import shutil
import signal
import time
from collections import Counter
from contextlib import redirect_stdout

import cv2
import numpy as np
import pytest

from tests.conftest import write_video
from tests.helpers.colours import read_frames
from tests.helpers.curation_world import SIDE, World, call_tool, tables_of
from tests.helpers.scenes import write_scene
from vito_mm.curation import pipeline, thumbnails
from vito_mm.curation.classifier import Classify
from vito_mm.curation.pipeline import BY_EMBEDDING, BY_TITLE
from vito_mm.curation.probing import Probe
from vito_mm.curation.retrieval import Retrieve
from vito_mm.curation.selection import Select
from vito_mm.curation.stage_folder import only_job, read_record, write_record
from vito_mm.curation.tables import read_table
from vito_mm.miniscenes.classes import CLASSES
from vito_mm.videos.manifest import read_manifest, write_manifest

STAGES = BY_TITLE[:-1]


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp('world'))


@pytest.fixture(scope='module')
def curated(world, tmp_path_factory):
    """Work dir and output of an undisturbed run."""
    work_dir, output = tmp_path_factory.mktemp('curated') / 'work', io.StringIO()
    with redirect_stdout(output):
        assert world.curate_here(work_dir) == 0
    return work_dir, output.getvalue()


@pytest.fixture
def copied(curated, tmp_path):
    """A copy of the undisturbed work dir."""
    shutil.copytree(curated[0], tmp_path / 'work')
    return tmp_path / 'work'


def error_of(capsys) -> str:
    """The only line that begins with ``error: ``."""
    lines = capsys.readouterr().err.splitlines()
    (error,) = (line for line in lines if line.startswith('error: '))
    return error


def pairs(rows: list[dict], column: str) -> set[tuple[str, int]]:
    """Videos and the classes that a column names for them."""
    kept = [row for row in rows if 'dropped' not in row]
    return {(row['path'], label) for row in kept for label in row[column]}


def test_the_classifier_finds_the_titles_that_are_true(world, curated):
    """Precision and recall of (video, class), before and after the classifier."""
    work_dir, _ = curated
    tables = tables_of(work_dir, STAGES)
    truth = {(path, label) for path, label in world.truth.items() if label is not None}
    before, after = pairs(tables['retrieve'], 'classes'), pairs(tables['classify'], 'labels')
    probed = {row['path'] for row in tables['probe'] if 'dropped' not in row}
    candidates = {pair for pair in before & truth if pair[0] in probed}
    precision = [len(found & truth) / len(found) for found in (before, after)]
    recall = len(after & candidates) / len(candidates)
    print(f'classifier {world.accuracy:.2f}, precision {precision}, recall {recall:.2f}')
    assert world.accuracy > 0.8
    assert precision[0] < 0.7, 'there is nothing to find out'
    assert precision[1] > precision[0] + 0.15
    assert recall > 0.9


def test_every_video_is_kept_or_dropped_as_the_truth_says(world, curated):
    tables = {
        stage: {row['path']: row for row in rows}
        for stage, rows in tables_of(curated[0], STAGES).items()
    }
    for row in world.rows:
        if row.get('kind') == 'none':
            assert tables['retrieve'][row['path']]['dropped'] == 'title matches no class'
        elif row.get('kind') == 'right':
            assert row['true_label'] in tables['retrieve'][row['path']]['classes']
    probed = {path: row.get('dropped') for path, row in tables['probe'].items()}
    assert all(probed[path] for path in world.broken)
    assert not any(probed[path] for path in world.good if path in probed)
    assert probed[str(world.root / 'short.mp4')].startswith('too short: ')
    dropped = {path: row.get('dropped', '') for path, row in tables['select'].items()}
    duplicates = [path for path, why in dropped.items() if why.startswith('duplicate')]
    assert duplicates in ([world.copy], [world.good[2]])


def test_manifest_and_report_have_what_the_tables_hold(world, curated):
    work_dir, output = curated
    tables = tables_of(work_dir, STAGES)
    kept = [row for row in tables['select'] if 'dropped' not in row]
    manifest = read_manifest(work_dir / 'manifest.jsonl')
    assert [row['path'] for row in manifest] == [row['path'] for row in kept]
    assert all(row['class_name'] == CLASSES[row['label']].title for row in manifest)
    assert f'manifest: {len(kept)} videos' in output
    assert f'report: {work_dir / "report.html"}' in output
    lines = list(csv.DictReader((work_dir / 'report.csv').open()))
    for stage, rows in tables.items():
        expected = Counter(row.get('dropped', '').split(':')[0] for row in rows)
        found = {line['reason']: int(line['videos']) for line in lines if line['stage'] == stage}
        assert found == expected
    classes = list(csv.DictReader((work_dir / 'classes.csv').open()))
    assert [line['name'] for line in classes] == [c.title for c in CLASSES]
    final = Counter(row['label'] for row in kept)
    assert [int(line['in the end']) for line in classes] == [final[i] for i in range(len(CLASSES))]
    assert {line['target'] for line in classes} == {'5000'}
    page = (work_dir / 'report.html').read_text()
    assert '24% (https://arxiv.org' in page
    assert page.count('data:image/png;base64,') > len(CLASSES)
    assert str(world.root) not in page.split('<h2>Conditions')[0].replace('duplicate: of', '')


def test_interrupted_in_every_stage_it_ends_in_the_same_tables(world, curated, copied, monkeypatch):
    """As after a kill, which left a shard of each stage unwritten; then Ctrl-C at the end."""
    for stage in STAGES:
        write_record(copied / stage, read_record(copied / stage) | dict(finished=False))
        max((copied / stage).glob('part-*')).unlink()
    (copied / 'manifest.jsonl').unlink()
    with monkeypatch.context() as patch:
        stop = lambda *_: signal.raise_signal(signal.SIGINT)  # noqa: E731
        patch.setattr(pipeline, 'write_training_manifest', stop)
        assert world.curate_here(copied) == 130
    assert not (copied / 'manifest.jsonl').exists()
    assert world.curate_here(copied) == 0
    assert tables_of(copied, STAGES) == tables_of(curated[0], STAGES)
    manifests = [(folder / 'manifest.jsonl').read_bytes() for folder in (copied, curated[0])]
    assert manifests[0] == manifests[1]


def test_one_stage_alone_reads_a_table_of_the_user(world, curated, tmp_path):
    """classify on a table that has paths and classes."""
    source = curated[0] / 'probe'
    rows = [row for row in read_table(source) if 'dropped' not in row][:6]
    mine = [dict(path=row['path'], classes=row['classes']) for row in rows]
    write_manifest(tmp_path / 'mine.jsonl', mine)
    table, words = tmp_path / 'mine.jsonl', ('--stages', 'classify')
    assert world.curate_here(tmp_path / 'work', *words, table=table) == 0
    expected = {row['path']: row for row in read_table(curated[0] / 'classify')}
    for row in read_table(tmp_path / 'work/classify'):
        assert row.items() <= expected[row['path']].items()


@pytest.mark.slow
def test_ray_ends_in_the_same_tables(world, curated, tmp_path):
    ray = pytest.importorskip('ray')
    assert world.curate_here(tmp_path, '--engine', 'ray', '--workers', 1) == 0
    ray.shutdown()
    assert tables_of(tmp_path, STAGES) == tables_of(curated[0], STAGES)


def test_videos_near_reference_images_are_kept_without_labels(world, tmp_path):
    """Frames of two classes: mostly videos of these are kept, and no label is read."""
    reference = tmp_path / 'reference'
    reference.mkdir()
    for number, path in enumerate([p for p in world.good if world.truth[p] in (0, 5)][:6]):
        frames = read_frames(path)
        cv2.imwrite(str(reference / f'{number}.png'), frames[len(frames) // 2, :, :, ::-1])
    table = tmp_path / 'untitled.jsonl'
    write_manifest(table, [dict(path=path) for path in world.good])
    words = '--by-embedding', reference, '--keep', 12, '--backbone', world.config, '--clusters', 2
    words += '--size', SIDE
    assert world.curate_here(tmp_path / 'work', *words, table=table) == 0
    rows = tables_of(tmp_path / 'work', BY_EMBEDDING[:-1])['select_by_embedding']
    kept = [row for row in rows if 'dropped' not in row]
    assert len(kept) == 12
    of_classes = sum(world.truth[row['path']] in (0, 5) for row in kept)
    assert of_classes >= 10, 'by chance it would be 3'
    for row in kept:
        assert all(
            row['similarity'] >= other['similarity']
            for other in rows
            if other['cluster'] == row['cluster'] and 'dropped' in other
        )
    assert all('label' not in row and 'labels' not in row for row in rows)
    page = (tmp_path / 'work/report.html').read_text()
    assert 'By cluster of the reference' in page


@pytest.mark.parametrize(
    ('words', 'status', 'message'),
    [
        (['--stages', 'embed'], 2, "stage 'embed' needs another order: see --by-embedding"),
        (['--by-embedding', 'x'], 2, '--by-embedding needs --backbone'),
        (['--by-embedding', 'x', '--per-class', '3'], 2, '--per-class can only be used without'),
        (['--by-embedding', 'x', '--classes', 'moon'], 2, '--classes can only be used without'),
        (['--by-embedding', 'x', '--classifier', 'y'], 2, '--classifier can only be used without'),
        (['--fraction', '0.5'], 2, '--fraction can only be used with --by-embedding'),
        (['--clusters', '5'], 2, '--clusters can only be used with --by-embedding'),
        (['--gpus', '1'], 2, '--gpus can only be used with --engine ray'),
        (['--ray-address', 'auto'], 2, '--ray-address can only be used with --engine ray'),
        (['--time-limit', '-1'], 2, '--time-limit -1: give 0'),
        (['--classes', 'striped disk'], 2, "no class 'striped disk'.*'striped disc'"),
        (['--classes', '@names.txt'], 2, "has no class 'no such'"),
        (['--taxonomy', 'imagenet'], 1, '8.*1000|1000.*8'),
        (['--filters', 'hight>=3'], 2, 'hight'),
        (['--min-seconds', '1e9'], 1, "stage 'probe' keeps none of .*too short"),
        (['--device', 'cuda:99'], 2, "device 'cuda:99' cannot be used here"),
        (['videos', 'videos'], 2, 'videos is the folder of the table: .*videos/curation'),
        (['work/select', 'work'], 2, 'work/select is a table of this work dir'),
        (['videos/a.jsonl', 'w', '--manifest', 'videos/a.jsonl'], 2, 'would be part of the table'),
        (['videos', 'w', '--manifest', 'videos/b.jsonl'], 2, 'would be part of the table'),
        (['videos', 'w', '--manifest', 'b.csv'], 2, 'ends in .jsonl'),
    ],
)
def test_errors_are_one_line(world, tmp_path, monkeypatch, capsys, words, status, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'videos').mkdir()
    (tmp_path / 'videos/a.jsonl').write_text('{"path": "a.mp4", "title": "moon"}\n')
    (tmp_path / 'work/select').mkdir(parents=True)
    (tmp_path / 'names.txt').write_text('\nmoon disc\n\nno such\n')
    places, options = (words[:2], words[2:]) if words[0][0] != '-' else ([world.table, 'w'], words)
    assert call_tool([*map(str, places), *world.words(tmp_path, *options)[2:]]) == status
    assert re.search(message, error_of(capsys))
    assert list((tmp_path / 'videos').iterdir()) == [tmp_path / 'videos/a.jsonl']


@pytest.mark.parametrize(
    'option',
    [
        *('--limit', '--frames', '--keep', '--clusters', '--per-class'),
        *('--workers', '--batch-size', '--rows-per-shard'),
    ],
)
def test_numbers_below_one_are_refused(capsys, option):
    with pytest.raises(SystemExit):
        call_tool(['videos.jsonl', 'work', option, '0'])
    assert f'argument {option}: must be 1 or more' in capsys.readouterr().err


def test_what_changed_settings_concern_is_made_again_and_nothing_else(
    world, curated, copied, capsys
):
    def made_again() -> list[str]:
        times = [
            [(folder / stage / 'part-000000.parquet').stat().st_mtime_ns for stage in STAGES]
            for folder in (copied, curated[0])
        ]
        return [stage for stage, *both in zip(STAGES, *times, strict=True) if len({*both}) > 1]

    more = ['--max-distance', '-1']
    assert world.curate_here(copied, *more) == 1
    assert 'select was made differently: max_distance was 6, is None' in error_of(capsys)
    assert made_again() == []
    # Without the classifier, whose stage is there, labels are still those that it gave.
    more += ['--stages', 'select', '--redo', '--taxonomy', str(world.root / 'classes.json')]
    assert call_tool([*world.words(copied)[:2], *more]) == 0
    assert made_again() == ['select']
    rows = list(read_table(copied / 'select'))
    assert all('label' in row and 'dropped' not in row for row in rows)
    assert len(rows) == len(list(read_table(curated[0] / 'select')))


def test_a_stage_that_is_named_is_made_again_and_what_follows_from_another_result(
    tmp_path, monkeypatch, capsys
):
    """A file that could not be read for once, as when a disk is away."""
    table, work_dir = tmp_path / 'in.jsonl', tmp_path / 'work'
    for seed in range(2):
        write_scene(tmp_path / f'{seed}.mp4', seed)
    mine = dict(title='a tabby', labels=['mine'])  # no classes, in the report neither
    write_manifest(table, [dict(path=f'{i}.mp4', **mine) for i in range(2)])
    words = [str(table), str(work_dir), '--min-seconds', '1', '--workers', '1', '--stages']
    (tmp_path / '1.mp4').rename(tmp_path / 'away')

    def curate(*more: str) -> int:
        return call_tool([*words, *more])

    assert curate('probe', 'select') == 0
    (tmp_path / 'away').rename(tmp_path / '1.mp4')
    assert curate('probe', '--redo') == 0
    assert [row.get('dropped') for row in read_table(work_dir / 'probe')] == [None, None]
    capsys.readouterr()
    assert curate('select') == 1
    assert 'select was made differently: from another table' in error_of(capsys)
    # Stopped in the second stage, the same command does not make the first one again.
    with monkeypatch.context() as patch:
        patch.setattr(Select, 'survey', lambda *_: signal.raise_signal(signal.SIGINT))
        assert curate('probe', 'select', '--redo') == 130
    before = (work_dir / 'probe/part-000000.parquet').stat().st_mtime_ns
    assert curate('probe', 'select', '--redo') == 0
    assert (work_dir / 'probe/part-000000.parquet').stat().st_mtime_ns == before
    assert [row.get('dropped') for row in read_table(work_dir / 'select')] == [None, None]
    # The same result again: what follows from it stays.
    assert curate('probe', '--redo') == 0
    assert (work_dir / 'probe/part-000000.parquet').stat().st_mtime_ns > before
    assert curate('select') == 0
    shutil.rmtree(work_dir / 'probe')
    (tmp_path / '0.mp4').unlink()
    assert curate('probe') == 0
    assert curate('select') == 1


def test_the_time_limit_of_a_video_is_no_part_of_the_settings(tmp_path, monkeypatch):
    write_manifest(tmp_path / 'in.jsonl', [dict(path='a.mp4', title='a tabby')])
    write_scene(tmp_path / 'a.mp4', 0)
    words = [str(tmp_path / 'in.jsonl'), str(tmp_path / 'work'), '--stages', 'probe']
    words += ['--min-seconds', '1', '--workers', '1']
    prepare = Probe.prepare

    def slow(self, row):
        time.sleep(1)
        return prepare(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(Probe, 'prepare', slow)
        assert call_tool([*words, '--time-limit', '0.3']) == 1
        (row,) = read_table(tmp_path / 'work/probe')
        assert row['dropped'].startswith('over the time limit: ')
        assert call_tool([*words, '--time-limit', '0', '--redo']) == 0
    identity = read_record(tmp_path / 'work/probe')['identity']
    assert identity == json.loads(json.dumps(Probe(1.0).identity()))


def test_tables_of_what_has_changed_since_are_not_read(world, copied, capsys):
    assert world.curate_here(copied, '--limit', 5, '--stages', 'retrieve', '--redo') == 0
    lines = list(csv.DictReader((copied / 'report.csv').open()))
    assert {line['stage'] for line in lines} == {'retrieve'}
    capsys.readouterr()
    assert world.curate_here(copied, '--limit', 5, '--stages', 'manifest') == 1
    assert re.search("select was made from what has changed .* 'select' again", error_of(capsys))


def test_the_report_alone_needs_the_classes_and_no_classifier(world, copied, capsys):
    before = (copied / 'classes.csv').read_bytes()
    (copied / 'classes.csv').unlink()
    words = [*world.words(copied)[:2], '--stages', 'report']
    assert call_tool(words) == 2
    assert 'give the same --taxonomy' in error_of(capsys)
    assert call_tool([*words, '--taxonomy', str(world.root / 'classes.json')]) == 0
    assert (copied / 'classes.csv').read_bytes() == before


def test_odd_columns_titles_and_rows_end_in_the_same_choice(world, curated, tmp_path):
    """Columns of the user that are called like ours, in broken videos too; hostile titles."""
    ours = dict.fromkeys([*Probe.makes, *Retrieve.makes, *Classify.makes], 'odd')
    ours = ours | dict(label='cat', class_name=3, cluster='c', sha256=None)
    ours = ours | dict.fromkeys(('fps', 'seconds', 'num_frames', 'width', 'height'), '7')
    evil = ' <script>alert(1)</script>' + 'z' * 999
    some = [*world.rows[:24:3], *world.rows[len(world.good) : -1]]
    rows = [row | ours | dict(title=row['title'] + evil) for row in some]
    write_manifest(tmp_path / 'odd.jsonl', [*rows, {}, dict(title='moon')])
    assert world.curate_here(tmp_path / 'work', table=tmp_path / 'odd.jsonl') == 0
    for stage, rows in tables_of(curated[0], STAGES).items():
        expected = {row['path']: row for row in rows}
        found = [row for row in read_table(tmp_path / 'work' / stage) if 'path' in row]
        for name in ('dropped', 'labels') if stage in ('classify', 'select') else ('dropped',):
            assert [row.get(name) for row in found] == [
                expected[row['path']].get(name) for row in found
            ]
    page = (tmp_path / 'work/report.html').read_text()
    assert '<script' not in page
    assert '&lt;script&gt;' in page
    assert 'z' * 100 not in page


def test_two_commands_do_not_share_a_work_dir(world, tmp_path, capsys):
    with only_job(tmp_path):
        assert world.curate_here(tmp_path) == 1
    assert f'another job writes {tmp_path} (process {os.getpid()})' in error_of(capsys)
    assert [file.name for file in tmp_path.iterdir()] == ['lock']


def test_a_video_that_ends_the_process_is_a_crossed_frame_of_the_report(tmp_path, monkeypatch):
    paths = [str(write_video(tmp_path / f'{i}.mp4', num_frames=5)) for i in range(2)]
    spread = thumbnails.frames.spread

    def deadly(row, *args):
        return os._exit(3) if row['path'] == paths[0] else spread(row, *args)

    monkeypatch.setattr(thumbnails.frames, 'spread', deadly)
    names = [*paths, str(tmp_path / 'none.mp4')]
    found = thumbnails.draw_thumbnails({name: dict(path=name) for name in names})
    assert np.array_equal(found[paths[0]], found[str(tmp_path / 'none.mp4')])
    assert not np.array_equal(found[paths[0]], found[paths[1]])


def test_without_titles_the_columns_are_named_and_then_may_be_given(tmp_path, capsys):
    table = tmp_path / 'untitled.jsonl'
    table.write_text(json.dumps(dict(path='a.mp4', heading='A tabby')) + '\n')
    words = [str(table), str(tmp_path / 'work'), '--stages', 'retrieve']
    assert call_tool(words) == 2
    assert "has no column 'title', only 'path', 'heading'" in error_of(capsys)
    assert call_tool([*words, '--title-column', 'heading']) == 0
    (row,) = read_table(tmp_path / 'work/retrieve')
    assert (row['title'], row['path']) == ('A tabby', str(tmp_path / 'a.mp4'))
