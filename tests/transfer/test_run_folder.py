"""Work dirs as MMEngine writes them, resumed, torn and moved ones too."""

import json

import pytest

from vito_mm.transfer.run_folder import (
    dumped_config,
    evaluation_curve,
    last_checkpoint,
    scalars,
    training_curve,
)


def log(folder, started, *lines, end=''):
    file = folder / started / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text(''.join(json.dumps(line) + '\n' for line in lines) + end)


def train(step, loss):
    return dict(loss=loss, lr=0.1, iter=step, step=step)


def test_a_resumed_run_has_every_step_once_and_the_last_start_wins(tmp_path):
    log(
        tmp_path,
        '20260101_000000',
        *(train(10, 5.0), train(20, 4.0), dict(mIoU=1.0, step=20), train(30, 3.0)),
        *(dict(mIoU=2.0, step=40), train(45, 2.5)),
    )
    log(tmp_path, '20260101_010000', train(30, 3.5), train(40, 2.0), dict(mIoU=3.0, step=40))
    lines = scalars(tmp_path)
    assert training_curve(lines) == ([10, 20, 30, 40], [5.0, 4.0, 3.5, 2.0])
    assert evaluation_curve(lines, 'mIoU') == ([20, 40], [1.0, 3.0])


def test_epochs_of_evaluations_are_not_mistaken_for_steps(tmp_path):
    epoch = [train(1, 3.0), train(2, 2.0), dict(map=0.1, step=1)]
    log(tmp_path, '20260101_000000', *epoch, train(3, 1.5), train(4, 1.0), dict(map=0.2, step=2))
    lines = scalars(tmp_path)
    assert training_curve(lines)[0] == [1, 2, 3, 4]
    assert evaluation_curve(lines, 'map') == ([2, 4], [0.1, 0.2])


def test_an_evaluation_repeated_without_training_replaces_the_first(tmp_path):
    log(tmp_path, '20260101_000000', train(10, 1.0), dict(mIoU=1.0, step=10))
    log(tmp_path, '20260101_010000', dict(mIoU=2.0, step=10))
    assert evaluation_curve(scalars(tmp_path), 'mIoU') == ([10], [2.0])


def test_a_run_started_again_forgets_the_one_before(tmp_path):
    log(tmp_path, '20260101_000000', train(10, 1.0), train(20, 0.5), dict(mIoU=9.0, step=20))
    log(tmp_path, '20260101_010000', train(10, 2.0))
    assert training_curve(scalars(tmp_path)) == ([10], [2.0])


def test_a_torn_line_costs_itself_alone(tmp_path):
    log(tmp_path, '20260101_000000', train(10, 1.0), train(20, float('nan')), end='{"loss": 0.')
    steps, values = training_curve(scalars(tmp_path))
    assert steps == [10, 20]
    assert values[0] == 1.0


def test_an_empty_folder_has_nothing(tmp_path):
    assert scalars(tmp_path) == []
    assert last_checkpoint(tmp_path) is None
    with pytest.raises(FileNotFoundError, match='holds no config'):
        dumped_config(tmp_path)


def test_the_checkpoint_is_found_where_the_folder_was_moved_to(tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    (folder / 'iter_10.pth').touch()
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_10.pth'))
    assert last_checkpoint(folder) == folder / 'iter_10.pth'
    moved = folder.rename(tmp_path / 'moved')
    assert last_checkpoint(moved) == moved / 'iter_10.pth'
    (moved / 'iter_10.pth').unlink()
    assert last_checkpoint(moved) is None


def test_the_config_in_the_folder_comes_before_that_of_a_start(tmp_path):
    log(tmp_path, '20260101_000000')
    (tmp_path / '20260101_000000' / 'vis_data' / 'config.py').write_text('value = 1\n')
    assert dumped_config(tmp_path).value == 1
    (tmp_path / 'seg.py').write_text('value = 2\n')
    assert dumped_config(tmp_path).value == 2
