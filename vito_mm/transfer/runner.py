"""Execution of a transfer suite: many fine-tuning runs through the stock runners."""

import re
import shutil
import signal
import uuid
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vito_mm.transfer.checks import peak_bytes
from vito_mm.transfer.description import describe
from vito_mm.transfer.identity import LOADERS
from vito_mm.transfer.jobs import Job, JobError, await_end, run_jobs, say
from vito_mm.transfer.options import SuiteOptions
from vito_mm.transfer.plan import Plan, PlanError, make_plan
from vito_mm.transfer.report.data_identity import identify_data_sets
from vito_mm.transfer.run import Outcome, Run, runs_in
from vito_mm.transfer.run_folder import last_checkpoint, read_json
from vito_mm.utils.atomic import write_json
from vito_mm.utils.file_lock import file_lock
from vito_mm.utils.provenance import conditions
from vito_mm.utils.text import count_text, reason_text, time_text
from vito_mm.utils.worker_pool import stopped_by_signals

_NO_SPACE = ('No space left on device', 'Errno 28', 'ENOSPC')
_NO_MEMORY = ('CUDA out of memory', 'torch.OutOfMemoryError', 'torch.cuda.OutOfMemoryError')
_SHOWN_LINES = 15
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SuiteError(RuntimeError):
    """The suite cannot go on; the message says why and what to do."""


class Interrupted(BaseException):
    """A signal to end; its only argument is the signal."""


def run_suite(
    options: SuiteOptions, command: str, dry_run: bool = False, estimate: bool = True
) -> int:
    """Fill the transfer table: plan, run what is not there yet, report.

    A run that crashes is resumed once; if it crashes again it has failed, and the others go on.
    One that ran out of GPU memory has failed at once. So has one whose loss is not
    finite if it crashes, since the same seed would come to the same; if it ends well it counts with
    what was measured, with a note. Runs that fail, and those that a full disk or a signal stops,
    are tried again by the next call.

    Args:
        options (SuiteOptions): Runs, and how they are started.
        command (str): The command line, for the report and the messages.
        dry_run (bool): Stop after the plan. Defaults to False.
        estimate (bool): Time some steps of each task first. Defaults to True.

    Returns:
        int: Exit status: 0 if every run has finished, 1 if not, 128 and the signal's number if one
        ended the suite.

    Raises:
        PlanError: If anything is wrong that can be found beforehand; nothing was started.
        SuiteError: If another suite works in the folder.
        JobError: If the timed steps fail, or an orphan of an earlier call cannot be ended.
    """

    def busy(process: str) -> SuiteError:
        return SuiteError(
            f'another suite works in {options.work_dir} (process {process}). Wait for it, or '
            'choose another --work-dir'
        )

    try:
        with _signals_interrupt():
            plan = make_plan(options)
            if dry_run and not estimate:
                say('\n'.join(describe(plan, {})))
                return 0
            options.work_dir.mkdir(parents=True, exist_ok=True)
            with file_lock(options.work_dir / 'suite.lock', busy):
                found = {}
                if estimate:
                    from vito_mm.transfer.estimate import estimates

                    found = estimates(plan)
                say('\n'.join(describe(plan, found)))
                return 0 if dry_run else _run(plan, found, command)
    except Interrupted as interrupt:
        return 128 + interrupt.args[0]


def report(work_dir: Path, plan: Plan | None = None) -> Path:
    """Write the report of all runs of a suite, those of ``plan`` first.

    Raises:
        SuiteError: If there is no suite in the folder.
    """
    from vito_mm.transfer.report.write import write_report

    record = read_json(work_dir / 'suite.json')
    if record is None:
        raise SuiteError(f'there is no transfer suite in {work_dir} yet')
    outcomes = outcomes_in(work_dir, plan)
    page = write_report(
        *(outcomes, work_dir, record['protocol'], record['commands']),
        record.get('architecture') or 'r50',
    )
    say(f'\nReport: {page}')
    return page


def outcomes_in(work_dir: Path, plan: Plan | None = None) -> list[Outcome]:
    """Read the state of all runs of a suite; runs that were not started are waiting."""
    return [run.status() for run in runs_in(work_dir, plan.runs if plan else ())]


def _run(plan: Plan, found: dict[str, dict[str, float]], command: str) -> int:
    """Run a plan and report; returns the exit status."""
    _note_plan(plan, command)
    suite = _Suite(plan, found, command)
    status = suite.run()
    try:
        report(plan.options.work_dir, plan)
    except Exception as error:  # whatever it is, the state of the runs is printed all the same
        reason = f'{type(error).__name__}: {error}'
        say(f'The report cannot be written: {reason}. Once that is mended: --report-only')
        status = status or 1
    finally:
        suite.print_end()
    return status


