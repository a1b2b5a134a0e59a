"""Cells of the report's tables."""

from vito_mm.utils.report import Cell
from vito_mm.utils.text import count_text, mean_text

from .comparison import Comparison

FEWER, INCOMPLETE = '†', '‡'


def best_cell(comparison: Comparison, label: str) -> Cell:
    """Format the best point of a checkpoint: mean, deviation, number of runs and gain."""
    best = comparison.best(label)
    if best is None:
        runs = [o for point in comparison.points.get(label, ()) for o in point.outcomes]
        if not runs:
            return Cell('-', 'no run')
        return Cell('-', f'0 of {count_text(len(runs), "run")} finished')
    marks = FEWER if comparison.fewer_seeds(best) else ''
    marks += INCOMPLETE if len(best.scores) < len(best.outcomes) else ''
    mean, deviation = mean_text(best.mean, best.deviation)
    text = f'{mean} ± {deviation}' if deviation else mean
    notes = [f'n = {len(best.scores)}']
    if (gain := comparison.gain(label)) is not None:
        notes.append(f'{gain:+.1f}')
    return Cell(f'{text} {marks}'.strip(), ', '.join(notes))
