"""State of a transfer suite: crashes, signals, restarts, and a real one on MiniScenes."""

import csv
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import REPO, signal_while_forking
from tests.helpers.fake_suite import make_plan, run_suite
from tests.helpers.processes import Forked, python, start_forked, status_of_tool
from vito_mm.transfer import jobs
from vito_mm.transfer import runner as suite
from vito_mm.transfer.options import SuiteOptions
from vito_mm.transfer.plan import PlanError


@pytest.fixture(autouse=True)
def _own_suite(monkeypatch):
    """Take back the plan and report of fake_suite, and poll its short runs often."""
    monkeypatch.setattr(suite, 'make_plan', suite.make_plan)
    monkeypatch.setattr(suite, 'report', suite.report)
    monkeypatch.setattr(jobs, '_POLL_SECONDS', 0.05)


def run(tmp_path: Path, **behaviours: str) -> int:
    return run_suite(make_plan(tmp_path, behaviours))


def folder_of(tmp_path: Path, label: str) -> Path:
    return tmp_path / 'suite' / 'runs' / 'pascal' / label / 'default' / 'seed0'


def tries(tmp_path: Path, *labels: str) -> list[int]:
    files = [folder_of(tmp_path, label) / 'tries' for label in labels]
    return [len(file.read_text()) if file.exists() else 0 for file in files]


def result(tmp_path: Path, label: str) -> dict:
    return json.loads((folder_of(tmp_path, label) / 'result.json').read_text())


def transfer(*words: object) -> int:
    """The command as a user types it, in this process."""
    return status_of_tool('transfer.py', *words)


def test_a_crash_is_resumed_once_and_nothing_finished_is_repeated(tmp_path, capsys):
    assert run(tmp_path, a='crash+ok', b='ok') == 0
    assert 'it is resumed once' in capsys.readouterr().out
    found = result(tmp_path, 'a')
    assert (found['state'], found['score']) == ('finished', 40.0)
    assert found['metrics'] == dict(mIoU=40.0, aAcc=70.0)
    assert found['versions']['torch']
    assert 'logical cores' in found['machine']
    (outcome, _) = suite.outcomes_in(tmp_path / 'suite')
    assert (outcome.score, outcome.run.label) == (40.0, 'a')
    assert outcome.conditions == {key: found[key] for key in ('machine', 'versions', 'git')}
    assert 'train.py' in found['command']
    assert '--resume' in (folder_of(tmp_path, 'a') / 'command.sh').read_text()

    identity = json.loads((tmp_path / 'suite' / 'suite.json').read_text())['id']
    assert run(tmp_path, a='crash+ok', b='ok', c='ok') == 0
    assert tries(tmp_path, *'abc') == [2, 1, 1]
    assert json.loads((tmp_path / 'suite' / 'suite.json').read_text())['id'] == identity


def test_a_run_under_slurm_does_not_claim_to_be_of_this_machine(tmp_path):
    plan = make_plan(tmp_path, dict(a='ok', b='diverged'), launcher='slurm', partition='gpu')
    script = tmp_path / 'repo' / 'tools' / 'slurm_train.sh'
    script.write_text(f'{sys.executable} "${{0%/*}}/train.py" "$3" --work-dir "$4" "${{@:5}}"')
    assert run_suite(plan) == 1
    assert result(tmp_path, 'a')['state'] == 'finished'
    for label in 'ab':
        assert result(tmp_path, label)['machine'] == 'chosen by Slurm, partition gpu'


def test_a_run_that_fails_twice_does_not_stop_the_others_and_is_tried_again(tmp_path, capsys):
    assert run(tmp_path, a='crash+crash+ok', b='ok', c='full') == 1
    printed = capsys.readouterr().out
    assert 'FAILED pascal/a/default/seed0: it ended with status 1: the data worker died' in printed
    assert '1 of 3 runs finished' in printed
    assert 'tools/transfer.py --same' in printed
    assert result(tmp_path, 'a')['state'] == 'failed'
    assert result(tmp_path, 'a')['message'].endswith('the data worker died')
    # The work dir has room.
    message = result(tmp_path, 'c')['message']
    assert all(text in message for text in ('No space left on device', '/dev/shm', 'TMPDIR'))
    assert run(tmp_path, a='crash+crash+ok', b='ok') == 0
    assert result(tmp_path, 'a')['state'] == 'finished'
    assert tries(tmp_path, *'bc') == [1, 2]