def _note_plan(plan: Plan, command: str) -> None:
    """Add to ``suite.json`` identity, protocol, command and runs."""
    work_dir = plan.options.work_dir
    record = read_json(work_dir / 'suite.json') or {}
    runs = {entry['folder']: entry for entry in record.get('runs', [])}
    for run in plan.runs:
        place = str(run.work_dir.relative_to(work_dir))
        runs[place] = dict(folder=place, **run.record())
    content = dict(
        id=record.get('id') or uuid.uuid4().hex,  # stays where the folder moves
        protocol=plan.options.protocol,
        architecture=plan.architecture or record.get('architecture', ''),
        commands=list(dict.fromkeys([*record.get('commands', []), command])),
        runs=list(runs.values()),
    )
    write_json(work_dir / 'suite.json', content, default=str)


class _Suite:
    """Runs a plan."""

    def __init__(self, plan: Plan, found: dict[str, dict[str, float]], command: str) -> None:
        self.plan, self.found, self.command = plan, found, command
        self.options = plan.options
        self.runs: dict[Job, Run] = {}
        self.crashed: set[Job] = set()
        self.testing: set[Job] = set()
        self.failed: list[tuple[Job, str]] = []
        self.stopped = ''
        self.peak = peak_bytes(plan.run_bytes)

    def run(self) -> int:
        """Run what is not finished; returns the exit status."""
        for run in self.plan.runs:
            if run.belongs_elsewhere():  # and --redo was given
                await_end(run.work_dir, run.name)
                shutil.rmtree(run.work_dir)
            if run.is_finished:
                run.finish_shrinking()
                continue
            job = Job(
                *(run.name, run.command(self.options), run.work_dir, run.max_epochs),
                kind=run.task.name,
                expected=self.found.get(run.task.name, {}).get('seconds'),
                environment=self.options.environment(),
            )
            self.runs[job] = run
        if not self.runs:
            say('Every run has finished already.')
            return 0
        places = self.plan.places
        say(f'{count_text(len(self.runs), "run")} to do, {len(places)} at a time')
        try:
            with _signals_interrupt():
                run_jobs(
                    *(list(self.runs), len(places), self.plan.threads, places),
                    on_start=lambda job: self.runs[job].note_start(self.options, job.command),
                    on_end=self._ended,
                    may_start=self._has_room,
                )
        except Interrupted as interrupt:
            number = interrupt.args[0]
            self.stopped = f'ended by {signal.Signals(number).name}'
            return 128 + number
        return 1 if self.stopped or self.failed else 0

    def print_end(self) -> None:
        """Print the state of the suite and the command that goes on."""
        left = sum(not run.is_finished for run in self.plan.runs)
        say(f'{len(self.plan.runs) - left} of {count_text(len(self.plan.runs), "run")} finished.')
        for job, message in self.failed:
            say(f'FAILED {job.name}: {message.splitlines()[0]}\n  log: {job.log}')
        if self.stopped:
            say(f'STOPPED: {self.stopped}. Nothing that was finished is lost.')
        if left:
            say(f'To go on, give the same command again:\n  {self.command}')

    def _has_room(self, job: Job) -> bool:
        """Whether a run fits on the disk, with what it has there already."""
        free = shutil.disk_usage(self.options.work_dir).free + self.runs[job].saved_bytes()
        if not self.stopped and free < self.peak:
            self.stopped = (
                f'the disk of {self.options.work_dir} has {free / 1e9:.2f} GB left, and a run '
                f'needs {self.peak / 1e9:.2f} GB: make room'
            )
            say(f'{self.stopped}. No more runs are started.')
        return not self.stopped

    def _ended(self, job: Job, status: int) -> bool:
        """Note the end of a run; returns whether it is started again."""
        try:
            return self._crash(job, status) if status else self._finish(job)
        except OSError as error:
            # The run itself is complete: the next call finds that it has nothing left to train.
            self.stopped = f'the result of {job.name} cannot be written ({error}): make room'
            say(self.stopped)
            return False

    def _finish(self, job: Job) -> bool:
        run = self.runs[job]
        task = run.task
        found = run.scores(job.tail(), tested=job in self.testing)
        checkpoint = last_checkpoint(run.work_dir)
        if found is None:
            if job in self.testing or checkpoint is None:
                self._fail(job, f'it ended well, but logged no {task.metric}')
                return False
            # It was killed while it evaluated, and resuming from the end evaluates nothing.
            self.testing.add(job)
            job.command = run.command(self.options, evaluate=checkpoint)
            return True
        metrics, note = found
        score = metrics[task.metric] * task.scale
        if not 0 <= score <= 100:
            no_instance = 'the validation data has no instance to measure it on'
            reason = no_instance if score < 0 else 'the model does not compute finite numbers'
            self._fail(job, f'{task.metric} is {metrics[task.metric]}: {reason}')
            return False
        if step := run.diverged_at():
            note = f'{note}; ' * bool(note) + f'the loss was not finite from step {step} on'
        seconds = run.seconds()
        known = seconds, note, self._conditions(), self._data(run)
        outcome = Outcome(run, 'finished', score, metrics, *known)
        try:
            run.write_without_optimizer()
        except (OSError, RuntimeError) as error:
            say(f'  {run.work_dir}: the checkpoint keeps its optimizer, {error}')
        run.note_end(outcome, job.command, checkpoint=checkpoint)
        run.finish_shrinking()
        remark = f' ({note})' if note else ''
        say(f'  {job.name}: {task.label} {score:.2f} after {time_text(seconds)}{remark}')
        return False

    def _data(self, run: Run) -> dict[str, str] | None:
        """Identity of the data of a run, which may be gone when a report asks for it."""
        try:
            cfg = run.config()
            return asdict(identify_data_sets(*(cfg[loader].dataset for loader in LOADERS)))
        except Exception as error:  # whatever a data set of the user may be; the report tries again
            say(f'  {run.name}: the identity of its data is not recorded, {reason_text(error)}')
            return None

    def _conditions(self) -> dict[str, Any]:
        if self.options.launcher != 'slurm':
            return conditions()
        return conditions(f'chosen by Slurm, partition {self.options.partition}')  # not this one

    def _crash(self, job: Job, status: int) -> bool:
        lines = job.tail().splitlines()[-_SHOWN_LINES:]
        end = '\n'.join(f'    {line}' for line in lines)
        how = f'signal {signal.Signals(-status).name}' if status < 0 else f'status {status}'
        free = shutil.disk_usage(self.options.work_dir).free
        full = [line.strip() for line in lines if any(text in line for text in _NO_SPACE)]
        # A checkpoint that did not fit is removed, so more may be free by now than was then.
        room = free + self.runs[job].saved_bytes()
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
        # The same seed would come to the same end, and the same batch would meet the same limit.
        if step := self.runs[job].diverged_at():
            message = f'the loss was not finite from step {step} on, and {message}. Lower lr'
        elif any(text in job.tail() for text in _NO_MEMORY):
            message = f'{message}. {_more_memory(self.runs[job].task.base)}'
        elif job not in self.crashed:
            self.crashed.add(job)
            say(f'  {job.name} ended with {how}, it is resumed once. The end of {job.log}:\n{end}')
            return True
        self._fail(job, message, end)
        return False

    def _fail(self, job: Job, message: str, end: str = '') -> None:
        run = self.runs[job]
        self.failed.append((job, message))
        job.status = job.status or 1  # its time tells nothing of the others'
        facts = self._conditions()
        outcome = Outcome(run, 'failed', None, {}, run.seconds(), message, facts)
        run.note_end(outcome, job.command)
        say(f'  FAILED {job.name}: {message}' + (f'\n  The end of {job.log}:\n{end}' * bool(end)))


