"""Runs that are killed, machines that fail, disks that fill up: real processes, real faults."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import STDOUT, CompletedProcess, Popen

import pytest
import torch

from tests.conftest import REPO
from tests.helpers.processes import Forked, free_port, shell, start_forked, user_environment
from tests.tools.test_train import CONFIG, tiny_options
from vito_mm.launch import latest_checkpoint


def words(folder: Path, work_dir: Path, *extra: str, max_iters: int = 9, options=()) -> list[str]:
    """Of the command line after ``tools/train.py``."""
    return [
        *(str(CONFIG), '--work-dir', str(work_dir), *extra),
        *tiny_options(folder, max_iters=max_iters),
        *options,
    ]


def train(*args: object, **settings: object) -> list[str]:
    """The command of a training, see :func:`words`."""
    return [sys.executable, 'tools/train.py', *words(*args, **settings)]


def train_after(code: str, folder: Path, *args: object, **settings: object) -> CompletedProcess:
    """Train in a process that runs some lines of Python before."""
    script = folder / 'script.py'
    run = "import runpy, sys\nsys.path.insert(0, 'tools')\n"
    run += "runpy.run_path('tools/train.py', run_name='__main__')\n"
    script.write_text(f'{code}\n{run}')
    return start_forked(folder, [script, *words(*args, **settings)], {}).wait()


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Popen]]:
    """Returns a function that starts a command and writes what it prints to a file."""
    processes = []

    def start(command: list[str], log: Path, **environment: str) -> Popen:
        process = Popen(
            command,
            cwd=REPO,
            env=user_environment(**environment),
            stdout=log.open('w'),
            stderr=STDOUT,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            kill(process)
    # torchrun's workers survive a killed torchrun.
    for number in workers_of(tmp_path).values():
        os.kill(number, signal.SIGKILL)


def wait_for(log: Path, text: str, process: Popen | Forked, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while text not in log.read_text():
        assert process.poll() is None, f'ended before {text!r}:\n{log.read_text()[-3000:]}'
        assert time.monotonic() < end, f'no {text!r} in {seconds} s:\n{log.read_text()[-3000:]}'
        time.sleep(0.02)


def kill(process: Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def loss_curve(*work_dirs: Path) -> dict[int, tuple[float, float]]:
    """Loss and rate of every logged step, the last word where a step was run twice."""
    lines = [
        json.loads(line)
        for work_dir in work_dirs
        for file in sorted(work_dir.glob('*/vis_data/scalars.json'))
        for line in file.read_text().splitlines()
    ]
    return {line['step']: (line['loss'], line['lr']) for line in lines}


def assert_identical(a: object, b: object, where: str = '') -> None:
    """Bit-exact, through dicts and lists."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_identical(a[key], b[key], f'{where}.{key}')
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, pair in enumerate(zip(a, b, strict=True)):
            assert_identical(*pair, f'{where}[{index}]')
    else:
        assert a == b, where


