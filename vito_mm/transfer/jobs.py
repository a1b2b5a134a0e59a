"""Training commands run side by side, with their progress in view."""

import ctypes
import fcntl
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vito_mm.transfer.run_folder import last_checkpoint, scalars
from vito_mm.utils.text import time_text

_ITERATION = re.compile(r'Iter\(train\) \[\s*(\d+)/\s*(\d+)\]')
_EPOCH = re.compile(r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/\s*(\d+)\]')
_POLL_SECONDS = 0.5
_SAY_EVERY = 15.0
_TAIL_BYTES = 64 * 1024
_PATIENCE = 45.0
"""Seconds that a command has to end when it is told to; torchrun takes up to 30 for its workers."""

_LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None
_PR_SET_PDEATHSIG = 1


class JobError(RuntimeError):
    """A training command failed; the message shows the end of its log."""


@dataclass
class Job:
    """One training command.

    Attributes:
        name (str): What the user sees.
        command (list[str]): Command and arguments.
        work_dir (Path): Folder that the command writes to; its output goes to ``console.log``
            there, behind what earlier starts left.
        max_epochs (int): Number of epochs of an epoch-based run, to tell its progress. Defaults to
            1.
        kind (str): Jobs of one kind take about the same time. Defaults to ''.
        expected (float, optional): Seconds that it will take, if they were estimated. Defaults to
            None.
        environment (Mapping[str, str]): Variables of its own. Defaults to none.
        attempts (int): How often it was started.
        seconds (float): How long the last attempt took, set when it has ended.
        status (int, optional): Exit status of the last attempt.
    """

    name: str
    command: list[str]
    work_dir: Path
    max_epochs: int = 1
    kind: str = ''
    expected: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    attempts: int = 0
    seconds: float = 0.0
    status: int | None = None
    log_start: int = field(default=0, repr=False)
    first_seen: tuple[float, float] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """Everything that the command prints."""
        return self.work_dir / 'console.log'

    def tail(self, num_bytes: int = _TAIL_BYTES) -> str:
        """End of what the last attempt printed.

        Args:
            num_bytes (int): How much at most. Defaults to 64 kB.

        Returns:
            str: The text; empty before the first start.
        """
        if not self.log.exists():
            return ''
        with self.log.open('rb') as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self.log_start, size - num_bytes))
            return file.read().decode(errors='replace')

    def fraction(self) -> float | None:
        """How far the training is, from 0 to 1; None where it has not begun."""
        text = self.tail()
        if found := _ITERATION.findall(text):
            done, total = map(int, found[-1])
        elif found := _EPOCH.findall(text):
            epoch, batch, batches = map(int, found[-1])
            done, total = (epoch - 1) * batches + batch, self.max_epochs * batches
        else:
            return None
        return done / max(1, total)

    def progress(self) -> str:
        """How far the training is, as a percentage, or what it does before."""
        fraction = self.fraction()
        if fraction is None:
            return 'starting'
        return 'evaluating' if fraction >= 1 else f'{int(100 * fraction + 1e-6)} %'

    def scalars(self) -> list[dict]:
        """All lines that the run logged, oldest first."""
        lines = scalars(self.work_dir)
        if not lines:
            raise JobError(f'{self.name} left no scalars.json in {self.work_dir}')
        return lines

    def last(self, key: str) -> float:
        """Value of a key in the last line that has it."""
        values = [line[key] for line in self.scalars() if key in line]
        if not values:
            raise JobError(f'{self.name} logged no {key} in {self.work_dir}')
        return values[-1]

    def checkpoint(self) -> Path:
        """The checkpoint that the run wrote last."""
        file = last_checkpoint(self.work_dir)
        if file is None:
            raise JobError(f'{self.name} left no checkpoint in {self.work_dir}')
        return file


