"""The transfer suite: many fine-tuning runs through the stock runners, and their state."""

import os
import re
import shlex
import shutil
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from vito_mm.transfer.run_folder import last_checkpoint
from vito_mm.transfer.tasks import Outcome, Task
from vito_mm.utils.file_lock import file_lock
from vito_mm.utils.provenance import conditions
from vito_mm.utils.text import count_text, time_text
from vito_mm.utils.worker_pool import stopped_by_signals

from .commands import environment, evaluation_command, training_command
from .estimate import estimates, print_plan
from .jobs import Job, JobError, await_end, run_jobs, say
from .options import SuiteOptions
from .plan import Plan, PlanError, PlannedRun, make_plan, peak_bytes, saved_bytes
from .state import (
    belongs_elsewhere,
    difference,
    diverged_at,
    final_metrics,
    finish_shrinking,
    is_finished,
    note_plan,
    note_start,
    outcome_of,
    planned_runs,
    read_json,
    seconds_before,
    tested_metrics,
    write_result,
    write_without_optimizer,
)

NO_SPACE = ('No space left on device', 'Errno 28', 'ENOSPC')
"""What a log says when the disk is full."""

NO_MEMORY = ('CUDA out of memory', 'torch.OutOfMemoryError', 'torch.cuda.OutOfMemoryError')
"""What a log says when the memory of the GPU is full."""

_SHOWN_LINES = 15
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SuiteError(RuntimeError):
    """The suite cannot go on; the message says why and what to do."""


class Interrupted(BaseException):
    """A signal to end; its only argument is the signal."""


def run_suite(
    options: SuiteOptions,
    command: str,
    dry_run: bool = False,
    estimate: bool = True,
) -> int:
    """Fill the transfer table: plan, run what is not there yet, report.

    A run that crashes is resumed once; if it crashes again it has failed, and the others go on.
    One that ran out of GPU memory has failed at once. So has one whose loss is not
    finite if it crashes, since the same seed would come to the same; if it ends well it counts with
    what was measured, with a note. Runs that fail, and those that a full disk or a signal stops,
    are tried again by the next call.

    Args:
        options (SuiteOptions): What to run.
        command (str): The command line, for the report and the messages.
        dry_run (bool): Whether to stop after the plan. Defaults to False.
        estimate (bool): Whether to time some steps of each task first. Defaults to True.

    Returns:
        int: Exit status: 0 if every run has finished, 1 if not, 128 and the signal's number if one
        ended the suite.

    Raises:
        PlanError: If anything is wrong that can be told beforehand; nothing was started.
        SuiteError: If another suite works in the folder.
        JobError: If the timed steps fail, or an orphan of an earlier call cannot be ended.
    """
    try:
        with _signals_interrupt():
            plan = make_plan(options)
            _check_work_dir(plan)
            if dry_run and not estimate:
                print_plan(plan, {})
                return 0
            options.work_dir.mkdir(parents=True, exist_ok=True)
            with _only_suite(options.work_dir):
                print_plan(plan, estimates(plan) if estimate else {})
                return 0 if dry_run else _run(plan, command)
    except Interrupted as interrupt:
        return 128 + interrupt.args[0]


def _run(plan: Plan, command: str) -> int:
    """Run a plan and report; returns the exit status."""
    note_plan(plan, command)
    suite = _Suite(plan, command)
    status = suite.run()
    try:
        report(plan.options.work_dir, command, plan)
    except Exception as error:  # whatever it is, what was run is told all the same
        reason = f'{type(error).__name__}: {error}'
        say(f'The report cannot be written: {reason}. Once that is mended: --report-only')
        status = status or 1
    finally:
        suite.print_end()
    return status