def test_a_killed_run_continues_bit_exact(textured_folder, tmp_path):
    """kill -9 between two checkpoints; another number of workers after it."""
    # The window of the log is one step, so that its mean is not one over two runs.
    options = ['log_processor.window_size=1', 'model.base_momentum=0.9']
    whole = tmp_path / 'whole'
    run = shell(*train(textured_folder, whole, options=options))
    assert run.returncode == 0, run.stderr[-3000:]

    broken = tmp_path / 'broken'
    command = ['tools/train.py', *words(textured_folder, broken, options=options)]
    process = start_forked(tmp_path, command, {})
    wait_for(process.out, 'Iter(train) [5/9]', process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    saved = (broken / 'last_checkpoint').read_text()
    assert not (broken / 'iter_9.pth').exists()

    options.append('train_dataloader.num_workers=2')
    run = shell(*train(textured_folder, broken, '--resume', options=options))
    assert run.returncode == 0, run.stderr[-3000:]
    assert f'resuming from {saved}' in run.stdout + run.stderr
    first, second = (torch.load(folder / 'iter_9.pth') for folder in (whole, broken))
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_identical(first[part], second[part], part)
    curve = loss_curve(whole)
    assert len(curve) == 9
    assert curve == loss_curve(broken)


def test_a_cut_checkpoint_is_passed_over(textured_folder, tmp_path):
    work_dir = tmp_path / 'run'
    run = shell(*train(textured_folder, work_dir, max_iters=4))
    assert run.returncode == 0, run.stderr[-3000:]
    newest = work_dir / 'iter_4.pth'
    newest.write_bytes(newest.read_bytes()[:100_000])
    run = shell(*train(textured_folder, work_dir, '--resume', max_iters=5))
    assert run.returncode == 0, run.stderr[-3000:]
    output = run.stdout + run.stderr
    assert f'{newest} is missing or cut off' in output
    assert f'resuming from {work_dir}/iter_2.pth' in output


def test_a_moved_folder_goes_on_from_what_its_run_saved_last(tmp_path):
    """Not from the best weights, which are newer and have no state of the optimizer."""
    for name in ('iter_2.pth', 'iter_4.pth', 'best_knn_top1_iter_3.pth'):
        torch.save({}, tmp_path / name)
        os.utime(tmp_path / name, (1, 5 - int(name[-5])))  # newer ones come first here
    assert latest_checkpoint(tmp_path) == str(tmp_path / 'iter_2.pth')
    (tmp_path / 'last_checkpoint').write_text('/old/place/iter_4.pth')
    assert latest_checkpoint(tmp_path) == str(tmp_path / 'iter_4.pth')


def test_a_file_without_the_optimizer_is_not_resumed(textured_folder, tmp_path):
    first = shell(*train(textured_folder, tmp_path / 'run', max_iters=2))
    assert first.returncode == 0, first.stderr[-3000:]
    checkpoint = torch.load(tmp_path / 'run/iter_2.pth', weights_only=False)
    del checkpoint['optimizer']
    torch.save(checkpoint, tmp_path / 'best.pth')
    command = train(
        textured_folder, tmp_path / 'b', '--resume', str(tmp_path / 'best.pth'), max_iters=3
    )
    again = shell(*command)
    assert again.returncode != 0
    assert 'optimizer' in again.stderr.strip().splitlines()[-1]


def test_resuming_nothing_starts_at_the_beginning(textured_folder, tmp_path):
    run = shell(*train(textured_folder, tmp_path / 'run', '--resume', max_iters=2))
    assert run.returncode == 0, run.stderr[-3000:]
    assert 'no checkpoint to resume from' in run.stdout + run.stderr
    assert latest_checkpoint(tmp_path / 'run') == str(tmp_path / 'run' / 'iter_2.pth')


# Runs before the script: the second checkpoint dies half written, or whole but not renamed.
KILLED_WHILE_SAVING = {
    'half written': """
import os, signal
from mmengine.fileio.backends import LocalBackend
def put(self, obj, path, original=LocalBackend.put):
    if 'iter_4.pth' in str(path):
        original(self, obj[: len(obj) // 2], path)
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, obj, path)
LocalBackend.put = put
""",
    'not renamed': """
import os, signal
def replace(source, target, original=os.replace):
    if 'iter_4.pth' in str(target):
        os.kill(os.getpid(), signal.SIGKILL)
    original(source, target)
os.replace = replace
""",
    'not pointed to': """
import os, signal
def replace(source, target, original=os.replace):
    if str(target).endswith('last_checkpoint') and os.path.exists(str(target)):
        os.kill(os.getpid(), signal.SIGKILL)
    original(source, target)
os.replace = replace
""",
}


@pytest.mark.parametrize(
    'moment',
    [
        pytest.param('half written', marks=pytest.mark.slow),
        'not renamed',
        pytest.param('not pointed to', marks=pytest.mark.slow),
    ],
)
def test_a_kill_while_saving_leaves_the_last_one(textured_folder, tmp_path, moment):
    work_dir = tmp_path / 'run'
    only_one = ['default_hooks.checkpoint.max_keep_ckpts=1']
    code = KILLED_WHILE_SAVING[moment]
    run = train_after(code, tmp_path, textured_folder, work_dir, options=only_one)
    assert run.returncode == -signal.SIGKILL, run.stderr[-3000:]
    pointer = Path((work_dir / 'last_checkpoint').read_text())
    assert pointer == work_dir / 'iter_2.pth'
    assert torch.load(pointer)['meta']['iter'] == 2

    run = shell(*train(textured_folder, work_dir, '--resume', max_iters=4, options=only_one))
    assert run.returncode == 0, run.stderr[-3000:]
    assert f'resuming from {pointer}' in run.stdout + run.stderr
    # Nothing half written stays.
    assert {file.name for file in work_dir.glob('*.pth*')} <= {'iter_2.pth', 'iter_4.pth'}
    assert torch.load(work_dir / 'iter_4.pth')['meta']['iter'] == 4


def test_a_full_disk_ends_the_run_with_a_way_out(textured_folder, tmp_path):
    """The kernel refuses the write: the limit lies between the two checkpoints' sizes."""
    work_dir = tmp_path / 'run'
    code = (
        'import resource, signal\n'
        'signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n'
        'from mmengine.fileio.backends import LocalBackend\n'
        'def put(self, obj, path, original=LocalBackend.put):\n'
        "    if 'iter_4.pth' in str(path):\n"
        '        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n'
        '    original(self, obj, path)\n'
        'LocalBackend.put = put\n'
    )
    only_one = ['default_hooks.checkpoint.max_keep_ckpts=1']
    run = train_after(code, tmp_path, textured_folder, work_dir, options=only_one)
    assert run.returncode not in (0, None)
    assert f'cannot save the checkpoint {work_dir}/iter_4.pth' in run.stderr
    assert f'The last complete one is {work_dir}/iter_2.pth' in run.stderr
    assert [file.name for file in work_dir.glob('*.pth*')] == ['iter_2.pth']
    assert latest_checkpoint(work_dir) == str(work_dir / 'iter_2.pth')


def workers_of(work_dir: Path) -> dict[int, int]:
    """Process numbers of the training processes below a folder, by rank."""
    found = {}
    for folder in Path('/proc').iterdir():
        try:
            command = (folder / 'cmdline').read_bytes().split(b'\0')
            environment = (folder / 'environ').read_bytes()
        except (OSError, ValueError):
            continue
        rank = re.search(rb'(?:^|\0)RANK=(\d+)', environment)
        ours = any(word.startswith(str(work_dir).encode()) for word in command)
        if rank and ours and command[1:2] == [b'-u']:
            # The process itself came before the data loader's workers, its forks.
            number = int(folder.name)
            found[int(rank[1])] = min(number, found.get(int(rank[1]), number))
    return found


def test_a_dead_rank_ends_the_others_with_a_message(textured_folder, tmp_path, start):
    work_dir, log = tmp_path / 'run', tmp_path / 'log.txt'
    command = ['tools/dist_train.sh', str(CONFIG), '2', '--work-dir', str(work_dir)]
    process = start([*command, *tiny_options(textured_folder, max_iters=10_000)], log)
    wait_for(log, '    3/10000]', process)
    workers = workers_of(work_dir)
    assert set(workers) == {0, 1}
    os.kill(workers[1], signal.SIGKILL)
    killed = time.monotonic()
    assert process.wait(timeout=60) != 0
    assert time.monotonic() - killed < 60
    said = log.read_text()[-4000:]
    assert 'SIGKILL' in said, said
    assert 'rank      : 1' in said, said
    while workers_of(work_dir):  # a data worker looks every few seconds whether its parent lives
        assert time.monotonic() - killed < 60
        time.sleep(0.2)


@pytest.mark.slow
def test_a_dead_machine_ends_the_other(textured_folder, tmp_path, start):
    """Without restarts, and with no launcher that could tell the other machine."""
    work_dir = tmp_path / 'run'
    place = dict(NNODES='2', MASTER_ADDR='127.0.0.1', PORT=free_port())
    command = ['tools/dist_train.sh', str(CONFIG), '1', '--work-dir', str(work_dir)]
    command += tiny_options(textured_folder, max_iters=10_000)
    logs = [tmp_path / f'log{node}.txt' for node in (0, 1)]
    nodes = [start(command, log, **place, NODE_RANK=str(node)) for node, log in enumerate(logs)]
    wait_for(logs[0], '    3/10000]', nodes[0])
    # The launcher's workers are no part of its process group.
    os.kill(workers_of(work_dir)[1], signal.SIGKILL)
    kill(nodes[1])
    killed = time.monotonic()
    assert nodes[0].wait(timeout=60) != 0
    assert time.monotonic() - killed < 60
    said = logs[0].read_text()
    assert 'train.py FAILED' in said, said[-4000:]
    assert 'Connection' in said, said[-4000:]


@pytest.mark.slow
def test_two_machines_start_again_where_a_rank_died(textured_folder, tmp_path, start):
    """Two launches with a common elastic rendezvous, as on two machines; one rank is killed."""
    work_dir = tmp_path / 'run'
    place = dict(NNODES='2', MASTER_ADDR='127.0.0.1', PORT=free_port(), MAX_RESTARTS='2')
    command = ['tools/dist_train.sh', str(CONFIG), '1', '--work-dir', str(work_dir)]
    command += tiny_options(textured_folder, max_iters=24)
    logs = [tmp_path / f'log{node}.txt' for node in (0, 1)]
    nodes = [start(command, log, **place, NODE_RANK=str(node)) for node, log in enumerate(logs)]
    end = time.monotonic() + 120
    while not (work_dir / 'iter_4.pth').exists():
        assert time.monotonic() < end, logs[0].read_text()[-3000:]
        time.sleep(0.05)
    os.kill(workers_of(work_dir)[1], signal.SIGKILL)
    assert [node.wait(timeout=180) for node in nodes] == [0, 0], logs[0].read_text()[-3000:]
    text = logs[0].read_text() + logs[1].read_text()
    resumed = [int(step) for step in re.findall(r'resuming from .*iter_(\d+)\.pth', text)]
    assert max(resumed, default=0) >= 4
    assert sorted(loss_curve(work_dir)) == list(range(1, 25))
    assert (work_dir / 'iter_24.pth').exists()
