"""Results of a transfer suite as entries of the report on an evaluation."""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from vito_mm.checkpoint.config_parts import RESNETS, type_name
from vito_mm.transfer.checks import missing_data
from vito_mm.transfer.identity import LOADERS
from vito_mm.transfer.options import SHORT_KEYS
from vito_mm.transfer.run import Run
from vito_mm.transfer.run_folder import read_json
from vito_mm.transfer.runner import outcomes_in
from vito_mm.transfer.tasks import ARCHITECTURES, RANDOM, TASKS, Task
from vito_mm.utils.text import setting_text

from .comparison import Comparison, comparisons_of
from .data_identity import DataIdentity, identify_data_sets
from .results import Network, Result, ResultsError, resnet_name

_OF_THE_SUITE = (
    *('model.backbone.checkpoint', 'model.backbone.frozen', 'randomness.seed'),
    *('train_dataloader.', 'val_dataloader.', 'test_dataloader.', 'val_evaluator.'),
    *('test_evaluator.', 'default_hooks.checkpoint.', 'optim_wrapper.constructor'),
)
"""Beginnings of the keys that a suite sets itself, or that say where data lie."""

_NO_RESULT = re.compile(
    r'test_.*|default_hooks\.checkpoint\..*|val_evaluator\.(.+\.)?ann_file'
    r'|(train|val)_dataloader\.(num_workers|persistent_workers|prefetch_factor|pin_memory'
    r'|(.+\.)?(data_root|ann_file|data_prefix\..+))'
)
"""Keys of a user that change no figure, or say where data lie, which are known by their files."""


def results_of_suite(work_dir: Path, words: Sequence[str]) -> Iterator[Result]:
    """Yield the runs of the best point of each checkpoint and task.

    Args:
        work_dir (Path): Folder of the suite.
        words (Sequence[str]): The command, ``CHECKPOINTS`` and ``TASK`` in the place of those.
    """
    record = read_json(work_dir / 'suite.json') or {}
    suite = record.get('id') or str(work_dir.resolve())  # of a version that gave none
    for comparison in comparisons_of(outcomes_in(work_dir)):
        yield from _of_task(comparison, record, suite, words)


def _of_task(
    comparison: Comparison, record: dict[str, Any], suite: str, words: Sequence[str]
) -> Iterator[Result]:
    task = comparison.task
    best = [point for label in comparison.points if (point := comparison.best(label))]
    protocol, data = record.get('protocol', ''), None
    command = _command(task, protocol, words)
    for point in best:
        remark = ', '.join(f'{name} {setting_text(value)}' for name, value in point.settings)
        for outcome in point.scored:
            run = outcome.run
            try:
                cfg = run.config()
            except Exception:  # its folder may have been thinned out in any way
                cfg = None
            if outcome.data:
                data = data or DataIdentity(**outcome.data)
            elif cfg is not None:
                data = data or _data_of(cfg, run)
            metrics = {task.label: outcome.score}
            metrics |= {
                name: outcome.metrics[name] * task.scale
                for name in task.also
                if name in outcome.metrics
            }
            yield Result(
                *('transfer', task.name, task.title, data or DataIdentity(task.title)),
                _settings(run, protocol),
                _network(run, cfg, record.get('architecture', '')),
                *(run.seed, metrics, outcome.seconds, command),
                *(outcome.conditions, remark),
                suite=suite,
            )


def _data_of(cfg: Config, run: Run) -> DataIdentity:
    """Identity of the data of a run that has not recorded it.

    Raises:
        ResultsError: If they are not there any more: others would be taken for them.
    """
    if missing := missing_data(cfg):
        raise ResultsError(
            f'{run.work_dir}{missing[0]}, and the report knows results by their data. Put them '
            'back, or make a link to them in that place'
        )
    return identify_data_sets(*(cfg[loader].dataset for loader in LOADERS))


def _settings(run: Run, protocol: str) -> dict[str, Any]:
    """The protocol, or the config of the user, and what overrides it."""
    task = run.task
    settings = {'config': Path(task.config).name} if task.config else {'protocol': protocol}
    if run.chosen is None:
        given = shlex.split(run.started().get('command', ''))
        given = given[given.index('--cfg-options') + 1 :] if '--cfg-options' in given else []
        swept = tuple(SHORT_KEYS.get(name, name) for name, _ in run.settings)
        kept = [word for word in given if not word.startswith((*_OF_THE_SUITE, *swept))]
        kept = [] if task.config else kept  # which of them were the suite's is not known
    else:
        kept = [f'{k}={v}' for k, v in run.chosen.items() if not _NO_RESULT.fullmatch(k)]
    return settings | ({'cfg_options': kept} if kept else {})


def _network(run: Run, cfg: Any, architecture: str) -> Network:
    backbone = {} if cfg is None else cfg.model.backbone
    name = type_name(backbone)
    if name in ('VITOResNet', *RESNETS):
        name = resnet_name(backbone.get('depth', 50), backbone.get('base_channels', 64))
    elif not run.task.config and run.task.base in TASKS and architecture != 'r50':
        name = ARCHITECTURES.get(architecture, name)
    else:
        name = backbone.get('stock', name).rpartition('.')[2]
    if run.checkpoint is None:
        return Network(run.label, RANDOM, name=name)
    file = os.path.relpath(run.checkpoint)
    file = str(run.checkpoint) if file.startswith('..') else file
    return Network(run.label, file, run.started().get('checkpoint_sha256', ''), name=name)


def _command(task: Task, protocol: str, words: Sequence[str]) -> tuple[str, ...]:
    named = [f'{task.base}={task.config}' if task.config else task.base]
    named += [] if task.labels == 100 else ['--labels', f'{task.labels:g}%']
    named += ['--frozen-backbone'] if task.frozen else []
    if protocol != 'paper' and '--protocol' not in words:  # of a suite that was only reported
        named += ['--protocol', protocol]
    return tuple(n for word in words for n in (named if word == 'TASK' else [word]))
