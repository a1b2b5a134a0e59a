"""Training commands run side by side, with their progress in view."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ITERATION = re.compile(r'Iter\(train\) \[\s*(\d+)/\s*(\d+)\]')
_EPOCH = re.compile(r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/\s*(\d+)\]')
_POLL_SECONDS = 0.5
_SAY_EVERY = 15.0


class JobError(RuntimeError):
    """A training command failed; the message shows the end of its log."""


@dataclass
class Job:
    """One training command.

    Attributes:
        name (str): What the user sees.
        command (list[str]): Command and arguments.
        work_dir (Path): Folder that the command writes to; its output goes to ``console.log``
            there.
        max_epochs (int): Number of epochs of an epoch-based run, to tell its progress. Defaults to
            1.
        seconds (float): How long it took, set when it has ended.
    """

    name: str
    command: list[str]
    work_dir: Path
    max_epochs: int = 1
    seconds: float = 0.0

    @property
    def log(self) -> Path:
        """Everything that the command prints."""
        return self.work_dir / 'console.log'

    def progress(self) -> str:
        """How far the training is, as a percentage, or what it does before."""
        text = self.log.read_text(errors='replace') if self.log.exists() else ''
        if found := _ITERATION.findall(text):
            done, total = map(int, found[-1])
        elif found := _EPOCH.findall(text):
            epoch, batch, batches = map(int, found[-1])
            done, total = (epoch - 1) * batches + batch, self.max_epochs * batches
        else:
            return 'starting'
        return 'evaluating' if done == total else f'{100 * done // total} %'

    def scalars(self) -> list[dict]:
        """All lines that the run logged, oldest first."""
        files = sorted(self.work_dir.glob('*/vis_data/scalars.json'))
        if not files:
            raise JobError(f'{self.name} left no scalars.json in {self.work_dir}')
        return [json.loads(line) for line in files[-1].read_text().splitlines()]

    def last(self, key: str) -> float:
        """Value of a key in the last line that has it."""
        values = [line[key] for line in self.scalars() if key in line]
        if not values:
            raise JobError(f'{self.name} logged no {key} in {self.work_dir}')
        return values[-1]

    def checkpoint(self) -> Path:
        """The checkpoint that the run wrote last."""
        return Path((self.work_dir / 'last_checkpoint').read_text().strip())


def run_jobs(jobs: Sequence[Job], at_once: int, threads: int) -> None:
    """Run jobs, some at a time, in their order.

    Args:
        jobs (Sequence[Job]): Jobs; ``seconds`` of each is set.
        at_once (int): How many run at a time.
        threads (int): Threads that PyTorch gets in each.

    Raises:
        JobError: If a job fails; the others are ended.
    """
    environment = {
        **os.environ,
        'OMP_NUM_THREADS': str(threads),
        'PYTHONPATH': os.pathsep.join(
            [str(Path(__file__).resolve().parents[2]), os.environ.get('PYTHONPATH', '')]
        ).rstrip(os.pathsep),
        'PYTHONWARNINGS': 'ignore',
    }
    waiting, running = list(jobs), {}
    said = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                job.work_dir.mkdir(parents=True, exist_ok=True)
                with job.log.open('w') as log:
                    process = subprocess.Popen(
                        job.command, stdout=log, stderr=subprocess.STDOUT, env=environment
                    )
                running[process] = (job, time.monotonic())
            time.sleep(_POLL_SECONDS)
            for process in [process for process in running if process.poll() is not None]:
                job, started = running.pop(process)
                job.seconds = time.monotonic() - started
                if process.returncode:
                    end = '\n'.join(job.log.read_text(errors='replace').splitlines()[-25:])
                    raise JobError(
                        f'{job.name} failed with status {process.returncode}. The end of {job.log}:'
                        f'\n{end}\nCommand: {" ".join(job.command)}'
                    )
                _say(f'  {job.name}: done in {job.seconds:.0f} s')
            if running and time.monotonic() - said > _SAY_EVERY:
                said = time.monotonic()
                states = ', '.join(f'{job.name} {job.progress()}' for job, _ in running.values())
                _say(f'  ... {states}' + (f'; {len(waiting)} more to come' if waiting else ''))
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def _say(text: str) -> None:
    print(text, flush=True, file=sys.stdout)
