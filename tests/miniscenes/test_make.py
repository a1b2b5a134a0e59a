"""Making MiniScenes: same bytes, nothing twice, nothing half, nobody else's files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import REPO
from tests.helpers.processes import status_of_tool
from vito_mm.miniscenes import CLASSES, LABEL_MAPS, make, make_miniscenes
from vito_mm.videos.manifest import read_manifest

SMALL = dict(
    preset='tiny', num_videos=3, num_images=2, num_probe_images=9, workers=1, progress=False
)
FAST_TASKS = ('videos', 'ade20k', 'voc', 'coco', 'probe')


def read_all(root):
    root = Path(root)
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob('*') if f.is_file()}


@pytest.mark.parametrize(
    ('arguments', 'pictures'),
    [
        (dict(num_images=4), 3 + 3 * 6 + 2 + 18),
        (dict(preset='study_small', num_videos=2, num_probe_images=3), 2 + 3 * 3 + 1 + 9),
    ],
)
def test_same_bytes_whatever_the_number_of_workers(tmp_path, arguments, pictures):
    for workers in (1, 2):
        settings = {**SMALL, **arguments, 'workers': workers}
        make_miniscenes(tmp_path / str(workers), seed=5, tasks=FAST_TASKS, **settings)
    first, second = read_all(tmp_path / '1'), read_all(tmp_path / '2')
    assert sum(name.endswith(('.jpg', '.mp4')) for name in first) == pictures
    assert first == second


def test_simple_worlds_are_recorded_as_they_were_so_that_none_is_made_again(tmp_path):
    arguments = dict(tasks=['probe'], num_probe_images=1, workers=1, progress=False)
    make_miniscenes(tmp_path / 'simple', preset='tiny', **arguments)
    make_miniscenes(tmp_path / 'hard', preset='study_small', **arguments)
    simple, hard = (
        json.loads((tmp_path / name / 'probe/miniscenes.json').read_text())['parameters']
        for name in ('simple', 'hard')
    )
    assert simple['version'] == 3
    assert 'difficulty' not in simple['preset']
    assert simple['counts'] == {'train': 1, 'val': 1}
    assert hard['preset']['difficulty']['shot'] == [2.0, 4.0]
    assert hard['counts'] == {'train': 1, 'val': 1, 'held_out': 1}
    files = sorted(name for name in read_all(tmp_path / 'hard') if name.endswith('.jpg'))
    assert files == [f'probe/{split}/striped_disc/00000.jpg' for split in sorted(hard['counts'])]


def test_a_world_of_some_classes_has_no_other(tmp_path):
    settings = SMALL | dict(num_videos=5, num_images=6, tasks=FAST_TASKS)
    parts = make_miniscenes(tmp_path / 'some', classes=(6, 4), **settings)
    rows = list(read_manifest(Path(parts['videos']) / 'manifest.jsonl'))
    assert [row['label'] for row in rows] == [6, 4, 6, 4, 6]
    names = {CLASSES[6].name, CLASSES[4].name}
    assert {folder.name for folder in Path(parts['probe']).glob('*/*')} == names
    found = {
        int(value)
        for file in Path(parts['voc'], 'SegmentationClass').glob('*.png')
        for value in np.unique(np.asarray(Image.open(file)))
    }
    assert found == {0, *(LABEL_MAPS['voc'].ids[label] for label in (4, 6))}
    # All classes, or another order of them, are another world.
    again = make_miniscenes(tmp_path / 'some', classes=(4, 6), **settings)
    rows = read_manifest(Path(again['videos']) / 'manifest.jsonl')
    assert [row['label'] for row in rows] == [4, 6, 4, 6, 4]
    with pytest.raises(ValueError, match='classes'):
        make_miniscenes(tmp_path / 'none', classes=(8,))


def test_another_seed_gives_other_items(tmp_path):
    make_miniscenes(tmp_path / 'a', seed=5, tasks=['videos', 'coco'], **SMALL)
    make_miniscenes(tmp_path / 'b', seed=6, tasks=['videos', 'coco'], **SMALL)
    first, second = read_all(tmp_path / 'a'), read_all(tmp_path / 'b')
    pictures = [name for name in first if name.endswith(('.mp4', '.jpg'))]
    assert len(pictures) == 3 + 3
    assert all(first[name] != second[name] for name in pictures)


def test_more_items_leave_the_first_ones_as_they_are(tmp_path):
    make_miniscenes(tmp_path / 'a', tasks=['videos'], **SMALL)
    make_miniscenes(tmp_path / 'b', tasks=['videos'], **{**SMALL, 'num_videos': 5})
    first, second = read_all(tmp_path / 'a/videos'), read_all(tmp_path / 'b/videos')
    assert sum(name.endswith('.mp4') for name in second) == 5
    assert all(second[name] == first[name] for name in first if name.endswith('.mp4'))


def test_splits_and_tasks_have_their_own_pictures(tmp_path):
    make_miniscenes(tmp_path, tasks=['ade20k', 'voc', 'coco', 'probe'], **SMALL)
    pictures = [data for name, data in read_all(tmp_path).items() if name.endswith('.jpg')]
    assert len(pictures) == 3 + 4 + 3 + 18
    assert len(set(pictures)) == len(pictures)


def test_second_call_does_nothing(tmp_path, capsys):
    folders = make_miniscenes(tmp_path, tasks=['voc'], **SMALL)
    before = {file: file.stat().st_mtime_ns for file in Path(folders['voc']).rglob('*')}
    arguments = {**SMALL, 'progress': True}
    assert make_miniscenes(tmp_path, tasks='voc', **arguments) == folders
    assert 'already there' in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in Path(folders['voc']).rglob('*')}


def test_other_arguments_make_the_part_anew(tmp_path):
    make_miniscenes(tmp_path, tasks=['probe'], **SMALL)
    make_miniscenes(tmp_path, tasks=['probe'], **{**SMALL, 'num_probe_images': 2})
    assert len(list((tmp_path / 'probe').rglob('*.jpg'))) == 4


def test_an_interrupted_part_is_completed(tmp_path, monkeypatch):
    write_item = make.write_item

    def fail(job):
        if job.index == 2:
            raise KeyboardInterrupt
        return write_item(job)

    with monkeypatch.context() as patch:
        patch.setattr(make, 'write_item', fail)
        with pytest.raises(KeyboardInterrupt):
            make_miniscenes(tmp_path / 'a', tasks=['videos'], **SMALL)
    record = json.loads((tmp_path / 'a/videos/miniscenes.json').read_text())
    assert record['complete'] is False
    assert not (tmp_path / 'a/videos/manifest.jsonl').exists()

    make_miniscenes(tmp_path / 'a', tasks=['videos'], **SMALL)
    make_miniscenes(tmp_path / 'b', tasks=['videos'], **SMALL)
    assert read_all(tmp_path / 'a') == read_all(tmp_path / 'b')


def test_files_of_others_are_never_deleted(tmp_path):
    (tmp_path / 'coco').mkdir()
    (tmp_path / 'coco/mine.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='choose another root'):
        make_miniscenes(tmp_path, tasks=['coco'], **SMALL)
    assert (tmp_path / 'coco/mine.txt').read_text() == 'mine'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            {'preset': 'huge'},
            r"preset='huge' is unknown; choose one of attention, demo, study, study_small, tiny",
        ),
        ({'tasks': ['videos', 'imagenet']}, r"tasks: 'imagenet' is unknown; choose among videos"),
        ({'num_videos': 0}, r'num_videos=0: give 1 or more'),
        ({'num_images': -1}, r'num_images=-1: give 1 or more'),
        ({'seed': -1}, r'seed=-1 is negative'),
        ({'workers': -2}, r'workers=-2 is negative'),
    ],
)
def test_bad_arguments_are_named(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_miniscenes(tmp_path, **{**SMALL, **arguments})
    assert not list(tmp_path.iterdir())


def test_a_root_that_is_a_file_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(NotADirectoryError, match=r'root: .*choose another root'):
        make_miniscenes(tmp_path / 'file', tasks=['probe'], **SMALL)


def test_a_root_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(Path, 'mkdir', refuse)
    with pytest.raises(PermissionError, match=r'root: cannot write .*Permission denied'):
        make_miniscenes(tmp_path / 'a', tasks=['probe'], **SMALL)


def test_manifest_lists_the_videos(miniscenes):
    lines = (Path(miniscenes['videos']) / 'manifest.jsonl').read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 8
    assert sorted(row['label'] for row in rows) == list(range(8))
    for row in rows:
        assert set(row) == {
            'path', 'label', 'class_name', 'title', 'fps', 'num_frames', 'seconds',
        }  # fmt: skip
        assert not os.path.isabs(row['path'])
        assert row['class_name'] == CLASSES[row['label']].name
        assert CLASSES[row['label']].title in row['title']
        assert row['num_frames'] == row['fps'] * row['seconds']
    assert [Path(row['path']).is_file() for row in read_manifest(
        Path(miniscenes['videos']) / 'manifest.jsonl'
    )] == [True] * 8  # fmt: skip


def test_videos_decode_with_decord(miniscenes):
    decord = pytest.importorskip('decord')
    for row in read_manifest(Path(miniscenes['videos']) / 'manifest.jsonl'):
        reader = decord.VideoReader(row['path'], num_threads=1)
        assert len(reader) == row['num_frames']
        assert reader.get_avg_fps() == pytest.approx(row['fps'])
        frames = reader.get_batch([0, row['num_frames'] - 1]).asnumpy()
        assert frames.shape == (2, 64, 64, 3)
        assert (frames[0].astype(int) - frames[1]).__abs__().mean() > 3


def test_importing_leaves_the_task_libraries_alone():
    code = (
        'import sys, vito_mm.miniscenes; '
        "print(sorted({'mmseg', 'mmdet', 'mmpretrain', 'av', 'decord'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPO,
    )
    assert done.stdout.strip() == '[]'


def test_tool_makes_reports_and_draws(tmp_path, capsys):
    sheet = tmp_path / 'sheet.png'
    words = [str(tmp_path / 'a'), '--preset', 'tiny', '--tasks', 'probe', '--num-probe-images', '8']
    words += ['--report', '--contact-sheet', str(sheet)]
    assert status_of_tool('make_miniscenes.py', *words) == 0
    assert 'mean colour' in capsys.readouterr().out
    assert sheet.stat().st_size > 10_000
    assert len(list((tmp_path / 'a/probe/train').iterdir())) == 8


def test_tool_ends_with_one_line_where_it_cannot_go_on(tmp_path, capsys):
    (tmp_path / 'probe').mkdir()
    (tmp_path / 'probe/mine.txt').write_text('mine')
    (tmp_path / 'file').touch()
    few = ['--preset', 'tiny', '--tasks', 'probe', '--num-probe-images', 1, '--workers', 0]
    for words, message in (
        ([tmp_path, *few], 'mine.txt|holds files that MiniScenes did not make'),
        ([tmp_path / 'file', *few], 'is a file; choose another root'),
        ([tmp_path / 'a', *few, '--contact-sheet', tmp_path / 'none/a.png'], 'cannot write'),
    ):
        assert status_of_tool('make_miniscenes.py', *words) == 2
        (line,) = capsys.readouterr().err.splitlines()[-1:]
        assert re.match(f'error: .*({message})', line)