def report(work_dir: Path, command: str, plan: Plan | None = None) -> Path:
    """Write the report of all runs in a folder.

    Args:
        work_dir (Path): Folder of the suite.
        command (str): The command line, shown where the folder does not hold those of its runs.
        plan (Plan, optional): Whose runs come first. Defaults to None.

    Returns:
        Path: The report.

    Raises:
        SuiteError: If there is no suite in the folder.
    """
    from vito_mm.transfer.report.write import write_report

    record = read_json(work_dir / 'suite.json')
    if record is None:
        raise SuiteError(f'there is no transfer suite in {work_dir} yet')
    outcomes = outcomes_in(work_dir, plan)
    commands = record.get('commands') or [command]
    page = write_report(outcomes, work_dir, record['protocol'], commands)
    say(f'\nReport: {page}')
    return page


def outcomes_in(work_dir: Path, plan: Plan | None = None) -> list[Outcome]:
    """State of all runs, told from the disk.

    Args:
        work_dir (Path): Folder of the suite.
        plan (Plan, optional): Whose runs come first. Defaults to None.

    Returns:
        list[Outcome]: Those of the plan in its order, then those that other commands planned, then
        others. What was planned and not started is waiting.
    """
    runs = [planned.run for planned in plan.runs] if plan else []
    planned = {run.work_dir: run for run in [*runs, *planned_runs(work_dir)]}
    found = {
        file.parent: outcome
        for file in sorted((work_dir / 'runs').glob('*/*/*/seed*/run.json'))
        if (outcome := outcome_of(file.parent)) is not None
    }
    listed = [found.pop(folder, None) or Outcome(run, 'waiting') for folder, run in planned.items()]
    return listed + list(found.values())


