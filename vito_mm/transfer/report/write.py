"""The report of a comparison: a CSV row per run, tables in Markdown, a page with pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vito_mm.transfer.run import Outcome
from vito_mm.transfer.tasks import ARCHITECTURES, TASKS
from vito_mm.utils.provenance import FACTS, conditions, fact_text
from vito_mm.utils.report import (
    Block,
    Code,
    Heading,
    Listing,
    Paragraph,
    Table,
    to_csv,
    write_document,
)
from vito_mm.utils.text import (
    count_text,
    first_few,
    mean_text,
    setting_text,
    time_text,
    without_machine,
)

from .cells import FEWER, INCOMPLETE, best_cell
from .comparison import RANDOM, Comparison, Point, comparisons_of, is_scored, labels
from .few_labels import few_labels_section
from .published import PUBLISHED, SOURCE
from .task_pictures import draw_task

_LINES_OF_MESSAGE = 30


def write_report(
    outcomes: list[Outcome],
    folder: Path,
    protocol: str,
    commands: Sequence[str],
    architecture: str = 'r50',
) -> Path:
    """Write ``report.csv``, ``report.md`` and ``report.html``; returns the path of the last.

    Broken, unfinished and removed runs are listed; ``commands`` are those of the user, in order.
    ``architecture`` is the one whose published figures are shown.
    """
    comparisons = comparisons_of(outcomes)
    count = len({comparison.task.base for comparison in comparisons})
    title = f'Transfer to {count_text(count, "task")}'
    if any(not comparison.task.config for comparison in comparisons):
        title += f', protocol {protocol}'
    blocks = [
        *_summary(comparisons, labels(outcomes)),
        *few_labels_section(comparisons),
        *_published(comparisons, protocol, architecture),
        *(block for comparison in comparisons for block in _task_section(comparison)),
        *_troubles(outcomes),
        *_conditions(outcomes, comparisons, protocol, commands),
    ]
    return write_document(folder, title, blocks, others={'report.csv': _csv(outcomes)})


def _csv(outcomes: Sequence[Outcome]) -> str:
    """Format all runs, with every digit."""
    fixed = ['task', 'checkpoint', 'seed', 'state', 'score', 'seconds', 'message']
    settings = list(dict.fromkeys(name for o in outcomes for name, _ in o.run.settings))
    metrics = sorted({name for outcome in outcomes for name in outcome.metrics})
    columns = {name: f'sweep.{name}' if name in fixed else name for name in settings}
    logged = {name: f'metric.{name}' if name in [*fixed, *settings] else name for name in metrics}
    header = [*fixed[:2], *columns.values(), *fixed[2:6], *logged.values(), fixed[6]]
    rows = [header]
    for outcome in outcomes:
        run = outcome.run
        line = dict(
            task=run.task.name,
            checkpoint=run.label,
            seed=run.seed,
            state=outcome.state,
            score='' if outcome.score is None else outcome.score,
            seconds=round(outcome.seconds, 1),
            message=without_machine(outcome.message),
        )
        line |= {columns[name]: value for name, value in run.settings}
        line |= {logged[name]: value for name, value in outcome.metrics.items()}
        rows.append([line.get(name, '') for name in header])
    return to_csv(rows)


def _summary(comparisons: Sequence[Comparison], every: Sequence[str]) -> list[Block]:
    # Parts of the labels have a table of their own.
    comparisons = [c for c in comparisons if c.task.labels == 100] or comparisons
    header = ['checkpoint', *(f'{c.task.title}, {c.task.label}' for c in comparisons)]
    rows = [[label, *(best_cell(c, label) for c in comparisons)] for label in every]
    swept = any(len(points) > 1 for c in comparisons for points in c.points.values())
    text = 'Percent; mean ± sample standard deviation over n runs with different seeds.'
    if any(comparison.best(RANDOM) for comparison in comparisons):
        text += ' With a sign: what the mean gains over random weights.'
    if swept:
        text += (
            ' Of a sweep the point with the highest mean is shown. It was chosen by the same '
            'validation scores, which favours checkpoints with more points.'
        )
    blocks = [Table(header, rows), Paragraph(text)]
    marks = ''.join(cell.text for row in rows for cell in row[1:])
    notes = []
    if FEWER in marks:
        notes.append(f'{FEWER} fewer runs than another point of the same task')
    if INCOMPLETE in marks:
        notes.append(f'{INCOMPLETE} some runs of this point failed or have not ended: see below')
    edges = {c.task.title: [label for label in every if c.edges(label)] for c in comparisons}
    if any(edges.values()):
        where = '; '.join(f'{task}: {", ".join(found)}' for task, found in edges.items() if found)
        notes.append(f'Widen the sweep, whose best point lies at its edge: {where}')
    return blocks + ([Listing(notes)] if notes else [])


def _published(comparisons: Sequence[Comparison], protocol: str, architecture: str) -> list[Block]:
    """Show the rows of the paper for its tasks, unless the protocol is that of MiniScenes."""
    tasks = [comparison.task for comparison in comparisons if comparison.task.name in TASKS]
    network = ARCHITECTURES[architecture]
    if protocol == 'miniscenes' or not tasks:
        return []
    header = ['method', 'data', 'epochs', *(f'{task.title}, {task.label}' for task in tasks)]
    rows = [
        [
            *(row.method, row.data or '-', str(row.epochs or '-')),
            *(f'{row.scores[task.name]:.1f}' for task in tasks),
        ]
        for row in PUBLISHED[architecture]
    ]
    if protocol == 'paper':
        caveat = (
            'Comparable with the runs above only as far as these used a '
            f'{network}, the real data sets in full, and the schedules of this protocol unchanged.'
        )
    else:
        caveat = (
            f'Not comparable with the runs above: protocol {protocol} has other heads and '
            'schedules. They only tell in which range numbers lie.'
        )
    means = ', means of five runs' if architecture == 'r50' else ''
    return [
        Heading(f'What the paper reports ({SOURCE})'),
        Paragraph(
            f'None of these numbers was measured here. {network}{means}; no deviations were '
            f'published. {caveat}'
        ),
        Table(header, rows, text=(0, 1)),
    ]


def _task_section(comparison: Comparison) -> list[Block]:
    task, names = comparison.task, comparison.setting_names
    header = ['checkpoint', *names, 'mean', 'deviation', 'n', 'single runs', *task.also, 'remark']
    rows, strong = [], []
    for label, points in comparison.points.items():
        best = comparison.best(label)
        for point in points:
            if point is best and len(points) > 1:
                strong.append(len(rows))
            settings = dict(point.settings)
            mean, deviation = mean_text(point.mean, point.deviation) if point.scores else ('-', '')
            rows.append(
                [
                    label,
                    *(setting_text(settings[n]) if n in settings else '-' for n in names),
                    *(mean, deviation or '-', str(len(point.scores))),
                    ', '.join(f'{score:.1f}' for score in point.scores) or '-',
                    *(_mean_of(point, metric, task.scale) for metric in task.also),
                    _remark(comparison, point, point is best and len(points) > 1),
                ]
            )
    edges = [
        f'{label}: widen the sweep, {"; ".join(remarks)}.'
        for label in comparison.points
        if (remarks := comparison.edges(label))
    ]
    return [
        Heading(f'{task.title}: {task.label}, %'),
        Table(header, rows, text=(0, len(names) + 4, len(header) - 1), strong=strong),
        *([Listing(edges)] if edges else []),
        *draw_task(comparison),
    ]


def _mean_of(point: Point, metric: str, scale: float) -> str:
    """Mean of a further metric over the runs that count, in percent."""
    values = [outcome.metrics[metric] for outcome in point.scored if metric in outcome.metrics]
    return f'{scale * np.mean(values):.1f}' if values else '-'


def _remark(comparison: Comparison, point: Point, best: bool) -> str:
    parts = []
    if best:
        edge = ', at the edge of the sweep' if comparison.edges(point.label) else ''
        parts.append(f'best{edge}')
    if comparison.fewer_seeds(point):
        parts.append(f'{FEWER} fewer runs')
    states = [o.state for o in point.outcomes if not is_scored(o)]
    for state in dict.fromkeys(states):
        words = 'without a score' if state == 'finished' else state
        parts.append(f'{INCOMPLETE} {states.count(state)} {words}')
    return '; '.join(parts)


def _troubles(outcomes: Sequence[Outcome]) -> list[Block]:
    """List the runs that do not count, with the reason."""
    blocks: list[Block] = []
    waiting = []
    for outcome in outcomes:
        if is_scored(outcome):
            continue
        if outcome.state == 'waiting' and not outcome.message:
            waiting.append(_name(outcome))
            continue
        state = 'finished without a score' if outcome.state == 'finished' else outcome.state
        blocks.append(Paragraph(f'{_name(outcome)}: {state} after {time_text(outcome.seconds)}.'))
        lines = without_machine(outcome.message).strip().splitlines()
        left_out = ['...'] if len(lines) > _LINES_OF_MESSAGE else []
        if lines:
            blocks.append(Code('\n'.join(left_out + lines[-_LINES_OF_MESSAGE:])))
    if waiting:
        blocks += [Paragraph('Have not ended:'), Listing(waiting)]
    return [Heading('Runs that do not count'), *blocks] if blocks else []


def _conditions(
    outcomes: Sequence[Outcome],
    comparisons: Sequence[Comparison],
    protocol: str,
    commands: Sequence[str],
) -> list[Block]:
    rows = []
    for task in (*(comparison.task for comparison in comparisons), None):
        runs = [outcome for outcome in outcomes if task in (None, outcome.run.task)]
        ended = [outcome.seconds for outcome in runs if outcome.state == 'finished']
        median = time_text(float(np.median(ended))) if ended and task else '-'
        total = time_text(sum(outcome.seconds for outcome in runs))
        finished = f'{len(ended)} of {len(runs)}'
        rows.append([task.title if task else 'all', finished, median, total])
    header = ['task', 'finished', 'median time of a run', 'time of all runs, added']
    return [
        Heading('Conditions'),
        Paragraph('Machine, versions and revision as each run recorded them when it ended.'),
        Listing([f'Protocol: {protocol}', *_facts(outcomes)]),
        Code('\n'.join(commands)),
        Table(header, rows),
    ]


def _facts(outcomes: Sequence[Outcome]) -> list[str]:
    """List machine, versions and revision: one line each, or one for each that differs."""
    ended = [outcome for outcome in outcomes if outcome.state != 'waiting']
    current = conditions()
    lines = []
    for key, title in FACTS.items():
        groups: dict[str, list[str]] = {}
        for outcome in ended:
            groups.setdefault(fact_text(outcome.conditions.get(key)), []).append(_name(outcome))
        for text, runs in (groups or {'': []}).items():
            named = f'{count_text(len(runs), "run")} ({first_few(runs, 3, "; ")})'
            where = f' of {named}' if len(groups) > 1 else ''
            now = f'not recorded; when this report was written: {fact_text(current[key])}'
            lines.append(f'{title}{where}: {text or now}')
    return lines


def _name(outcome: Outcome) -> str:
    run = outcome.run
    settings = ''.join(f', {name} {setting_text(value)}' for name, value in run.settings)
    return f'{run.task.title}, {run.label}{settings}, seed {run.seed}'
