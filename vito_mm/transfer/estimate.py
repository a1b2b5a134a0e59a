"""How long a transfer suite will take, and its plan as a table."""

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from vito_mm.utils.text import count_text, time_text

from .commands import srun_prefix
from .jobs import Job, run_jobs, say
from .options import parse_sweep
from .plan import Plan, significant
from .state import is_finished, read_json, write_json


def estimates(plan: Plan) -> dict[str, dict[str, float]]:
    """Timed steps of each task that has runs to do, from an earlier call where nothing changed.

    Args:
        plan (Plan): The runs; its ``seconds`` are set.

    Returns:
        dict[str, dict[str, float]]: What :func:`.timing.time_run` returned, by task.

    Raises:
        JobError: If the steps fail; the message shows the end of their log.
    """
    import torch

    options = plan.options
    file = options.work_dir / 'estimates.json'
    known = read_json(file) or {}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'
    found: dict[str, Any] = {}
    for name in plan.configs:
        todo = [p for p in plan.runs if p.run.task.name == name and not is_finished(p.run.work_dir)]
        if not todo:
            continue
        batch = todo[0].settings['train_dataloader.batch_size']
        cfg = plan.configs[name]
        loaders = [cfg[key] for key in ('train_dataloader', 'val_dataloader')]  # with its workers
        facts = [significant(cfg), loaders, batch, device, plan.threads]
        text = json.dumps(facts, sort_keys=True, default=str)
        key = f'{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}'
        if key not in known:
            say(f'Timing some steps of {name} ...')
            folder = options.work_dir / 'estimates' / name
            settings = todo[0].settings | {'model.backbone.checkpoint': 'None'}
            result = folder / 'result.json'
            words = ['-m', 'vito_mm.transfer.timing', str(todo[0].config)]
            words += ['--result', str(result.absolute()), '--started', f'{time.time()}']
            words += ['--cfg-options', *(f'{k}={v}' for k, v in settings.items())]
            job = Job(f'timing of {name}', [*srun_prefix(options), sys.executable, *words], folder)
            run_jobs([job], 1, plan.threads, plan.places[:1])
            known[key] = read_json(result)
            write_json(file, known)
        found[name] = known[key]
        plan.seconds[name] = known[key]['seconds']
    return found


def print_plan(plan: Plan, estimates: dict[str, dict[str, float]]) -> None:
    """Print the plan as a table, and how long it will take.

    Args:
        plan (Plan): The runs.
        estimates (dict[str, dict[str, float]]): What :func:`estimates` returned; may be empty.
    """
    options = plan.options
    for remark in plan.remarks:
        say(f'Note: {remark}')
    say(f'Transfer suite, protocol {options.protocol}, in {options.work_dir}')
    header = ['task', 'config', 'runs', 'finished', 'to do']
    header += ['one run', 'all'] if estimates else []
    rows, total = [header], 0.0
    for name, cfg in plan.configs.items():
        runs = [planned for planned in plan.runs if planned.run.task.name == name]
        finished = sum(is_finished(planned.run.work_dir) for planned in runs)
        todo = len(runs) - finished
        config = str(Path(cfg.filename or runs[0].config).relative_to(options.repo / 'configs'))
        times = ['-', '-'] if estimates else []
        if name in estimates:
            seconds = estimates[name]['seconds']
            times = [time_text(seconds), time_text(seconds * todo)]
            total += seconds * todo
        rows.append([name, config, *map(str, (len(runs), finished, todo)), *times])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say(f'  {"  ".join(cells)}'.rstrip())
    counts = [
        (len({p.run.label for p in plan.runs}), 'checkpoint'),
        (len(plan.configs), 'task'),
        (len({p.run.settings for p in plan.runs}), 'setting'),
        (options.seeds, 'seed'),
    ]
    grid = ' x '.join(count_text(*count) for count in counts)
    slots = len(plan.places)
    say(
        f'  {grid} = {count_text(len(plan.runs), "run")}, {slots} at a time, '
        f'{count_text(plan.threads, "thread")} each'
    )
    for name, batch in plan.batches.items():
        say(f'  {name}: {batch}')
    if sweep := parse_sweep(options.sweep):
        say('  sweep: ' + '; '.join(f'{name} = {", ".join(v)}' for name, v in sweep.items()))
    for name, found in estimates.items():
        evaluations = count_text(found['evaluations'], 'evaluation')
        say(
            f'  {name}: {found["steps"]} steps of {1000 * found["step"]:.0f} ms, '
            f'{evaluations} of {found["evaluation_steps"]} batches of '
            f'{1000 * found["evaluation_step"]:.0f} ms, start {found["start"]:.0f} s'
        )
    if estimates:
        longest = max(found['seconds'] for found in estimates.values())
        wall_clock = time_text(max(total / slots, longest))
        say(
            f'  ESTIMATE: {time_text(total)} in all, {wall_clock} with {slots} at a time. '
            'From a few steps alone on '
            + ('one GPU' if plan.places[0] or options.launcher == 'slurm' else 'this CPU')
            + '; what metrics and checkpoints take is not in it.'
        )