class _Suite:
    """Runs a plan."""

    def __init__(self, plan: Plan, command: str) -> None:
        self.plan, self.command = plan, command
        self.options = plan.options
        self.planned: dict[str, PlannedRun] = {}
        self.crashes: dict[str, int] = {}
        self.testing: set[str] = set()
        self.failed: list[tuple[Job, str]] = []
        self.stopped = ''
        self.peak = peak_bytes(max(training for training, _ in plan.run_bytes.values()))

    def run(self) -> int:
        """Run what is not finished; returns the exit status."""
        jobs = []
        for planned in self.plan.runs:
            folder = planned.run.work_dir
            if belongs_elsewhere(planned):  # and --redo was given
                await_end(folder, planned.name)
                shutil.rmtree(folder)
            if is_finished(folder):
                finish_shrinking(folder)
            else:
                jobs.append(self._job(planned))
        if not jobs:
            say('Every run has finished already.')
            return 0
        say(f'{count_text(len(jobs), "run")} to do, {len(self.plan.places)} at a time')
        try:
            with _signals_interrupt():
                run_jobs(
                    jobs,
                    len(self.plan.places),
                    self.plan.threads,
                    self.plan.places,
                    on_start=self._started,
                    on_end=self._ended,
                    may_start=self._has_room,
                )
        except Interrupted as interrupt:
            number = interrupt.args[0]
            self.stopped = f'ended by {signal.Signals(number).name}'
            return 128 + number
        return 1 if self.stopped or self.failed else 0

    def print_end(self) -> None:
        """Say what became of it all."""
        left = sum(not is_finished(p.run.work_dir) for p in self.plan.runs)
        say(f'{len(self.plan.runs) - left} of {count_text(len(self.plan.runs), "run")} finished.')
        for job, message in self.failed:
            say(f'FAILED {job.name}: {message.splitlines()[0]}\n  log: {job.log}')
        if self.stopped:
            say(f'STOPPED: {self.stopped}. Nothing that was finished is lost.')
        if left:
            say(f'To go on, give the same command again:\n  {self.command}')

    def _job(self, planned: PlannedRun) -> Job:
        self.planned[planned.name] = planned
        return Job(
            planned.name,
            training_command(self.options, planned),
            planned.run.work_dir,
            planned.max_epochs,
            kind=planned.run.task.name,
            expected=self.plan.seconds.get(planned.run.task.name),
            environment=environment(self.options),
        )

    def _has_room(self, job: Job) -> bool:
        """Whether a run fits on the disk, with what it has there already."""
        free = shutil.disk_usage(self.options.work_dir).free + saved_bytes(job.work_dir)
        if not self.stopped and free < self.peak:
            self.stopped = (
                f'the disk of {self.options.work_dir} has {free / 1e9:.2f} GB left, and a run '
                f'needs {self.peak / 1e9:.2f} GB: make room'
            )
            say(f'{self.stopped}. No more runs are started.')
        return not self.stopped

    def _started(self, job: Job) -> None:
        planned = self.planned[job.name]
        text = shlex.join(job.command)
        note_start(planned, self.options.protocol, text)
        variables = ' '.join(f'{k}={shlex.quote(v)}' for k, v in job.environment.items())
        script = f'cd {shlex.quote(os.getcwd())}\n{variables} {text}'.replace('\n ', '\n')
        (job.work_dir / 'command.sh').write_text(f'{script}\n')

    def _ended(self, job: Job, status: int) -> bool:
        """Note what became of a run; returns whether it is started again."""
        planned = self.planned[job.name]
        try:
            return self._finish(job, planned) if status == 0 else self._crash(job, planned, status)
        except OSError as error:
            # The run itself is whole: the next call finds that it has nothing left to train.
            self.stopped = f'the result of {job.name} cannot be written ({error}): make room'
            say(self.stopped)
            return False

    def _finish(self, job: Job, planned: PlannedRun) -> bool:
        task, folder = planned.run.task, planned.run.work_dir
        look = tested_metrics if job.name in self.testing else final_metrics
        found = look(folder, task.metric, job.tail())
        checkpoint = last_checkpoint(folder)
        if found is None:
            if job.name in self.testing or checkpoint is None:
                self._fail(job, planned, f'it ended well, but logged no {task.metric}')
                return False
            # It was killed while it evaluated, and resuming from the end evaluates nothing.
            self.testing.add(job.name)
            job.command = evaluation_command(self.options, planned, checkpoint)
            return True
        metrics, note = found
        score = metrics[task.metric] * task.scale
        if not 0 <= score <= 100:
            reason = (
                'the validation data has no instance to measure it on'
                if score < 0
                else 'the model does not compute finite numbers'
            )
            self._fail(job, planned, f'{task.metric} is {metrics[task.metric]}: {reason}')
            return False
        if step := diverged_at(folder):
            note = f'{note}; ' * bool(note) + f'the loss was not finite from step {step} on'
        seconds = seconds_before(folder, planned.fingerprint)
        facts = self._conditions()
        outcome = Outcome(planned.run, 'finished', score, metrics, seconds, note, facts)
        shrunk = self._shrunk(folder)
        write_result(planned, outcome, shlex.join(job.command), checkpoint=checkpoint)
        if shrunk:
            finish_shrinking(folder)
        remark = f' ({note})' if note else ''
        say(f'  {job.name}: {task.label} {score:.2f} after {time_text(seconds)}{remark}')
        return False

    def _conditions(self) -> dict[str, Any]:
        if self.options.launcher != 'slurm':
            return conditions()
        return conditions(f'chosen by Slurm, partition {self.options.partition}')  # not this one

    def _shrunk(self, folder: Path) -> bool:
        try:
            return write_without_optimizer(folder) is not None
        except (OSError, RuntimeError) as error:
            say(f'  {folder}: the checkpoint keeps its optimizer, {error}')
            return False

    def _crash(self, job: Job, planned: PlannedRun, status: int) -> bool:
        lines = job.tail().splitlines()[-_SHOWN_LINES:]
        end = '\n'.join(f'    {line}' for line in lines)
        how = f'signal {signal.Signals(-status).name}' if status < 0 else f'status {status}'
        free = shutil.disk_usage(self.options.work_dir).free
        full = [line.strip() for line in lines if any(text in line for text in NO_SPACE)]
        # A checkpoint that did not fit is removed, so more may be free by now than was then.
        room = free + saved_bytes(job.work_dir)
        if free < self.peak // 10 or (full and room < self.peak):
            say(f'  {job.name} ended with {how}, the disk is full:\n{end}')
            self.stopped = f'the disk of {self.options.work_dir} is full: make room'
            return False
        message = f'it ended with {how}: {_reason(job.tail())}'
        if full:
            message += (
                f' ({full[-1]}: the disk of {self.options.work_dir} has {free / 1e9:.2f} GB left, '
                'so it may be /dev/shm, or the folder that TMPDIR names)'
            )
        if step := diverged_at(planned.run.work_dir):
            # The same seed would come to the same.
            message = f'the loss was not finite from step {step} on, and {message}. Lower lr'
            self._fail(job, planned, message, end)
            return False
        if any(text in job.tail() for text in NO_MEMORY):
            # The same batch would meet the same limit.
            self._fail(job, planned, f'{message}. {_more_memory(planned.run.task)}', end)
            return False
        self.crashes[job.name] = self.crashes.get(job.name, 0) + 1
        if self.crashes[job.name] == 1:
            say(f'  {job.name} ended with {how}, it is resumed once. The end of {job.log}:\n{end}')
            return True
        self._fail(job, planned, message, end)
        return False

    def _fail(self, job: Job, planned: PlannedRun, message: str, end: str = '') -> None:
        seconds = seconds_before(planned.run.work_dir, planned.fingerprint)
        self.failed.append((job, message))
        job.status = job.status or 1  # its time tells nothing of the others'
        outcome = Outcome(planned.run, 'failed', None, {}, seconds, message, self._conditions())
        write_result(planned, outcome, shlex.join(job.command))
        say(f'  FAILED {job.name}: {message}' + (f'\n  The end of {job.log}:\n{end}' * bool(end)))


