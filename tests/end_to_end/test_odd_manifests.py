"""Pre-training on tables as people have them: curated, of a spreadsheet, changed meanwhile."""

import csv
import json
import os
import sys
from pathlib import Path

import pytest
from mmengine.hooks import Hook

from tests.conftest import write_video
from tests.engine.test_hooks import run, tiny_config
from tests.helpers.processes import shell
from tests.helpers.scenes import write_scene
from vito_mm.curation.tables import find_files, read_kept
from vito_mm.datasets import VideoDataset
from vito_mm.launch import build_runner
from vito_mm.videos import read_manifest
from vito_mm.videos.manifest import write_manifest

PARTS = {0: [(0, 1, 'a goldfish'), (1, 2, 'tabby cat'), (2.0, 3, 'tench')], 1: [(0.5, 1.5, 'hen')]}


def records_of(work_dir: Path) -> dict:
    (file,) = work_dir.glob('*/run.json')
    return json.loads(file.read_text())


@pytest.fixture
def curated(tmp_path) -> Path:
    """Work dir of a curation of parts of two files, given as text."""
    lines = ['path,title,start,end,label,fps,seconds,num_frames,width,licence,gt_score,mask']
    for index, parts in PARTS.items():
        write_scene(tmp_path / 'data' / f'{index}.mp4', index, seconds=3)
        for start, end, title in parts:
            lines.append(f'{index}.mp4,{title},{start},{end},1.0,25,3,75,64.0,CC-BY,x,y')
    (tmp_path / 'data' / 'table.csv').write_text('\n'.join(lines) + '\n', encoding='utf-8-sig')
    words = ['--stages', 'retrieve', 'probe', 'select', 'manifest', '--min-seconds', '0.9']
    words += ['--workers', '1']
    places = tmp_path / 'data' / 'table.csv', tmp_path / 'work'
    done = shell(sys.executable, 'tools/curate_videonet.py', *places, *words)
    assert done.returncode == 0, done.stderr
    return tmp_path / 'work'


def test_parts_of_one_file_are_curated_and_trained_on(curated, tmp_path):
    """With all columns that stages and users have, each row for itself."""
    there = {name for row in read_manifest(curated / 'manifest.jsonl') for name in row}
    assert {
        'title',
        'label',
        'start',
        'end',
        'fps',
        'seconds',
        'num_frames',
        'width',
        'licence',
    } <= (there)
    file = tmp_path / 'all.jsonl'
    select = curated / 'select'
    write_manifest(file, [row for part in find_files(select) for row in read_kept(part)])
    rows = list(read_manifest(file))
    expected = [(f'{i}.mp4', *part) for i, parts in PARTS.items() for part in parts]
    found = [(Path(r['path']).name, r['start'], r['end'], r['title']) for r in rows]
    assert sorted(found) == sorted(expected)
    assert len({tuple(row['hashes']) for row in rows}) == 4, 'of the file, not of its part'
    runner = run(
        tiny_config(
            tmp_path,
            tmp_path / 'run',
            **{
                'train_dataloader.dataset.ann_file': str(file),
                'train_dataloader.num_workers': 1,
                'train_cfg.max_iters': 3,
            },
        )
    )
    assert runner.iter == 3
    assert not list((tmp_path / 'run').glob('*/skipped_videos.csv'))
    assert records_of(tmp_path / 'run')['data'][0]['files'] == 2
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert 'lists 2 files in 4 rows' in log.read_text()


def test_clips_come_from_their_part(curated):
    dataset = VideoDataset(
        ann_file=str(curated / 'manifest.jsonl'),
        pipeline=[dict(type='SampleFrames', segment=0.5), dict(type='DecodeFrames')],
    )
    ids = set()
    for index in [0, 1, 2, 3] * 5:
        row = dataset[index]
        assert (row['frame_times'] >= row['start'] - 0.1).all()
        assert (row['frame_times'] <= row['end']).all()
        ids.add((Path(row['video_path']).name, row['video_id']))
    assert len(ids) == 2


