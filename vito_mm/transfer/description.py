"""A plan in lines of text."""

import os
from collections.abc import Iterator, Mapping

from vito_mm.transfer.options import parse_sweep
from vito_mm.transfer.plan import Plan
from vito_mm.utils.text import count_text, time_text


def describe(plan: Plan, estimates: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Describe a plan in lines, with the times of :func:`.estimate.estimates` if there are any."""
    options = plan.options
    yield from (f'Note: {text}' for text in plan.warnings)
    yield f'Transfer suite, protocol {options.protocol}, in {options.work_dir}'
    header = ['task', 'config', 'runs', 'finished', 'to do']
    header += ['one run', 'all'] if estimates else []
    rows, total = [header], 0.0
    for name in plan.configs:
        runs = [run for run in plan.runs if run.task.name == name]
        finished = sum(run.is_finished for run in runs)
        todo = len(runs) - finished
        config = str(runs[0].config_file).removeprefix(f'{options.repo / "configs"}{os.sep}')
        times = ['-', '-'] if estimates else []
        if name in estimates:
            seconds = estimates[name]['seconds']
            times = [time_text(seconds), time_text(seconds * todo)]
            total += seconds * todo
        rows.append([name, config, *map(str, (len(runs), finished, todo)), *times])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f'  {"  ".join(cells)}'.rstrip()
    counts = [
        (len({run.label for run in plan.runs}), 'checkpoint'),
        (len(plan.configs), 'task'),
        (len({run.settings for run in plan.runs}), 'setting'),
        (options.seeds, 'seed'),
    ]
    grid, slots = ' x '.join(count_text(*count) for count in counts), len(plan.places)
    yield (
        f'  {grid} = {count_text(len(plan.runs), "run")}, {slots} at a time, '
        f'{count_text(plan.threads, "thread")} each'
    )
    yield from (f'  {name}: {batch}' for name, batch in plan.batches.items())
    if sweep := parse_sweep(options.sweep_words):
        yield '  sweep: ' + '; '.join(f'{name} = {", ".join(v)}' for name, v in sweep.items())
    for name, found in estimates.items():
        yield (
            f'  {name}: {found["steps"]} steps of {1000 * found["step"]:.0f} ms, '
            f'{count_text(found["evaluations"], "evaluation")} of {found["evaluation_steps"]} '
            f'batches of {1000 * found["evaluation_step"]:.0f} ms, start {found["start"]:.0f} s'
        )
    if estimates:
        longest = max(found['seconds'] for found in estimates.values())
        where = 'one GPU' if plan.places[0] or options.launcher == 'slurm' else 'this CPU'
        yield (
            f'  ESTIMATE: {time_text(total)} in all, {time_text(max(total / slots, longest))} with '
            f'{slots} at a time. From a few steps alone on {where}; what metrics and checkpoints '
            'take is not in it.'
        )