def _check_work_dir(plan: Plan) -> None:
    """Refuse to mix runs that cannot be compared."""
    options, problems = plan.options, []
    record = read_json(options.work_dir / 'suite.json')
    if record and record['protocol'] != options.protocol:
        problems.append(
            f'{options.work_dir} holds runs of --protocol {record["protocol"]}; choose another '
            '--work-dir'
        )
    others = [planned for planned in plan.runs if belongs_elsewhere(planned)]
    if others and not options.redo:
        shown = ''.join(f'\n  {p.name}: {difference(p)}' for p in others[:4])
        more = f'\n  and {len(others) - 4} more' if len(others) > 4 else ''
        problems.append(
            f'{len(others)} run(s) in {options.work_dir} were made with another config or another '
            f'content of the checkpoint:{shown}{more}\nChoose another --work-dir or another '
            'label (label=FILE), or start them anew with --redo'
        )
    if problems:
        raise PlanError(problems)


def _more_memory(task: Task) -> str:
    return (
        'Out of GPU memory: give a run more GPUs by --gpus-per-run; what was run stays. Or, where '
        'the schedule counts epochs, split the batch by --cfg-options '
        f'{task.name}:optim_wrapper.accumulative_counts=2. Batch statistics are then of the parts, '
        f'so runs of {task.name} that have a checkpoint belong to another config: start them anew '
        'by --redo, or choose another --work-dir'
    )


def _reason(output: str) -> str:
    """The line of a log that says why it ended, as far as can be told."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # torchrun prints a summary behind the error of the process that failed.
    errors = [line for line in lines if re.match(r'[\w.]*(Error|Exception|Interrupt)\b', line)]
    return (errors or lines or ['it printed nothing'])[-1]


@contextmanager
def _only_suite(work_dir: Path) -> Iterator[None]:
    """Hold the lock of the folder; it ends with the process, however that ends."""

    def busy(process: str) -> SuiteError:
        return SuiteError(
            f'another suite works in {work_dir} (process {process}). Wait for it, or choose '
            'another --work-dir'
        )

    with file_lock(work_dir / 'suite.lock', busy):
        yield


def _signals_interrupt() -> AbstractContextManager[None]:
    """The first signal to end raises; more of them do not disturb the ending of the runs."""

    def interrupt(number: int) -> Interrupted:
        with suppress(OSError):  # SIGHUP: the terminal is gone
            say(f'\n{signal.Signals(number).name}: ending the runs ...')
        return Interrupted(number)

    return stopped_by_signals(_SIGNALS, interrupt)


__all__ = ['JobError', 'PlanError', 'SuiteError', 'outcomes_in', 'report', 'run_suite']
