"""The report of a study: tables, the orderings of the paper, plots and conditions."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from vito_mm.transfer.report.comparison import is_scored
from vito_mm.transfer.tasks import RANDOM, TASKS
from vito_mm.utils.provenance import conditions_text
from vito_mm.utils.report import (
    Block,
    Cell,
    Code,
    Heading,
    Listing,
    Paragraph,
    Picture,
    Table,
    to_csv,
    write_document,
)
from vito_mm.utils.text import mean_text
from vito_mm.visualization.curves import RANDOM_COLOUR, RUN_COLOURS, to_png

from .objects import ATTENTION
from .rows import ORDERINGS, ROWS, Ordering
from .runs import FROZEN_RANDOM, MODES, Study, StudyError, probes_of, record_of, transfers_of

Scores = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Percent by column, row and seed."""

_PROBES = dict(
    knn='kNN',
    linear='linear',
    knn_own="kNN by the row's pooling",
    knn_object='kNN over the object',
    davis='DAVIS layout J&F',
    in_context='in-context mIoU',
)
_LEVEL = 0.05
"""Chance, without any difference, of a verdict other than ``'open'``."""

_CAPTIONS = {
    'probes.png': 'Frozen features on the probe images: each seed, and their mean.',
    'transfer.png': 'Transfer to the four tasks: each seed, and their mean.',
}


def read_scores(files: Sequence[Path]) -> list[tuple[str, str, int, float]]:
    """Read ``report.csv`` files: column, row, seed and percent of each score.

    Raises:
        StudyError: If a file is missing, or is no such table.
    """
    found = []
    for file in files:
        try:
            for line in csv.DictReader(file.read_text().splitlines()):
                score = int(line['seed']), float(line['percent'])
                found.append((line['column'], line['row'], *score))
        except (OSError, KeyError, ValueError) as error:
            raise StudyError(f'{file} is no report.csv of a study ({error})') from None
    return found


def scores_of(
    study: Study, others: Sequence[tuple[str, str, int, float]] = ()
) -> dict[str, dict[str, dict[int, float]]]:
    """Collect all scores by column of the table, row and seed, in percent.

    Args:
        study (Study): The study.
        others (Sequence[tuple]): Scores of the same study with other seeds, see
            :func:`read_scores`.

    Returns:
        dict: Columns are ``'kNN'``, ``'linear'``, and for each task and treatment of the backbone
        such as ``'PASCAL VOC, frozen'``; also shares of attention.

    Raises:
        StudyError: If one of ``others`` has a score of a seed that this study has as well.
    """
    found: dict[str, dict[str, dict[int, float]]] = {}

    def add(column: str, row: str, seed: int, percent: float) -> None:
        found.setdefault(column, {}).setdefault(row, {})[seed] = percent

    for row, seeds in probes_of(study).items():
        for seed, probe in seeds.items():
            for key, percent in probe.items():
                add(_PROBES.get(key, key), row, seed, percent)
    for mode, outcomes in transfers_of(study).items():
        for task in TASKS.values():
            for outcome in outcomes:
                run = outcome.run
                if run.task.name == task.name and is_scored(outcome):
                    row = RANDOM if run.label == FROZEN_RANDOM else run.label
                    add(f'{task.title}, {mode}', row, run.seed, outcome.score)
    for column, row, seed, percent in others:
        if seed in found.get(column, {}).get(row, {}):
            raise StudyError(f'--others has seed {seed} of {row} again: choose other seeds')
        add(column, row, seed, percent)
    return found


class Difference(NamedTuple):
    """A paired difference of two rows.

    Attributes:
        mean (float): Mean over the seeds.
        error (float, optional): Its standard error; None below three seeds.
        seeds (int): Number of seeds.
    """

    mean: float
    error: float | None
    seeds: int

    @property
    def verdict(self) -> str:
        """``'yes'``, ``'reversed'`` or ``'open'`` by a two-sided paired t-test at 5 %.

        Below three seeds it is ``'open'``.
        """
        if self.error is None:
            return 'open'
        # By Student's t: with three seeds it takes 4.3 standard errors, with five 2.8.
        if abs(self.mean) <= stats.t.isf(_LEVEL / 2, self.seeds - 1) * self.error:
            return 'open'
        return 'yes' if self.mean > 0 else 'reversed'


