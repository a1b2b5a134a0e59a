"""Scores of many runs: points of a sweep, the best one, and its gain over random weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vito_mm.transfer.run import Outcome
from vito_mm.transfer.tasks import RANDOM, TASKS, Task
from vito_mm.utils.text import setting_text


@dataclass
class Point:
    """Runs, by seed, of one checkpoint at one point of the sweep."""

    label: str
    settings: tuple[tuple[str, float | int | str], ...]
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def scored(self) -> list[Outcome]:
        """Runs that count."""
        return [outcome for outcome in self.outcomes if is_scored(outcome)]

    @property
    def scores(self) -> list[float]:
        """Score of each run that counts, in percent."""
        return [outcome.score for outcome in self.scored]

    @property
    def mean(self) -> float | None:
        """Mean over seeds, None where no run counts."""
        return float(np.mean(self.scores)) if self.scores else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over seeds, None below two of them."""
        return float(np.std(self.scores, ddof=1)) if len(self.scores) > 1 else None


class Comparison:
    """Runs of one task: the points of the sweep of each checkpoint, in order."""

    def __init__(self, task: Task, outcomes: Sequence[Outcome]) -> None:
        self.task = task
        self.points: dict[str, list[Point]] = {}
        found: dict[tuple, Point] = {}
        for outcome in sorted(outcomes, key=lambda outcome: outcome.run.seed):
            key = (outcome.run.label, outcome.run.settings)
            found.setdefault(key, Point(*key)).outcomes.append(outcome)
        for label in labels(outcomes):
            points = (point for point in found.values() if point.label == label)
            self.points[label] = sorted(points, key=_order)

    @property
    def setting_names(self) -> list[str]:
        """Names of all settings, in the order of the runs."""
        every = (point for points in self.points.values() for point in points)
        return list(dict.fromkeys(name for point in every for name, _ in point.settings))

    def best(self, label: str) -> Point | None:
        """Find the point with the highest mean, the first of equal ones; None where no run counts.

        Points that lack a run are taken only where there is no other: few seeds are easily lucky.
        """
        points = [point for point in self.points.get(label, ()) if point.scores]
        seeds = max((len(point.outcomes) for point in points), default=0)
        points = [point for point in points if len(point.scores) == seeds] or points
        return max(points, key=lambda point: point.mean, default=None)

    def gain(self, label: str) -> float | None:
        """Subtract the best mean of random weights; None for these and where either is missing."""
        best, reference = self.best(label), self.best(RANDOM)
        if label == RANDOM or best is None or reference is None:
            return None
        return best.mean - reference.mean

    def fewer_seeds(self, point: Point) -> bool:
        """Check if another point of the task has more runs that count."""
        every = (point for points in self.points.values() for point in points)
        return any(len(other.scores) > len(point.scores) for other in every)

    def edges(self, label: str) -> list[str]:
        """Describe settings of the best point at the edge of the sweep, failed runs included."""
        best = self.best(label)
        remarks = []
        for name, value in best.settings if best else ():
            swept = {dict(point.settings).get(name) for point in self.points[label]}
            numbers = sorted(v for v in swept if isinstance(v, int | float))
            if len(numbers) < 2 or not isinstance(value, int | float):
                continue
            if value in (numbers[0], numbers[-1]):
                side = 'lowest' if value == numbers[0] else 'highest'
                remarks.append(f'{name} {setting_text(value)} is the {side} that was tried')
        return remarks


def labels(outcomes: Sequence[Outcome]) -> list[str]:
    """List the labels of checkpoints, random weights first and the others in order."""
    found = list(dict.fromkeys(outcome.run.label for outcome in outcomes))
    return sorted(found, key=lambda label: label != RANDOM)


def comparisons_of(outcomes: Sequence[Outcome]) -> list[Comparison]:
    """Group the runs by task: the paper's as in its table, others as they came, then variants."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.run.task.name, []).append(outcome)
    found = [Comparison(group[0].run.task, group) for group in groups.values()]
    bases = list(dict.fromkeys([*TASKS, *(comparison.task.base for comparison in found)]))

    def place(comparison: Comparison) -> tuple[int, bool, float]:
        task = comparison.task
        return bases.index(task.base), task.frozen, -task.labels

    return sorted(found, key=place)


def is_scored(outcome: Outcome) -> bool:
    """Check that a run ended with a finite score; a diverged one may have ended without."""
    score = outcome.score
    return outcome.state == 'finished' and score is not None and math.isfinite(score)


def _order(point: Point) -> list[tuple]:
    """Sort numbers by size, before words."""
    return [
        (name, isinstance(value, str), value if not isinstance(value, str) else 0, str(value))
        for name, value in point.settings
    ]