def run_jobs(
    jobs: Sequence[Job],
    at_once: int,
    threads: int,
    slots: Sequence[Mapping[str, str]] | None = None,
    on_start: Callable[[Job], None] | None = None,
    on_end: Callable[[Job, int], bool] | None = None,
    may_start: Callable[[Job], bool] | None = None,
) -> None:
    """Run jobs, some at a time, in their order.

    Each runs in a process group of its own, which ends with this call, however it ends: when this
    process is killed, Linux tells the commands to terminate.

    Args:
        jobs (Sequence[Job]): Jobs; ``attempts`` and ``seconds`` of each are set.
        at_once (int): How many run at a time.
        threads (int): Threads that PyTorch gets in each.
        slots (Sequence[Mapping[str, str]], optional): Environment of each of the ``at_once``
            places, such as the GPUs that it has. Defaults to None, which means no difference.
        on_start (Callable, optional): Called before a job starts. Defaults to None.
        on_end (Callable, optional): Called with a job that has ended and its exit status; returns
            whether it is to be started again. Defaults to None, which takes a failure as the end.
        may_start (Callable, optional): Asked with a job before its start; once it returns False, no
            more are started. Defaults to None.

    Raises:
        JobError: If a job fails and there is no ``on_end``, or an earlier start of a job is alive;
            the others are ended.
    """
    environment = {
        **os.environ,
        'OMP_NUM_THREADS': str(threads),
        'PYTHONPATH': os.pathsep.join(
            [str(Path(__file__).resolve().parents[3]), os.environ.get('PYTHONPATH', '')]
        ).rstrip(os.pathsep),
        'PYTHONWARNINGS': 'ignore',
    }
    free = list(range(at_once))
    waiting, running, done = list(jobs), {}, []
    began = said = time.monotonic()
    try:
        while waiting or running:
            while waiting and free:
                if may_start is not None and not may_start(waiting[0]):
                    waiting.clear()
                    break
                job, slot = waiting.pop(0), free.pop(0)
                job.work_dir.mkdir(parents=True, exist_ok=True)
                if on_start is not None:
                    on_start(job)
                place = slots[slot] if slots else {}
                process = _start(job, {**environment, **place, **job.environment})
                running[process] = (job, slot, time.monotonic())
            time.sleep(_POLL_SECONDS)
            for process in [process for process in running if process.poll() is not None]:
                job, slot, started = running.pop(process)
                job.seconds, job.status = time.monotonic() - started, process.returncode
                _signal_group(process, signal.SIGKILL)  # what it left behind
                free.append(slot)
                if on_end is not None:
                    if on_end(job, process.returncode):
                        waiting.insert(0, job)
                    else:
                        done.append(job)
                    continue
                if process.returncode:
                    end = '\n'.join(job.tail().splitlines()[-25:])
                    raise JobError(
                        f'{job.name} failed with status {process.returncode}. The end of {job.log}:'
                        f'\n{end}\nCommand: {shlex.join(job.command)}'
                    )
                done.append(job)
                say(f'  {job.name}: done in {job.seconds:.0f} s')
            now = time.monotonic()
            # Rarer in a run of days than in one of minutes.
            if running and now - said > min(600.0, max(_SAY_EVERY, (now - began) / 50)):
                said = now
                places = [(job, now - started) for job, _, started in running.values()]
                say(f'  ... {_describe(places, waiting, done, at_once)}')
    finally:
        _end(list(running))


