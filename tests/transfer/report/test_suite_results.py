"""Results of a suite for the report of an evaluation: their settings, and the data they are of."""

import json
import shutil
from pathlib import Path

import pytest

from vito_mm.transfer.options import SuiteOptions
from vito_mm.transfer.report.results import Result, ResultsError
from vito_mm.transfer.report.suite_results import results_of_suite
from vito_mm.transfer.run import Outcome, Run
from vito_mm.transfer.tasks import TASKS, Task
from vito_mm.utils.atomic import write_json

OWN = Task('areas', 'areas', 'mmseg', 'mIoU', 'mIoU', 1.0, 'configs/areas.py')


def write_suite(folder: Path, root: Path, task: Task, chosen: dict | None, **outcome) -> Path:
    """Leave what a suite leaves that has finished a run."""
    place = folder / 'runs' / task.name / 'vito' / 'default' / 'seed0'
    place.mkdir(parents=True)
    run = Run(task, 'vito', Path('a.pth'), (), 0, place, checkpoint_sha256='a' * 64, chosen=chosen)
    loader = dict(dataset=dict(type='ADE20KDataset', data_root=str(root)))
    (place / 'config.py').write_text(
        f"model = dict(backbone=dict(type='VITOResNet', depth=50))\n"
        f'train_dataloader = val_dataloader = {loader}\n'
    )
    words = [f'{key}={value}' for key, value in (chosen or dict(of='old')).items()]
    command = ['tools/train.py', '--cfg-options', *words, 'randomness.seed=0']
    run.note_start(SuiteOptions(folder, [], work_dir=folder), command)
    run.note_end(Outcome(run, 'finished', 40.0, {'mIoU': 40.0}, 60.0, **outcome), ['train'])
    runs = [dict(folder=str(place.relative_to(folder)), **run.record())]
    write_json(folder / 'suite.json', dict(protocol='paper', architecture='r50', runs=runs))
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    """A folder with three images."""
    folder = tmp_path / 'data' / 'images'
    folder.mkdir(parents=True)
    for name in 'abc':
        (folder / f'{name}.jpg').write_text(name)
    return folder.parent


def only(folder: Path) -> Result:
    (found,) = results_of_suite(folder, ['transfer.py', 'CHECKPOINTS', 'TASK'])
    return found


@pytest.mark.parametrize('task', [TASKS['ade20k'], OWN], ids=lambda task: task.name)
def test_settings_of_the_user_are_rows_of_their_own(task, data, tmp_path):
    places = {
        'train_dataloader.dataset.data_root': str(data),
        'val_dataloader.dataset.data_prefix.img_path': 'images',
        'val_evaluator.ann_file': '/a/b.json',
        'val_dataloader.num_workers': '4',
        'default_hooks.checkpoint.interval': '5',
    }
    every = [
        {},
        places,
        {'train_cfg.max_iters': '1000'},
        {'train_cfg.max_iters': '1000', 'model.test_cfg.mode': 'whole'},
        {'train_dataloader.dataset.pipeline.2.scale': '(64,64)'},
    ]
    found = [only(write_suite(tmp_path / f'{i}', data, task, x)) for i, x in enumerate(every)]
    name = dict(config='areas.py') if task.config else dict(protocol='paper')
    expected = [[f'{key}={value}' for key, value in each.items()] for each in every]
    assert [each.settings for each in found] == [
        *(name, name),
        *(name | dict(cfg_options=words) for words in expected[2:]),
    ]
    assert len({each.file_name for each in found}) == 4


def test_a_run_of_an_earlier_version_tells_its_settings_by_its_command(data, tmp_path):
    settings = only(write_suite(tmp_path / 'paper', data, TASKS['ade20k'], None)).settings
    assert settings == dict(protocol='paper', cfg_options=['of=old'])
    # Those of the suite are not told from those of the user.
    assert only(write_suite(tmp_path / 'own', data, OWN, None)).settings == dict(config='areas.py')


def test_results_are_of_the_data_that_were_there(data, tmp_path):
    fresh = write_suite(tmp_path / 'fresh', data, OWN, {})
    before = only(fresh).data
    kept = write_suite(tmp_path / 'kept', data, OWN, {}, data=vars(before))
    shutil.move(data, tmp_path / 'elsewhere')
    assert only(kept).data == before
    assert before.text == '3 images'
    with pytest.raises(ResultsError, match=f'no data folder {data}'):
        only(fresh)


def test_a_suite_is_known_where_its_folder_moves(data, tmp_path):
    folder = write_suite(tmp_path / 'suite', data, OWN, {})
    assert only(folder).suite == str(folder)  # of an earlier version, without an identity
    record = json.loads((folder / 'suite.json').read_text())
    write_json(folder / 'suite.json', record | dict(id='x'))
    assert only(shutil.move(folder, tmp_path / 'moved')).suite == 'x'
