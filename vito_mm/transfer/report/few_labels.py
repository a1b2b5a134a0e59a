"""Scores by the part of the labels: does pre-training help where there are few?"""

from collections.abc import Sequence

from vito_mm.utils.report import Block, Heading, Paragraph, Picture, Table
from vito_mm.visualization.curves import Curve, draw_curves, run_colours

from .cells import best_cell
from .comparison import Comparison


def few_labels_section(comparisons: Sequence[Comparison]) -> list[Block]:
    """Tables and plots of all tasks that were learnt from a part of their labels."""
    groups: dict[tuple[str, bool], list[Comparison]] = {}
    for comparison in comparisons:
        task = comparison.task
        groups.setdefault((task.base, task.frozen), []).append(comparison)
    blocks: list[Block] = []
    for group in groups.values():
        if any(comparison.task.labels < 100 for comparison in group):
            blocks += _of_task(sorted(group, key=lambda comparison: comparison.task.labels))
    return blocks


def _of_task(group: Sequence[Comparison]) -> list[Block]:
    task = group[-1].task
    title = task.title.removesuffix(f', {task.labels:g} % of labels')
    every = list(dict.fromkeys(label for comparison in group for label in comparison.points))
    rows = [[label, *(best_cell(comparison, label) for comparison in group)] for label in every]
    parts = [f'{comparison.task.labels:g} %' for comparison in group]
    blocks = [
        Heading(f'{title}, by the part of the labels: {task.label}, %'),
        Table(['checkpoint', *parts], rows),
        Paragraph(
            'Each seed draws its own part of the labelled training images, smaller parts within '
            'larger ones, the same for all checkpoints. All runs take the same number of steps. '
            'Each cell is the best point of its sweep.'
        ),
    ]
    curves = [curve for label in every if (curve := _curve(group, label)).seeds]
    if len(group) > 1 and curves:
        picture = draw_curves({f'{task.label}, %': curves}, 'labelled images, %', log_steps=True)
        text = 'Thin: single seeds, bold: their mean.'
        blocks.append(Picture(picture, f'{title} by the part of the labels. {text}'))
    return blocks


def _curve(group: Sequence[Comparison], label: str) -> Curve:
    """Score of each seed over the parts, of the best point of each."""
    seeds: dict[int, tuple[list[float], list[float]]] = {}
    for comparison in group:
        best = comparison.best(label)
        for outcome in best.scored if best else ():
            parts, scores = seeds.setdefault(outcome.run.seed, ([], []))
            parts.append(comparison.task.labels)
            scores.append(outcome.score)
    colour = run_colours([name for comparison in group for name in comparison.points])[label]
    return Curve(label, colour, list(seeds.values()))