def test_a_gpu_that_is_too_small_fails_a_run_at_once_with_the_remedy(tmp_path):
    behaviours = dict(a='memory+ok', b='ok')
    assert run(tmp_path, **behaviours) == 1
    assert tries(tmp_path, 'a') == [1]
    assert '--gpus-per-run' in result(tmp_path, 'a')['message']

    # With another config the failed run is simply another; the finished one is not thrown away.
    plan = make_plan(tmp_path, behaviours)
    for planned in plan.runs:
        planned.fingerprint = 'accumulated'
    with pytest.raises(PlanError, match=r'(?s)1 run\(s\).*pascal/b/default/seed0'):
        run_suite(plan)
    plan.options.redo = True
    assert run_suite(plan) == 0
    assert tries(tmp_path, *'ab') == [2, 1]


def test_a_full_disk_stops_new_runs_and_fails_none(tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    made_room = False

    def disk_usage(folder: Path):
        is_full = tries(tmp_path, 'b') != [0] and not made_room
        return usage._replace(free=1000) if is_full else usage

    monkeypatch.setattr(shutil, 'disk_usage', disk_usage)
    assert run(tmp_path, a='ok', b='full+ok', c='ok') == 1
    printed = capsys.readouterr().out
    assert 'is full: make room' in printed
    assert 'FAILED' not in printed
    states = json.loads((tmp_path / 'suite' / 'report.json').read_text())
    assert states == dict(a='finished', b='waiting', c='waiting')
    made_room = True
    assert run(tmp_path, a='ok', b='full+ok', c='ok') == 0
    assert tries(tmp_path, *'abc') == [1, 2, 1]


def test_a_report_that_fails_does_not_hide_the_runs(tmp_path, capsys, monkeypatch):
    plan = make_plan(tmp_path, dict(a='ok'))

    def fail(*args) -> None:
        raise AttributeError('no such name')

    monkeypatch.setattr(suite, 'make_plan', lambda options: plan)
    monkeypatch.setattr(suite, 'report', fail)
    assert suite.run_suite(plan.options, 'command', estimate=False) == 1
    printed = capsys.readouterr().out
    assert 'AttributeError: no such name' in printed
    assert '1 of 1 run finished' in printed


def test_a_report_holds_the_commands_and_plans_of_all_calls(tmp_path, capsys, monkeypatch):
    work_dir = tmp_path / 'suite'
    write_report = suite.report

    never_started = make_plan(tmp_path, dict(x='ok', y='ok'))
    never_started.run_bytes = dict(pascal=(10**18, 1))
    assert run_suite(never_started, 'transfer.py first') == 1
    assert 'No more runs are started' in capsys.readouterr().out
    assert tries(tmp_path, *'xy') == [0, 0]
    for command in ('transfer.py second', 'transfer.py second', 'transfer.py first'):
        assert run_suite(make_plan(tmp_path, dict(y='ok', z='ok')), command) == 0
    monkeypatch.setattr(suite, 'report', write_report)
    assert transfer('--report-only', '--work-dir', work_dir) == 0
    with (work_dir / 'report.csv').open(newline='') as file:
        states = {line['checkpoint']: line['state'] for line in csv.DictReader(file)}
    page = (work_dir / 'report.md').read_text()
    assert states == dict(x='waiting', y='finished', z='finished')
    assert 'transfer.py first\ntransfer.py second\n```' in page
    assert 'report-only' not in page


def test_ends_that_are_unusual(tmp_path):
    """Divergence that crashes fails at once, one that is measured counts, no box counts as 0."""
    assert run(tmp_path, a='diverged+ok', b='nan', c='boxless', d='unevaluated+ok') == 1
    assert tries(tmp_path, 'a') == [1]
    assert 'the loss was not finite from step 10 on' in result(tmp_path, 'a')['message']
    assert [result(tmp_path, label)['score'] for label in 'bcd'] == [2.0, 0.0, 44.0]
    assert 'not finite from step 10' in result(tmp_path, 'b')['message']
    assert 'not a single box' in result(tmp_path, 'c')['message']
    # It was killed between its last checkpoint and the end of the evaluation.
    assert 'test.py' in result(tmp_path, 'd')['command']


def test_a_result_of_something_else_is_refused_unless_redone(tmp_path):
    assert run(tmp_path, a='ok', b='ok') == 0
    plan = make_plan(tmp_path, dict(a='ok', b='ok'))
    plan.runs[0].fingerprint = plan.runs[0].checkpoint_sha256 = 'another'
    with pytest.raises(PlanError, match=r'(?s)1 run\(s\).*--redo') as caught:
        run_suite(plan)
    assert 'pascal/a/default/seed0: random weights had another content' in str(caught.value)
    plan.options.redo = True
    assert run_suite(plan) == 0
    assert tries(tmp_path, *'ab') == [1, 1]  # a in a new folder
    plan.options.protocol = 'stock'
    with pytest.raises(PlanError, match='holds runs of --protocol paper'):
        run_suite(plan)


def test_every_place_has_its_own_gpus(tmp_path):
    assert run_suite(make_plan(tmp_path, dict(a='ok', b='ok'), places=2)) == 0
    logs = [(folder_of(tmp_path, label) / 'console.log').read_text() for label in 'ab']
    assert sorted(line for log in logs for line in log.splitlines() if 'device' in line) == [
        'device: 0',
        'device: 1',
    ]


def start(tmp_path: Path, **behaviours: str) -> Forked:
    """The suite as a process of its own."""
    words = [f'{label}={behaviour}' for label, behaviour in behaviours.items()]
    command = ['tests/helpers/fake_suite.py', tmp_path, *words]
    return start_forked(tmp_path, command, dict(PYTHON=sys.executable))


def is_alive(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_a_suite_that_is_ended_leaves_no_process_and_goes_on(tmp_path, number):
    behaviours = dict(a='ok', b='hang+ok', c='ok')
    process = start(tmp_path, **behaviours)
    hanging = folder_of(tmp_path, 'b') / 'hanging'
    while not (hanging.exists() and hanging.read_text()):
        assert process.poll() is None, process.err.read_text()
        time.sleep(0.05)
    child = int(hanging.read_text())

    if number == signal.SIGINT:
        found = rf'another suite works in {tmp_path / "suite"} \(process {process.pid}\)'
        with pytest.raises(suite.SuiteError, match=found):
            run(tmp_path, **behaviours)

    os.kill(process.pid, number)
    done = process.wait()
    assert done.returncode == (-number if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        assert not is_alive(child)
        text = done.stdout + done.stderr
        assert f'STOPPED: ended by {number.name}' in text
        assert '1 of 3 runs finished' in text
    assert not (folder_of(tmp_path, 'b') / 'result.json').exists()

    # The folder of a run is not touched again before the last process of it has gone.
    assert run(tmp_path, **behaviours) == 0
    assert not is_alive(child)
    assert tries(tmp_path, *'abc') == [1, 2, 1]
    assert 'what: ok resume: True' in (folder_of(tmp_path, 'b') / 'console.log').read_text()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_run_is_started_ends_the_suite(tmp_path, capfd, number):
    signal_while_forking(number)
    assert run(tmp_path, a='hang', b='ok') == 128 + number
    printed, errors = capfd.readouterr()
    assert f'STOPPED: ended by {number.name}' in printed
    assert 'Traceback' not in errors
    assert tries(tmp_path, 'b') == [0]


def test_time_counts_over_restarts(tmp_path):
    plan = make_plan(tmp_path, dict(a='ok'))
    folder = plan.runs[0].work_dir
    folder.mkdir(parents=True)
    plan.runs[0].note_start(plan.options, ['command'])
    (folder / 'console.log').write_text('')
    started = json.loads((folder / 'run.json').read_text())['started']
    os.utime(folder / 'console.log', (started + 100, started + 100))
    assert run_suite(plan) == 0
    assert 100 <= result(tmp_path, 'a')['seconds'] < 1000


def test_a_checkpoint_is_shrunk_next_to_the_complete_one(tmp_path):
    (run,) = make_plan(tmp_path, dict(a='ok')).runs
    run.work_dir.mkdir(parents=True)
    file = run.work_dir / 'iter_3.pth'
    weights = dict(state_dict=dict(w=torch.ones(3)), meta=dict(iter=3))
    torch.save(weights | dict(optimizer=dict(m=torch.ones(9))), file)
    (run.work_dir / 'last_checkpoint').write_text(str(file))
    small = run.write_without_optimizer()
    assert 'optimizer' in torch.load(file)
    assert set(torch.load(small)) == {'state_dict', 'meta'}
    run.finish_shrinking()
    assert set(torch.load(file)) == {'state_dict', 'meta'}


def test_commands_are_those_of_the_tools(tmp_path):
    (run,) = make_plan(tmp_path, dict(a='ok')).runs
    folder, tools = str(run.work_dir), REPO / 'tools'
    rest = ['--resume', '--cfg-options', 'behaviours=ok']
    one = SuiteOptions(REPO, ['random'])
    train = [sys.executable, str(tools / 'train.py'), 'config.py', '--work-dir', folder, *rest]
    assert run.command(one) == train
    two = SuiteOptions(REPO, ['random'], gpus_per_run=2)
    script = ['bash', str(tools / 'dist_train.sh'), 'config.py', '2', '--work-dir', folder]
    assert run.command(two) == [*script, *rest]
    assert two.environment() == {'PYTHON': sys.executable}
    test = run.command(two, evaluate=Path('x.pth'))
    assert test[:5] == ['bash', str(tools / 'dist_test.sh'), 'config.py', 'x.pth', '2']
    assert test[5:8] == ['--work-dir', folder, '--validation']
    slurm = SuiteOptions(
        *(REPO, ['random']),
        gpus_per_run=16,
        launcher='slurm',
        partition='gpu',
        srun_args='--mem=0 --exclusive',
    )
    script = ['bash', str(tools / 'slurm_train.sh'), 'gpu', 'vito_transfer', 'config.py', folder]
    assert run.command(slurm) == [*script, *rest]
    assert slurm.environment()['GPUS'] == '16'
    assert slurm.environment()['GPUS_PER_NODE'] == '8'
    words = run.command(slurm, evaluate=Path('x.pth'))
    assert words[:5] == ['srun', '--partition=gpu', '--gres=gpu:1', '--ntasks=1', '--mem=0']
    assert '--resume' not in words


@pytest.fixture
def real(miniscenes, tmp_path, monkeypatch):
    """Returns the command on the tiny MiniScenes, a few steps per run."""
    monkeypatch.setattr(sys, 'executable', str(python()))

    def call(tasks: str, *more: object) -> int:
        short = ('train_cfg.max_iters=2', 'train_cfg.val_interval=2')
        settings = [f'{task}:{text}' for task in ('pascal', 'ade20k') for text in short]
        short = ('train_cfg.max_epochs=1', 'train_cfg.val_interval=1')
        settings += [f'{task}:{text}' for task in ('coco', 'lvis') for text in short]
        return transfer(
            *('--protocol', 'miniscenes', '--tasks', *tasks.split()),
            *('--work-dir', tmp_path / 'suite', '--jobs', 2, '--seeds', 1),
            *('--data', *(f'{task}={folder}' for task, folder in miniscenes.items())),
            *('--cfg-options', *settings, *more),
        )

    return call


def test_a_real_suite_is_filled_repeated_and_extended(real, checkpoint, tmp_path, capsys):
    work_dir = tmp_path / 'suite'
    words = ('--checkpoints', checkpoint, '--no-estimate')
    assert real('pascal', *words) == 0
    assert '1 of 1 run finished' in capsys.readouterr().out
    first = work_dir / 'runs/pascal/vito/default/seed0/result.json'
    written = first.stat().st_mtime_ns

    # Another task: what has finished is not repeated.
    assert real('pascal coco', *words) == 0
    printed = capsys.readouterr().out
    assert '1 checkpoint x 2 tasks x 1 setting x 1 seed = 2 runs' in printed
    assert '1 run to do, 2 at a time' in printed
    assert '2 of 2 runs finished' in printed
    assert first.stat().st_mtime_ns == written
    files = sorted(work_dir.glob('runs/*/*/*/*/result.json'))
    assert [file.parts[-5] for file in files] == ['coco', 'pascal']
    for file in files:
        found = json.loads(file.read_text())
        assert found['state'] == 'finished'
        assert 0 <= found['score'] <= 100
        assert set(torch.load(found['checkpoint'])) == {'state_dict', 'meta'}
    log = (work_dir / 'runs/pascal/vito/default/seed0/console.log').read_text()
    assert f'loaded 120/120 backbone keys from {checkpoint}' in log
    assert (work_dir / 'report.html').is_file()

    assert real('coco', 'optim_wrapper.optimizer.lr=0.5', *words) == 2
    assert 'optim_wrapper.optimizer.lr 0.001 -> 0.5' in capsys.readouterr().err


@pytest.mark.slow
def test_all_four_tasks_with_a_sweep_and_an_estimate(real, checkpoint, tmp_path, capsys):
    more = ('--sweep', 'lr=0.001,0.002', '--checkpoints', 'random', checkpoint)
    assert real('pascal ade20k coco lvis', *more, '--dry-run') == 0
    printed = capsys.readouterr().out
    assert '2 checkpoints x 4 tasks x 2 settings x 1 seed = 16 runs' in printed
    assert 'ESTIMATE' in printed
    assert not (tmp_path / 'suite' / 'runs').exists()
    assert real('pascal ade20k coco lvis', *more) == 0
    assert 'Timing' not in capsys.readouterr().out  # known from the dry run
    assert len(list(tmp_path.glob('suite/runs/*/*/lr0.00[12]/seed0/result.json'))) == 16