def remaining_seconds(
    running: Sequence[tuple[Job, float]], waiting: Sequence[Job], done: Sequence[Job], at_once: int
) -> float | None:
    """Time until all jobs have ended, from what was measured so far.

    Args:
        running (Sequence[tuple[Job, float]]): Running jobs and the seconds since their start.
        waiting (Sequence[Job]): Jobs to come.
        done (Sequence[Job]): Jobs that have ended.
        at_once (int): How many run at a time.

    Returns:
        float, optional: Seconds; None where nothing tells how long a kind of job takes.
    """
    measured: dict[str, list[float]] = {}
    for job in done:
        if job.status == 0 and job.log_start == 0:  # not the rest of a resumed run
            measured.setdefault(job.kind, []).append(job.seconds)
    left: list[tuple[Job, float, float | None]] = []  # job, part to come, seconds where known
    for job, elapsed in running:
        fraction = job.fraction() or 0.0
        # A resumed run begins in the middle, and every run with a start that is no training.
        if fraction and job.first_seen is None:
            job.first_seen = fraction, elapsed
        first, since = job.first_seen or (0.0, 0.0)
        seconds = None
        if fraction > first > 0:
            rate = (elapsed - since) / (fraction - first)
            seconds = rate * (1 - fraction)
            measured.setdefault(job.kind, []).append(rate + since * (job.log_start == 0))
        left.append((job, 1 - fraction, seconds))
    left += [(job, 1.0, None) for job in waiting]
    total = {kind: sum(values) / len(values) for kind, values in measured.items()}
    times = []
    for job, part, seconds in left:
        if seconds is None:
            whole = total.get(job.kind, job.expected)
            if whole is None:
                return None
            seconds = part * whole
        times.append(seconds)
    return max([sum(times) / at_once, *times], default=0.0)


def await_end(work_dir: Path, name: str) -> None:
    """Wait until no process of an earlier start writes to a folder.

    Args:
        work_dir (Path): Folder of a job.
        name (str): What the user sees.

    Raises:
        JobError: If one does not end in time.
    """
    lock = os.open(work_dir / 'running.lock', os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(lock, name, work_dir)
    finally:
        os.close(lock)


def say(text: str) -> None:
    """Print at once, also into a file.

    Args:
        text (str): What to print.
    """
    print(text, flush=True, file=sys.stdout)


def _describe(
    running: Sequence[tuple[Job, float]], waiting: Sequence[Job], done: Sequence[Job], at_once: int
) -> str:
    states = ', '.join(f'{job.name} {job.progress()}' for job, _ in running)
    counts = f'{len(done)} done, {len(running) + len(waiting)} left'
    left = remaining_seconds(running, waiting, done, at_once)
    return f'{states}; {counts}' + (f', about {time_text(left)} to go' if left else '')


def _start(job: Job, environment: Mapping[str, str]) -> subprocess.Popen:
    """Start a command that holds the lock of its folder as long as one of its processes lives."""
    parent = os.getpid()

    def end_with_parent() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died in between
                os._exit(1)

    lock = os.open(job.work_dir / 'running.lock', os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(lock, job.name, job.work_dir)
        with job.log.open('a') as log:
            job.log_start = log.tell()
            job.attempts, job.first_seen = job.attempts + 1, None
            process = subprocess.Popen(
                job.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=(lock,),
                start_new_session=True,  # so that all it starts can be ended, and Ctrl-C is ours
                preexec_fn=end_with_parent,
            )
        os.pwrite(lock, f'{process.pid}\n'.encode(), 0)
    finally:
        os.close(lock)
    return process


def _take(lock: int, name: str, work_dir: Path) -> None:
    """Lock the folder of a job; what an earlier start left has some time to end."""
    patience = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > patience:
                pid = os.pread(lock, 32, 0).decode().strip()
                raise JobError(
                    f'{name}: an earlier start is still writing to {work_dir} (process '
                    f'group {pid} on the machine that started it). End it: kill -- -{pid}'
                ) from None
            time.sleep(_POLL_SECONDS)
        else:
            os.ftruncate(lock, 0)
            return


def _end(processes: Sequence[subprocess.Popen]) -> None:
    """Tell process groups to terminate, and kill those that do not in time."""
    for process in processes:
        _signal_group(process, signal.SIGTERM)
    patience = time.monotonic() + _PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, patience - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:
            _signal_group(process, signal.SIGKILL)
            process.wait()


def _signal_group(process: subprocess.Popen, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # all of it has ended
        os.killpg(process.pid, number)