def difference(better: Mapping[int, float], worse: Mapping[int, float]) -> Difference | None:
    """Compute the mean difference over common seeds and its standard error.

    Args:
        better (Mapping[int, float]): Scores by seed.
        worse (Mapping[int, float]): Scores by seed.

    Returns:
        Difference, optional: None without any seed in common.
    """
    gains = [better[seed] - worse[seed] for seed in sorted(better.keys() & worse.keys())]
    if not gains:
        return None
    # Two seeds that happen to agree would look certain.
    error = float(np.std(gains, ddof=1)) / math.sqrt(len(gains)) if len(gains) > 2 else None
    return Difference(float(np.mean(gains)), error, len(gains))


def write_report(study: Study, others: Sequence[tuple[str, str, int, float]] = ()) -> Path:
    """Write ``report.html``, ``report.md``, ``report.csv`` and the plots of what is there.

    Args:
        study (Study): The study.
        others (Sequence[tuple]): Scores of the same study with other seeds, which count too.

    Returns:
        Path: The page.

    Raises:
        StudyError: If nothing was run in the folder, or a seed was run twice.
    """
    record = record_of(study)
    scores = scores_of(study, others)
    plots = {'probes.png': draw(scores, [*_PROBES.values()])}
    if transferred := _transferred(scores):
        plots['transfer.png'] = draw(scores, transferred)
    title = 'The study: which part of VITO does what on MiniScenes'
    blocks = _document(study, scores, record, plots)
    return write_document(
        study.work_dir, title, blocks, others={'report.csv': _csv(scores), **plots}
    )


def _csv(scores: Scores) -> str:
    lines = [
        [column, row, seed, value]
        for column, rows in scores.items()
        for row, seeds in rows.items()
        for seed, value in sorted(seeds.items())
    ]
    return to_csv([['column', 'row', 'seed', 'percent'], *lines])


def _document(
    study: Study, scores: Scores, record: dict, plots: Mapping[str, bytes]
) -> list[Block]:
    rows = [row for row in ROWS if any(row in column for column in scores.values())]
    blocks: list[Block] = [
        Paragraph(
            'Percent, mean ± sample standard deviation over seeds; each seed is a pre-training of '
            'its own and a transfer of its own. All rows take the same number of steps, clips and '
            'views. Probes and tasks are those of MiniScenes: nothing here is a figure on '
            'photographs.'
        ),
        _table(rows, [name for name in _PROBES.values() if name in scores], scores),
        *_attention(scores),
    ]
    columns = _transferred(scores)
    main = [row for row in rows if any(row in scores[name] for name in columns)]
    for mode in dict.fromkeys(name.rpartition(', ')[2] for name in columns):
        of_mode = [name for name in columns if name.endswith(f', {mode}')]
        blocks += [Heading(f'Transfer, {mode} backbone'), _table(main, of_mode, scores)]
    configs = [row for row in rows if row != RANDOM and study.config(row).is_file()]
    return [
        *blocks,
        Heading('Orderings of the paper'),
        Paragraph(
            'Mean difference of the same seeds ± its standard error. An ordering shows ("yes") or '
            'is reversed where a two-sided paired t-test tells it from zero at 5 %; else, and '
            'below three seeds, it is open. In a table of many cells one in twenty shows by chance.'
        ),
        _orderings(scores),
        *(Picture(png, _CAPTIONS[name]) for name, png in plots.items()),
        Heading('Conditions'),
        Listing(
            [
                f'MiniScenes, preset {study.preset.world}; {study.preset.base} as base',
                *conditions_text(record),
            ]
        ),
        Paragraph('The complete config of each row, to be trained by tools/train.py:'),
        Listing([f'{row}: {ROWS[row].title}; configs/{row}.py' for row in configs]),
        Code('\n'.join(record['commands'])),
    ]


def _transferred(scores: Scores) -> list[str]:
    """Columns of the transfer suite."""
    return [name for name in scores if name.rpartition(', ')[2] in MODES]


