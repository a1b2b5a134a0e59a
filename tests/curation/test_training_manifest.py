"""The manifest of a curation: what it has, and that pre-training reads it."""

import datetime
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from tests.conftest import REPO
from tests.helpers.scenes import run_on, write_scene
from vito_mm.curation.manifest import write_training_manifest
from vito_mm.curation.probing import Probe
from vito_mm.curation.selection import Select
from vito_mm.curation.stage_folder import write_record
from vito_mm.curation.tables import TableError, write_file
from vito_mm.videos import read_manifest
from vito_mm.videos.prepare.integrity import inspect_video


@pytest.fixture
def selected(tmp_path: Path) -> Path:
    """Table of a selection: three videos of two classes, a duplicate and one that is too short."""
    rows = []
    for index in (2, 0, 1):
        path = write_scene(tmp_path / 'data' / f'{index}.mp4', index, seconds=3)
        rows.append(dict(path=str(path), title=f'Tea "{index}" ☕', uploader='me'))
    (tmp_path / 'data' / 'copy.mp4').write_bytes(Path(rows[0]['path']).read_bytes())
    write_scene(tmp_path / 'data' / 'short.mp4', 7, seconds=1)
    rows += [
        dict(rows[0], path=str(tmp_path / 'data' / name)) for name in ('copy.mp4', 'short.mp4')
    ]
    probed = run_on(Probe(min_seconds=2), rows, tmp_path / 'probed')
    labels = dict(classes=[3, 5], matches=['newt', 'bird'], label_frames=[7], label_scores=[0.5])
    classified = [
        dict(row, labels=[3 + 2 * (i % 2)], top1=3, frames_seen=20, **labels, embedding=[0.6, 0.8])
        for i, row in enumerate(probed)
        if 'dropped' not in row
    ]
    run_on(Select(), classified, tmp_path / 'selected', rows_per_shard=2)
    return tmp_path / 'selected' / 'select'


def lines_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding='utf-8').splitlines()]


def test_rows_are_those_that_were_kept_with_what_training_and_the_user_need(selected, tmp_path):
    assert write_training_manifest(selected, tmp_path / 'data' / 'videos.jsonl') == 3
    rows = lines_of(tmp_path / 'data' / 'videos.jsonl')
    for row, index, label, name in zip(
        rows, (2, 0, 1), (3, 5, 3), ('tiger shark', 'electric ray', 'tiger shark'), strict=True
    ):
        facts = inspect_video(tmp_path / 'data' / f'{index}.mp4')
        names = ('seconds', 'fps', 'num_frames', 'width', 'height', 'codec')
        assert row == dict(
            path=f'{index}.mp4',
            title=f'Tea "{index}" ☕',
            label=label,
            class_name=name,
            **{name: facts[name] for name in names},
            uploader='me',
        )
        assert list(row) == ['path', 'title', 'label', 'class_name', *names, 'uploader']


def test_paths_are_relative_below_the_manifest_and_else_absolute(selected, tmp_path, monkeypatch):
    data = tmp_path / 'data'
    for file, expected in (
        (tmp_path / 'videos.jsonl', 'data/2.mp4'),
        (tmp_path / 'new' / 'folder' / 'videos.jsonl', str(data / '2.mp4')),
        (tmp_path / 'dat' / 'videos.jsonl', str(data / '2.mp4')),
    ):
        write_training_manifest(selected, file)
        assert lines_of(file)[0]['path'] == expected
        assert read_manifest(file)[0]['path'] == str(data / '2.mp4')
    monkeypatch.chdir(data)
    write_training_manifest(selected, Path('here.jsonl'))
    assert lines_of(Path('here.jsonl'))[0]['path'] == '2.mp4'
    # Both are moved.
    data.rename(tmp_path / 'moved')
    assert Path(read_manifest(tmp_path / 'moved' / 'here.jsonl')[0]['path']).exists()


def test_pre_training_draws_a_clip_of_it(selected, tmp_path):
    file = tmp_path / 'lists' / 'videos.jsonl'
    write_training_manifest(selected, file)
    loader = Config.fromfile(REPO / 'configs/vito/pretrain_r50.py').train_dataloader
    loader.update(batch_size=3, num_workers=0, persistent_workers=False)
    loader.dataset.ann_file = str(file)
    init_default_scope('mmpretrain')
    batch = next(iter(Runner.build_dataloader(loader, seed=0)))
    assert [view.shape for view in batch['inputs']] == [(3, 3, 224, 224)] * 3
    assert {view.dtype for view in batch['inputs']} == {torch.uint8}
    samples = batch['data_samples']
    paths = {sample.video_path for sample in samples}
    assert paths == {str(tmp_path / 'data' / f'{i}.mp4') for i in range(3)}
    assert [sample.skipped_videos for sample in samples] == [[]] * 3


def test_a_table_that_is_not_finished_or_empty_is_refused(tmp_path):
    folder = tmp_path / 'table'
    folder.mkdir()
    write_file(folder / 'part-000000.parquet', [dict(path='/a.mp4', dropped='too short: 1 s')])
    with pytest.raises(TableError, match='keeps no video'):
        write_training_manifest(folder, tmp_path / 'videos.jsonl')
    write_record(folder, dict(stage='select', finished=False))
    with pytest.raises(TableError, match="not finished: run stage 'select' to its end"):
        write_training_manifest(folder, tmp_path / 'videos.jsonl')
    with pytest.raises(ValueError, match=r'written as \.jsonl'):
        write_training_manifest(tmp_path, tmp_path / 'videos.csv')
    assert not list(tmp_path.glob('videos*'))


def test_values_become_what_json_knows(tmp_path):
    row = dict(path='/a.mp4', seconds=12.0, uploaded=datetime.date(2020, 1, 1))
    (tmp_path / 'table').mkdir()
    write_file(tmp_path / 'table/part.parquet', [row])
    assert write_training_manifest(tmp_path / 'table', tmp_path / 'videos.jsonl') == 1
    assert lines_of(tmp_path / 'videos.jsonl') == [row | dict(uploaded='2020-01-01')]
    write_file(tmp_path / 'table/part.parquet', [row | dict(icon=b'x')])
    with pytest.raises(TableError, match=r"/a\.mp4: the column 'icon' has b'x'"):
        write_training_manifest(tmp_path / 'table', tmp_path / 'videos.jsonl')
    assert lines_of(tmp_path / 'videos.jsonl')[0]['uploaded'] == '2020-01-01'
