"""Curves and predictions of the runs of a task, as far as their folders still allow."""

from collections.abc import Callable, Mapping, Sequence

from vito_mm.transfer.run_folder import (
    evaluation_curve,
    last_checkpoint,
    scalars,
    training_curve,
)
from vito_mm.utils.report import Block, Listing, Picture
from vito_mm.utils.text import reason_text
from vito_mm.visualization.curves import POINTS_PER_CURVE, Curve, draw_curves, run_colours
from vito_mm.visualization.predictions import (
    MOST_BOXES,
    SCORE_SHOWN,
    draw_predictions,
    load_samples,
    predict,
)

from .comparison import Comparison, Point

Lines = list[dict]


def draw_task(comparison: Comparison) -> list[Block]:
    """Draw curves and predictions of the best points, and list what could not be shown and why."""
    best = {label: comparison.best(label) for label in comparison.points}
    best = {label: point for label, point in best.items() if point is not None}
    missing: list[str] = []
    blocks: list[Block] = []
    for what, draw in (('curves', _curves), ('predictions', _predictions)):
        # Folders may have been moved, thinned out or torn in any way, and data sets unmounted.
        try:
            blocks += draw(comparison, best, missing)
        except Exception as error:
            missing.append(f'no {what}: {reason_text(error)}')
    if missing:
        blocks.append(Listing([f'Not shown: {text}' for text in missing]))
    return blocks


def _curves(comparison: Comparison, best: Mapping[str, Point], missing: list[str]) -> list[Block]:
    logs: dict[str, list[Lines]] = {}
    for label, point in best.items():
        for outcome in point.scored:
            lines = scalars(outcome.run.work_dir)
            if training_curve(lines)[0]:
                logs.setdefault(label, []).append(lines)
            else:
                why = 'it ended before its loss was logged' if lines else 'its log is not there'
                missing.append(f'curve of {label}, seed {outcome.run.seed}: {why}')
    if not logs:
        return []
    task = comparison.task
    colours = run_colours(list(comparison.points))
    panels = {'training loss': _panel(logs, colours, training_curve)}
    text = 'Training loss over steps'

    def metric(lines: Lines) -> tuple[list[int], list[float]]:
        steps, values = evaluation_curve(lines, task.metric)
        return steps, [value * task.scale for value in values]

    if any(len(metric(lines)[0]) > 1 for runs in logs.values() for lines in runs):
        panels[f'{task.label} on validation, %'] = _panel(logs, colours, metric)
        text += f', and {task.label} of each evaluation'
    if any(len(runs) > 1 for runs in logs.values()):
        text += '; thin: single seeds, bold: their mean'
    if any(len(training_curve(lines)[0]) > POINTS_PER_CURVE for x in logs.values() for lines in x):
        text += '; the loss averaged over neighbouring logs'
    return [Picture(draw_curves(panels), _caption(comparison, text))]


def _panel(
    logs: Mapping[str, Sequence[Lines]],
    colours: Mapping[str, str],
    values: Callable[[Lines], tuple[list[int], list[float]]],
) -> list[Curve]:
    curves = {label: [x for x in map(values, runs) if x[0]] for label, runs in logs.items()}
    return [Curve(label, colours[label], seeds) for label, seeds in curves.items() if seeds]


def _predictions(
    comparison: Comparison, best: Mapping[str, Point], missing: list[str]
) -> list[Block]:
    task, samples, predictions, seeds = comparison.task, None, {}, {}
    for label, point in best.items():
        run = point.scored[0].run
        name = f'predictions of {label}, seed {run.seed}'
        checkpoint = last_checkpoint(run.work_dir)
        if checkpoint is None:
            missing.append(f'{name}: its folder holds no checkpoint (any more)')
            continue
        try:
            cfg = run.config()
        except Exception as error:
            missing.append(f'{name}: {reason_text(error)}')
            continue
        if samples is None:
            samples = load_samples(cfg, task.package)
        try:
            predictions[label] = predict(cfg, checkpoint, samples)
            seeds[label] = run.seed
        except Exception as error:
            missing.append(f'{name}: {reason_text(error)}')
    if not predictions:
        return []
    if len(set(seeds.values())) == 1:
        which = f'seed {next(iter(seeds.values()))}'
    else:
        which = '; '.join(f'{label}: seed {seed}' for label, seed in seeds.items())
    text = f'Validation images, ground truth, and predictions after fine-tuning ({which})'
    if task.package == 'mmdet':
        text += f'. Boxes with a score over {100 * SCORE_SHOWN:.0f} %, at most {MOST_BOXES}'
    return [
        Picture(png, _caption(comparison, text)) for png in draw_predictions(samples, predictions)
    ]


def _caption(comparison: Comparison, text: str) -> str:
    return f'{comparison.task.title}. {text}. The best point of each checkpoint is shown.'
