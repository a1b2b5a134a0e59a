"""What a transfer suite leaves on the disk, and what can be told from it.

``suite.json``: protocol, commands and runs of all calls. In the folder of each run ``run.json``:
what the run is and how it is started, written at every start; and ``result.json``: what became of
it, written once, when it has finished or failed.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vito_mm.transfer.run_folder import dumped_config, last_checkpoint, scalars
from vito_mm.transfer.tasks import TASKS, Outcome, Run
from vito_mm.utils.atomic import written_aside

from .plan import Plan, PlannedRun, significant

NO_BOX = 'The testing results of the whole dataset is empty'
"""What mmdet logs in the place of a metric when not a single box was found."""

_NO_METRICS = {'step', 'iter', 'epoch', 'time', 'data_time', 'memory', 'lr', 'base_lr'}


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a file that is whole or not there.

    Args:
        file (Path): File.
        content (Mapping): What it gets.
    """
    with written_aside(file) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1, default=str) + '\n')


def read_json(file: Path) -> dict[str, Any] | None:
    """Read what :func:`write_json` wrote.

    Args:
        file (Path): File.

    Returns:
        dict, optional: The content; None if the file is not there or was not written by it.
    """
    try:
        content = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    return content if isinstance(content, dict) else None


def note_plan(plan: Plan, command: str) -> None:
    """Write down what is planned, beside what earlier commands planned in the same folder.

    Args:
        plan (Plan): The runs.
        command (str): The command line.
    """
    file = plan.options.work_dir / 'suite.json'
    record = read_json(file) or {}
    runs = {entry['folder']: entry for entry in record.get('runs', [])}
    for run in (planned.run for planned in plan.runs):
        place = str(run.work_dir.relative_to(plan.options.work_dir))
        runs[place] = dict(folder=place, **_description(run))
    content = dict(
        protocol=plan.options.protocol,
        commands=list(dict.fromkeys([*record.get('commands', []), command])),
        runs=list(runs.values()),
    )
    write_json(file, content)


def planned_runs(work_dir: Path) -> list[Run]:
    """All runs that any command planned in a folder.

    Args:
        work_dir (Path): Folder of the suite.

    Returns:
        list[Run]: In the order in which they were planned; empty where it was not written down.
    """
    entries = (read_json(work_dir / 'suite.json') or {}).get('runs', [])
    return [_run(e, work_dir / e['folder']) for e in entries if e['task'] in TASKS]


def is_finished(folder: Path) -> bool:
    """Whether the run of a folder has its result. One that failed has not."""
    return (read_json(folder / 'result.json') or {}).get('state') == 'finished'


def belongs_elsewhere(planned: PlannedRun) -> bool:
    """Whether a run's folder holds results of another config or checkpoint.

    A folder where no checkpoint was written yet has nothing to lose.

    Args:
        planned (PlannedRun): The run that is wanted.

    Returns:
        bool: Whether what is there would be mixed up with it.
    """
    folder = planned.run.work_dir
    record = read_json(folder / 'run.json')
    worth_keeping = is_finished(folder) or any(folder.glob('*.pth'))
    return worth_keeping and (record or {}).get('fingerprint') != planned.fingerprint


def difference(planned: PlannedRun) -> str:
    """How a run's folder differs from what is wanted, for people.

    Args:
        planned (PlannedRun): The run that is wanted.

    Returns:
        str: The checkpoint, or some keys of the config with their values there and here.
    """
    folder = planned.run.work_dir
    record = read_json(folder / 'run.json') or {}
    if record.get('checkpoint_sha256') != planned.checkpoint_sha256:
        return f'{record.get("checkpoint") or "random weights"} had another content'
    try:
        there = dict(_flat(significant(dumped_config(folder))))
    except Exception:  # any config file of a broken run; it only explains a refusal
        return 'another config'
    here = dict(_flat(planned.identity))
    keys = [key for key in there | here if there.get(key) != here.get(key)]
    shown = ', '.join(f'{key} {there.get(key)} -> {here.get(key)}' for key in keys[:3])
    return (shown or 'another config') + (f' and {len(keys) - 3} more' if len(keys) > 3 else '')


def note_start(planned: PlannedRun, protocol: str, command: str) -> None:
    """Write down what is started.

    Args:
        planned (PlannedRun): The run.
        protocol (str): Its protocol.
        command (str): The command, as a user would type it.
    """
    run = planned.run
    seconds = seconds_before(run.work_dir, planned.fingerprint)
    (run.work_dir / 'result.json').unlink(missing_ok=True)  # a failure that is tried again
    content = dict(
        **_description(run),
        protocol=protocol,
        fingerprint=planned.fingerprint,
        checkpoint_sha256=planned.checkpoint_sha256,
        command=command,
        folder=os.getcwd(),
        seconds=seconds,
        started=time.time(),
    )
    write_json(run.work_dir / 'run.json', content)


def seconds_before(folder: Path, fingerprint: str) -> float:
    """How long earlier starts of a run took, those that were killed included.

    Args:
        folder (Path): Folder of the run.
        fingerprint (str): Hash of the run that is meant.

    Returns:
        float: Seconds.
    """
    record = read_json(folder / 'run.json') or {}
    log = folder / 'console.log'
    if record.get('fingerprint') != fingerprint or not log.exists():
        return 0.0
    return record['seconds'] + max(0.0, log.stat().st_mtime - record['started'])