def _attention(scores: Scores) -> list[Block]:
    """Share of the attention on the object, by row, stage and step, if it was measured."""
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    for name in (name for name in scores if name.startswith(ATTENTION)):
        stage, _, step = name.removeprefix(ATTENTION).partition(', step ')
        for row, shares in scores[name].items():
            found.setdefault((row, stage), {})[int(step)] = [*shares.values()]
    if not found:
        return []
    steps = sorted({step for shares in found.values() for step in shares})
    lines = [
        [ROWS[row].title, stage, *(_mean_cell(shares[step]) for step in steps)]
        for (row, stage), shares in sorted(found.items(), key=lambda one: _place(*one[0]))
    ]
    return [
        Heading('Attention on the object'),
        Paragraph(
            'Percent of the attention on the object, over the probe images, by step of '
            'pre-training; mean mask: of the mean over the images, as if all had the same.'
        ),
        Table(['row', 'scale', *(f'step {step}' for step in steps)], lines, text=(0, 1)),
    ]


def _place(row: str, stage: str) -> tuple[int, str]:
    return [*ROWS].index(row), stage


def _table(rows: Sequence[str], columns: Sequence[str], scores: Scores) -> Table:
    lines = []
    for row in rows:
        cells: list[str | Cell] = [ROWS[row].title]
        for column in columns:
            values = list(scores.get(column, {}).get(row, {}).values())
            cells.append(_mean_cell(values) if values else '-')
        lines.append(cells)
    return Table(['row', *(name.rpartition(', ')[0] or name for name in columns)], lines)


def _mean_cell(values: Sequence[float]) -> Cell:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    mean, spread = mean_text(float(np.mean(values)), deviation)
    return Cell(f'{mean} ± {spread}' if spread else mean, f'n = {len(values)}')


def _orderings(scores: Scores) -> Table:
    shown = [*_PROBES.values(), *_transferred(scores)]
    columns = [name for name in shown if any(_gain(o, scores.get(name, {})) for o in ORDERINGS)]
    lines = []
    for ordering in ORDERINGS:
        gains = [_gain(ordering, scores[name]) for name in columns]
        if not any(gains):
            continue
        cells: list[str | Cell] = [f'{ordering.better} over {ordering.worse}', ordering.paper]
        for gain in gains:
            if gain is None:
                cells.append('-')
                continue
            spread = '' if gain.error is None else f' ± {gain.error:.1f}'
            cells.append(Cell(f'{gain.mean:+.1f}{spread}', gain.verdict))
        lines.append(cells)
    return Table(['ordering', 'paper', *columns], lines, text=(0, 1))


def _gain(ordering: Ordering, column: Mapping) -> Difference | None:
    return difference(column.get(ordering.better, {}), column.get(ordering.worse, {}))


def draw(scores: Scores, columns: Sequence[str]) -> bytes:
    """Draw a panel per column with a line per row: seeds as dots, their mean as a bar.

    Args:
        scores (Mapping): Result of :func:`scores_of`.
        columns (Sequence[str]): Columns to draw.

    Returns:
        bytes: PNG.
    """
    columns = [name for name in columns if scores.get(name)]
    rows = [row for row in ROWS if any(row in scores[name] for name in columns)]
    across = min(4, max(1, len(columns)))
    down = max(1, math.ceil(len(columns) / across))
    figure = Figure(
        figsize=(2.6 + 2.4 * across, down * (0.9 + 0.27 * len(rows))), layout='constrained'
    )
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for axes, name in zip(panels, columns, strict=False):
        for place, row in enumerate(rows):
            values = list(scores[name].get(row, {}).values())
            if not values:
                continue
            colour = RANDOM_COLOUR if row == RANDOM else RUN_COLOURS[1]
            axes.barh(place, np.mean(values), color=colour, alpha=0.35)
            axes.plot(values, [place] * len(values), 'o', color=colour, markersize=4)
        axes.set(title=name.replace(', ', '\n'), xlabel='%')
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(axis='x', alpha=0.3)
    if len(columns):
        panels[0].invert_yaxis()
    for axes in panels[len(columns) :]:
        axes.set_visible(False)
    return to_png(figure)
