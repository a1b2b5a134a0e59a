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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from vito_mm.transfer.options import SuiteOptions
from vito_mm.transfer.run_folder import last_checkpoint, scalars
from vito_mm.utils.cores import count_cores
from vito_mm.utils.text import time_text

_PROGRESS = re.compile(r'(?:Epoch\(train\)\s+\[(\d+)\]|Iter\(train\) )\[\s*(\d+)/\s*(\d+)\]')
_POLL_SECONDS = 0.5
_SAY_EVERY = 15.0
_TAIL_BYTES = 64 * 1024
_PATIENCE = 45.0
"""Seconds that a command has to end when it is told to; torchrun takes up to 30 for its workers."""

_LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None
_PR_SET_PDEATHSIG = 1


class JobError(RuntimeError):
    """A training command failed; the message shows the end of its log."""


@dataclass(eq=False)
class Job:
    """One training command.

    Attributes:
        name (str): Name in messages.
        command (list[str]): Command and arguments.
        work_dir (Path): Folder that the command writes to; its output is added to ``console.log``.
        max_epochs (int): Number of epochs of an epoch-based run, for its progress.
        kind (str): Jobs of one kind take about the same time.
        expected (float, optional): Estimated duration in seconds.
        environment (Mapping[str, str]): Variables of its own.
        seconds (float): Duration of the last attempt, set when it has ended.
        status (int, optional): Exit status of the last attempt.
    """

    name: str
    command: list[str]
    work_dir: Path
    max_epochs: int = 1
    kind: str = ''
    expected: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    status: int | None = None
    _started: float = field(default=0.0, repr=False)
    _log_start: int = field(default=0, repr=False)
    _first_seen: tuple[float, float] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """Everything that the command prints."""
        return self.work_dir / 'console.log'

    def tail(self) -> str:
        """End of the output of the last attempt, 64 kB at most; empty before the first start."""
        if not self.log.exists():
            return ''
        with self.log.open('rb') as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, size - _TAIL_BYTES))
            return file.read().decode(errors='replace')

    def fraction(self) -> float | None:
        """Progress of the training from 0 to 1; None where it has not begun."""
        found = _PROGRESS.findall(self.tail())
        if not found:
            return None
        epoch, done, total = (int(number or 0) for number in found[-1])
        if epoch:
            done, total = (epoch - 1) * total + done, self.max_epochs * total
        return done / max(1, total)

    def progress(self) -> str:
        """Progress of the training as a percentage, or the phase before or after."""
        fraction = self.fraction()
        if fraction is None:
            return 'starting'
        return 'evaluating' if fraction >= 1 else f'{int(100 * fraction + 1e-6)} %'

    def scalars(self) -> list[dict]:
        """All lines that the run logged, oldest first."""
        if not (lines := scalars(self.work_dir)):
            raise JobError(f'{self.name} left no scalars.json in {self.work_dir}')
        return lines

    def last(self, key: str) -> float:
        """Value of a key in the last line that has it."""
        for line in reversed(self.scalars()):
            if key in line:
                return line[key]
        raise JobError(f'{self.name} logged no {key} in {self.work_dir}')

    def checkpoint(self) -> Path:
        """The checkpoint that the run wrote last."""
        if (file := last_checkpoint(self.work_dir)) is None:
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
        jobs (Sequence[Job]): Jobs, whose ``seconds`` and ``status`` are set.
        at_once (int): Number of jobs at a time.
        threads (int): Threads that PyTorch gets in each.
        slots (Sequence[Mapping[str, str]], optional): Environment of each of the ``at_once``
            places, such as the GPUs that it has.
        on_start (Callable, optional): Called before a job starts.
        on_end (Callable, optional): Called with a job that has ended and its exit status; returns
            True to start it again. Without it a failure ends everything.
        may_start (Callable, optional): Called with a job before its start; once it returns False,
            no more are started.

    Raises:
        JobError: If a job fails and there is no ``on_end``, or an earlier start of a job is alive;
            the others are ended.
    """
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = {
        **os.environ,
        'OMP_NUM_THREADS': str(threads),
        'PYTHONPATH': os.pathsep.join(paths),
        'PYTHONWARNINGS': 'ignore',
    }
    free, waiting, done = list(range(at_once)), list(jobs), []
    running: dict[subprocess.Popen, tuple[Job, int]] = {}
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
                running[_start(job, {**environment, **place, **job.environment})] = job, slot
            time.sleep(_POLL_SECONDS)
            for process in [process for process in running if process.poll() is not None]:
                job, slot = running.pop(process)
                job.seconds, job.status = time.monotonic() - job._started, process.returncode
                _signal_group(process, signal.SIGKILL)  # what it left behind
                free.append(slot)
                if on_end is not None and on_end(job, process.returncode):
                    waiting.insert(0, job)
                    continue
                done.append(job)
                if on_end is None:
                    _require_success(job)
                    say(f'  {job.name}: done in {job.seconds:.0f} s')
            now = time.monotonic()
            # Rarer in a run of days than in one of minutes.
            if running and now - said > min(600.0, max(_SAY_EVERY, (now - began) / 50)):
                said = now
                active = [job for job, _ in running.values()]
                states = ', '.join(f'{job.name} {job.progress()}' for job in active)
                left = _remaining_seconds(active, waiting, done, at_once)
                say(
                    f'  ... {states}; {len(done)} done, {len(active) + len(waiting)} left'
                    + (f', about {time_text(left)} to go' if left else '')
                )
    finally:
        _end(list(running))


def lay_out_places(options: SuiteOptions) -> tuple[list[dict[str, str]], int]:
    """Share out GPUs and cores: environment of each run side by side, and threads per process.

    Raises:
        ValueError: If there are not as many GPUs as asked for.
    """
    import torch

    per_run = options.gpus_per_run
    if per_run < 1 or (options.jobs is not None and options.jobs < 1):
        raise ValueError('--gpus-per-run and --jobs must be 1 or more')
    if options.launcher == 'slurm':
        return [{} for _ in range(options.jobs or 1)], 1
    count = torch.cuda.device_count()
    gpus = list(range(count)) if options.gpus is None else list(options.gpus)
    shown = f'--gpus {" ".join(map(str, gpus))}'
    if any(not 0 <= gpu < count for gpu in gpus):
        raise ValueError(f'{shown}: this machine shows {count} GPU(s), counted from 0')
    if len(set(gpus)) < len(gpus):
        raise ValueError(f'{shown}: one comes twice')
    jobs = options.jobs or max(1, len(gpus) // per_run)
    if gpus and jobs * per_run > len(gpus):
        raise ValueError(
            f'--jobs {jobs} with --gpus-per-run {per_run} needs {jobs * per_run} GPUs, and there '
            f'are {len(gpus)}'
        )
    places: list[dict[str, str]] = [{} for _ in range(jobs)]
    if gpus:
        names = gpu_names(count)
        for index, place in enumerate(places):
            own = gpus[index * per_run : (index + 1) * per_run]
            place['CUDA_VISIBLE_DEVICES'] = ','.join(names[gpu] for gpu in own)
    threads = max(1, count_cores() // (jobs * per_run))
    limit = os.environ.get('OMP_NUM_THREADS', '')
    return places, min(threads, int(limit)) if limit.isdigit() else threads


def gpu_names(count: int) -> list[str]:
    """Name the ``count`` GPUs that PyTorch sees, as ``CUDA_VISIBLE_DEVICES`` does if it is set."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')
    return visible[:count] if len(visible) >= count and visible[0] else [*map(str, range(count))]