def test_a_table_of_a_spreadsheet_is_trained_on_and_its_bad_rows_are_listed(tmp_path):
    """Labels of any kind, numbers as text, and rows that cannot be used: no error of a worker."""
    for index in range(3):
        write_video(tmp_path / f'{index}.mp4', num_frames=60, texture=index)
    table = [
        ['path', 'label', 'start', 'end', 'fps', 'title'],
        ['0.mp4', '1.0', '', '2.0', '25', 'x' * 140_000],
        ['0.mp4', 'goldfish', '0.5', '', '', 'two\nlines'],
        ['1.mp4', 'NaN', ' ', 'nan', '25.0', ''],
        ['2.mp4', '', '0', '1', '', '=1+1'],
        ['2.mp4', '2', 'soon', '', '', ''],
        ['1.mp4', '2', '90', '', '', ''],
        ['1.mp4', '2', '91', '95', '', ''],
        ['', '2', '', '', '', 'no path'],
    ]
    with (tmp_path / 'table.csv').open('w', encoding='utf-8-sig', newline='') as file:
        csv.writer(file).writerows(table)
    runner = run(
        tiny_config(
            tmp_path,
            tmp_path / 'run',
            **{
                'train_dataloader.dataset.ann_file': 'table.csv',
                'train_dataloader.num_workers': 2,
                'train_cfg.max_iters': 6,
                'default_hooks.skipped_videos.max_share': 1.0,
            },
        )
    )
    assert runner.iter == 6
    (file,) = (tmp_path / 'run').glob('*/skipped_videos.csv')
    with file.open(newline='') as lines:
        listed = {row['path']: row['reason'] for row in csv.DictReader(lines)}
    assert set(listed) == {
        f'{tmp_path}/table.csv, line 7',
        f'{tmp_path}/1.mp4#t=90.0',
        f'{tmp_path}/1.mp4#t=91.0,95.0',
        f'{tmp_path}/table.csv, line 10',
    }
    assert "start is 'soon'" in listed[f'{tmp_path}/table.csv, line 7']


class ChangeFile(Hook):
    """Cut a file off after the second step, and write another in its place after the third."""

    def __init__(self, file: str) -> None:
        self.file = file

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if batch_idx == 1:
            os.truncate(self.file, 7)
        elif batch_idx == 2:
            Path(self.file).write_text('{"path": "nowhere.mp4"}\n' * 40)


def test_a_manifest_that_is_cut_off_and_rewritten_changes_nothing(textured_folder, tmp_path):
    """The run goes on with the list that it began with, to the last bit."""
    losses = []
    for name in ('calm', 'changed'):
        file = tmp_path / f'{name}.jsonl'
        rows = [dict(path=f'{i % 8}.mp4', title='x' * 3000, end=1 + i / 32) for i in range(32)]
        file.write_text(''.join(json.dumps(row) + '\n' for row in rows))
        cfg = tiny_config(
            textured_folder,
            tmp_path / name,
            **{
                'train_dataloader.dataset.ann_file': str(file),
                'train_dataloader.num_workers': 2,
                'train_cfg.max_iters': 8,
            },
        )
        runner = build_runner(cfg)
        if name == 'changed':
            runner.register_hook(ChangeFile(str(file)))
        runner.train()
        (scalars,) = (tmp_path / name).glob('*/vis_data/scalars.json')
        lines = map(json.loads, scalars.read_text().splitlines())
        losses.append([line['loss'] for line in lines if 'loss' in line])
        (log,) = (tmp_path / name).glob('*/*.log')
        assert 'was killed' not in log.read_text()
        assert not list((tmp_path / name).glob('*/skipped_videos.csv'))
    assert len(losses[0]) == 8
    assert losses[0] == losses[1]


def test_links_and_spellings_of_a_path_are_one_file(make_video, tmp_path):
    make_video('a.mp4', num_frames=5)
    make_video('b.mp4', num_frames=5)
    (tmp_path / 'link.mp4').symlink_to('a.mp4')
    (tmp_path / 'again').symlink_to(tmp_path)
    names = ['a.mp4', './a.mp4', 'link.mp4', 'again/a.mp4', 'b.mp4']
    (tmp_path / 'm.jsonl').write_text(''.join(f'{{"path": "{name}"}}\n' for name in names))
    dataset = VideoDataset(ann_file=str(tmp_path / 'm.jsonl'))
    ids = [dataset.get_data_info(i)['video_id'] for i in range(5)]
    assert len(set(ids[:4])) == 1
    assert ids[4] != ids[0]
    assert all(0 <= number < 2**63 for number in ids)
