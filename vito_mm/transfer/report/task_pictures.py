"""Pictures of a report: whatever the folders of the runs still hold."""

from collections.abc import Callable, Mapping, Sequence

from vito_mm.transfer.run_folder import (
    dumped_config,
    evaluation_curve,
    last_checkpoint,
    scalars,
    training_curve,
)
from vito_mm.utils.markup import Block, Listing, Picture
from vito_mm.utils.text import reason_text

from .comparison import Comparison, Point
from .pictures import (
    MOST_BOXES,
    POINTS_A_CURVE,
    SCORE_SHOWN,
    Curve,
    draw_curves,
    draw_predictions,
    load_stills,
    predict,
    run_colours,
)

Lines = list[dict]

_BEST_POINT = 'Of a sweep the best point of each checkpoint is shown.'


def draw_task(comparison: Comparison) -> list[Block]:
    """Curves and predictions of the best points of a task.

    Args:
        comparison (Comparison): Runs of the task.

    Returns:
        list[Block]: Pictures, and a list of what could not be shown and why.
    """
    best = {label: comparison.best(label) for label in comparison.points}
    best = {label: point for label, point in best.items() if point is not None}
    missing: list[str] = []
    blocks: list[Block] = []
    for draw in (_curves, _predictions):
        # Folders may have been moved, thinned out or cut off in any way, and data sets unmounted.
        try:
            blocks += draw(comparison, best, missing)
        except Exception as error:
            what = 'curves' if draw is _curves else 'predictions'
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
    if any(len(training_curve(lines)[0]) > POINTS_A_CURVE for x in logs.values() for lines in x):
        text += '; the loss averaged over neighbouring logs'
    caption = f'{task.title}. {text}. {_BEST_POINT}'
    return [Picture(draw_curves(panels), caption)]


def _panel(
    logs: Mapping[str, Sequence[Lines]],
    colours: Mapping[str, str],
    values: Callable[[Lines], tuple[list[int], list[float]]],
) -> list[Curve]:
    return [
        Curve(label, colours[label], [curve for curve in map(values, runs) if curve[0]])
        for label, runs in logs.items()
        if any(values(lines)[0] for lines in runs)
    ]


def _predictions(
    comparison: Comparison, best: Mapping[str, Point], missing: list[str]
) -> list[Block]:
    task, usable = comparison.task, {}
    for label, point in best.items():
        run = point.scored[0].run
        name = f'predictions of {label}, seed {run.seed}'
        checkpoint = last_checkpoint(run.work_dir)
        if checkpoint is None:
            missing.append(f'{name}: its folder holds no checkpoint (any more)')
            continue
        try:
            usable[label] = (name, dumped_config(run.work_dir), checkpoint)
        except Exception as error:
            missing.append(f'{name}: {reason_text(error)}')
    if not usable:
        return []
    stills = load_stills(next(iter(usable.values()))[1], task.package)
    predictions = {}
    for label, (name, cfg, checkpoint) in usable.items():
        try:
            predictions[label] = predict(cfg, task.package, checkpoint, stills)
        except Exception as error:
            missing.append(f'{name}: {reason_text(error)}')
    if not predictions:
        return []
    seeds = {label: best[label].scored[0].run.seed for label in predictions}
    if len(set(seeds.values())) == 1:
        which = f'seed {next(iter(seeds.values()))}'
    else:
        which = '; '.join(f'{label}: seed {seed}' for label, seed in seeds.items())
    if task.package == 'mmseg':
        kind = 'Colours of the classes: see the legend'
    else:
        kind = f'Boxes with a score over {100 * SCORE_SHOWN:.0f} %, at most {MOST_BOXES}'
    caption = (
        f'{task.title}. Validation images, their truth, and what each checkpoint predicts after '
        f'fine-tuning ({which}). {kind}. {_BEST_POINT}'
    )
    return [Picture(png, caption) for png in draw_predictions(stills, predictions)]