def await_end(work_dir: Path, name: str) -> None:
    """Wait until no process of an earlier start writes to a folder; JobError if one stays."""
    with _locked(work_dir, name):
        pass


def say(text: str) -> None:
    """Print at once, also into a file."""
    print(text, flush=True)


def _remaining_seconds(
    running: Sequence[Job], waiting: Sequence[Job], done: Sequence[Job], at_once: int
) -> float | None:
    """Time until all jobs have ended; None where nothing tells how long a kind of job takes."""
    measured: dict[str, list[float]] = {}
    for job in done:
        if job.status == 0 and job._log_start == 0:  # not the rest of a resumed run
            measured.setdefault(job.kind, []).append(job.seconds)
    left: list[tuple[Job, float, float | None]] = []  # job, part to come, seconds where known
    for job in running:
        fraction, elapsed, seconds = job.fraction() or 0.0, time.monotonic() - job._started, None
        # A resumed run begins in the middle, and every run with a start that is no training.
        if fraction and job._first_seen is None:
            job._first_seen = fraction, elapsed
        first, since = job._first_seen or (0.0, 0.0)
        if fraction > first > 0:
            rate = (elapsed - since) / (fraction - first)
            seconds = rate * (1 - fraction)
            measured.setdefault(job.kind, []).append(rate + since * (job._log_start == 0))
        left.append((job, 1 - fraction, seconds))
    left += [(job, 1.0, None) for job in waiting]
    total = {kind: sum(values) / len(values) for kind, values in measured.items()}
    times = []
    for job, part, seconds in left:
        if seconds is None:
            if (whole := total.get(job.kind, job.expected)) is None:
                return None
            seconds = part * whole
        times.append(seconds)
    return max([sum(times) / at_once, *times], default=0.0)


def _require_success(job: Job) -> None:
    if job.status:
        end = '\n'.join(job.tail().splitlines()[-25:])
        raise JobError(
            f'{job.name} failed with status {job.status}. The end of {job.log}:\n{end}\n'
            f'Command: {shlex.join(job.command)}'
        )


def _start(job: Job, environment: Mapping[str, str]) -> subprocess.Popen:
    """Start a command that holds the lock of its folder as long as one of its processes lives."""
    parent = os.getpid()

    def end_with_parent() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died in between
                os._exit(1)

    with _locked(job.work_dir, job.name) as lock, job.log.open('a') as log:
        job._started, job._log_start, job._first_seen = time.monotonic(), log.tell(), None
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
    return process


@contextmanager
def _locked(work_dir: Path, name: str) -> Iterator[int]:
    """Lock the folder of a job; what an earlier start left has some time to end."""
    lock = os.open(work_dir / 'running.lock', os.O_RDWR | os.O_CREAT, 0o644)
    patience = time.monotonic() + _PATIENCE
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > patience:
                    pid = os.pread(lock, 32, 0).decode().strip()
                    raise JobError(
                        f'{name}: an earlier start is still writing to {work_dir} (process '
                        f'group {pid} on the machine that started it). End it: kill -- -{pid}'
                    ) from None
                time.sleep(_POLL_SECONDS)
        os.ftruncate(lock, 0)
        yield lock
    finally:
        os.close(lock)


def _end(processes: Sequence[subprocess.Popen]) -> None:
    """Tell process groups to terminate, and kill those that do not in time."""
    for process in processes:
        _signal_group(process, signal.SIGTERM)
    patience = time.monotonic() + _PATIENCE
    for process in processes:
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, patience - time.monotonic()))
        finally:
            _signal_group(process, signal.SIGKILL)
            process.wait()


def _signal_group(process: subprocess.Popen, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # all of it has ended
        os.killpg(process.pid, number)