def outcome_of(folder: Path) -> Outcome | None:
    """What became of a run, told from its folder alone.

    Args:
        folder (Path): Folder of the run.

    Returns:
        Outcome, optional: The outcome; None if no run was started there.
    """
    record = read_json(folder / 'run.json')
    if record is None or record['task'] not in TASKS:
        return None
    result = read_json(folder / 'result.json') or dict(state='waiting')
    keys = ('state', 'score', 'metrics', 'seconds', 'message')
    known = {key: result[key] for key in keys if key in result}
    facts = {key: result[key] for key in ('machine', 'versions', 'git') if key in result}
    return Outcome(_run(record, folder), **known, conditions=facts)


def write_result(planned: PlannedRun, outcome: Outcome, command: str, **more: Any) -> None:
    """Write what became of a run, and what it was.

    Args:
        planned (PlannedRun): The run.
        outcome (Outcome): What became of it.
        command (str): The command.
        **more: Further entries.
    """
    content = dict(
        state=outcome.state,
        score=outcome.score,
        metrics=outcome.metrics,
        seconds=round(outcome.seconds, 1),
        message=outcome.message,
        fingerprint=planned.fingerprint,
        command=command,
        folder=os.getcwd(),
        **outcome.conditions,
    )
    write_json(planned.run.work_dir / 'result.json', content | more)


def final_metrics(folder: Path, metric: str, output: str) -> tuple[dict[str, float], str] | None:
    """What the evaluation at the end of a run logged.

    Args:
        folder (Path): Folder of the run.
        metric (str): Name of the metric.
        output (str): End of what the run printed.

    Returns:
        tuple[dict[str, float], str], optional: Metrics and a note; None if there was no evaluation
        after the last training step: a run that was killed while it evaluated has its last
        checkpoint, and does not evaluate when it is resumed from there.
    """
    lines = scalars(folder)
    last = next((i for i in reversed(range(len(lines))) if metric in lines[i]), -1)
    trained = next((i for i in reversed(range(len(lines))) if 'loss' in lines[i]), -1)
    if last > trained:
        return _numbers(lines[last]), ''
    position = output.rfind(NO_BOX)
    if position > max(output.rfind('Iter(train)'), output.rfind('Epoch(train)')):
        return {metric: 0.0}, 'not a single box was found, which counts as 0'
    return None


def tested_metrics(folder: Path, metric: str, output: str) -> tuple[dict[str, float], str] | None:
    """What the latest ``tools/test.py`` logged.

    Args:
        folder (Path): Folder of the run.
        metric (str): Name of the metric.
        output (str): End of what it printed.

    Returns:
        tuple[dict[str, float], str], optional: Metrics and a note; None if there are none.
    """
    files = sorted(file for file in folder.glob('*/*.json') if file.stem == file.parent.name)
    if files and metric in (found := read_json(files[-1]) or {}):
        return _numbers(found), ''
    if NO_BOX in output:
        return {metric: 0.0}, 'not a single box was found, which counts as 0'
    return None


def diverged_at(folder: Path) -> int | None:
    """The first logged step from which on no loss was finite; None if the last one was."""
    step = None
    for line in reversed(scalars(folder)):
        if 'loss' in line:
            if math.isfinite(line['loss']):
                break
            step = line['step']
    return step


def write_without_optimizer(folder: Path) -> tuple[Path, Path] | None:
    """Write the last checkpoint without what only resuming needs, beside it.

    Args:
        folder (Path): Folder of the run.

    Returns:
        tuple[Path, Path], optional: The small file and the one that it is to replace; None if there
        is none.

    Raises:
        OSError | RuntimeError: If it cannot be written.
    """
    import torch

    file = last_checkpoint(folder)
    if file is None:
        return None
    # Written by this run itself; MMEngine's history of the losses is no plain tensor.
    content = torch.load(file, map_location='cpu', weights_only=False, mmap=True)
    small = small_name(file)
    try:
        torch.save({key: content[key] for key in ('meta', 'state_dict')}, small)
    except BaseException:
        small.unlink(missing_ok=True)
        raise
    return small, file


def small_name(file: Path) -> Path:
    """Name of a checkpoint without optimizer before it takes the place of the whole one."""
    return file.with_name(f'{file.name}.small')


def finish_shrinking(folder: Path) -> None:
    """Do what a kill between result and renaming has left to do."""
    for small in folder.glob('*.pth.small'):
        os.replace(small, small.with_suffix(''))


def _description(run: Run) -> dict[str, Any]:
    return dict(
        task=run.task.name,
        label=run.label,
        checkpoint=run.checkpoint and str(run.checkpoint.absolute()),
        settings=run.settings,
        seed=run.seed,
    )


def _run(record: Mapping[str, Any], folder: Path) -> Run:
    """What :func:`_description` described."""
    return Run(
        TASKS[record['task']],
        record['label'],
        record['checkpoint'] and Path(record['checkpoint']),
        tuple((name, value) for name, value in record['settings']),
        record['seed'],
        folder,
    )


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: value
        for key, value in line.items()
        if isinstance(value, (int, float)) and key not in _NO_METRICS
    }


def _flat(node: Any, key: str = '') -> Iterator[tuple[str, Any]]:
    """Values of a config by key with dots; tuples and lists are alike."""
    if isinstance(node, (Mapping, list, tuple)):
        pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
        for name, value in pairs:
            yield from _flat(value, f'{key}.{name}'.lstrip('.'))
    else:
        yield key, node