def _more_memory(task: str) -> str:
    return (
        'Out of GPU memory: give a run more GPUs by --gpus-per-run; what was run stays. Or, where '
        'the schedule counts epochs, split the batch by --cfg-options '
        f'{task}:optim_wrapper.accumulative_counts=2. Batch statistics are then of the parts, so '
        f'runs of {task} that have a checkpoint belong to another config: start them again by '
        '--redo, or choose another --work-dir'
    )


def _reason(output: str) -> str:
    """The line of a log that most likely says why it ended."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # torchrun prints a summary behind the error of the process that failed.
    errors = [line for line in lines if re.match(r'[\w.]*(Error|Exception|Interrupt)\b', line)]
    return (errors or lines or ['it printed nothing'])[-1]


def _signals_interrupt() -> AbstractContextManager[None]:
    """The first signal to end raises; more of them do not disturb the ending of the runs."""

    def interrupt(number: int) -> Interrupted:
        with suppress(OSError):  # SIGHUP: the terminal is gone
            say(f'\n{signal.Signals(number).name}: ending the runs ...')
        return Interrupted(number)

    return stopped_by_signals(_SIGNALS, interrupt)


__all__ = ['JobError', 'PlanError', 'SuiteError', 'outcomes_in', 'report', 'run_suite']
