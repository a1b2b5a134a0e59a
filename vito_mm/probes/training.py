"""Training by a config, which goes on after an interruption, and a page of the scores."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from vito_mm.launch import build_runner, set_resume
from vito_mm.utils.report import Block, Heading, Paragraph, Table, to_csv, write_document

from .record import Record

_DECIDING = (
    *('model', 'train_dataloader', 'val_dataloader', 'val_evaluator', 'optim_wrapper'),
    *('param_scheduler', 'train_cfg', 'custom_hooks'),
)


class _Metrics(Hook):
    """Keeps what the evaluation found."""

    found: dict[str, float] | None = None

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.found = {name: float(value) for name, value in metrics.items()}


def train_and_evaluate(cfg: Config, resume: bool = False) -> dict[str, float]:
    """Train by a config through MMEngine's runner, and evaluate.

    Args:
        cfg (Config): Its work dir is set; not changed.
        resume (bool): Go on from the last checkpoint there, if there is one. Defaults to False.

    Returns:
        dict[str, float]: Metrics of the evaluator on the validation data, and ``seconds`` of all
        steps of training and evaluation, those before an interruption included.
    """
    cfg = Config(cfg._cfg_dict.to_dict(), filename=cfg.filename)
    # Experiments of one name share their logged values within a process.
    cfg.experiment_name = f'{Path(cfg.work_dir).name}_{time.time_ns()}'
    if resume:
        set_resume(cfg, 'auto')
    runner = build_runner(cfg)
    metrics = _Metrics()
    runner.register_hook(metrics)
    runner.train()
    if metrics.found is None:  # interrupted between the last checkpoint and the evaluation
        runner.val()
    logged = runner.message_hub.log_scalars
    times = [logged[name].data[0].sum() for name in ('train/time', 'val/time') if name in logged]
    return metrics.found | dict(seconds=float(sum(times)))


def finish(cfg: Config, record: Record) -> dict[str, float]:
    """Bring a run to its end, from where it was interrupted; one that has ended is not repeated.

    Args:
        cfg (Config): What to train; it writes checkpoints into its work dir.
        record (Record): Gets the result, see :func:`train_and_evaluate`.
    """
    if 'result' not in record.parts:
        is_begun = 'begun' in record.parts
        if not is_begun:
            # What is in the folder belongs to another run.
            (Path(cfg.work_dir) / 'last_checkpoint').unlink(missing_ok=True)
            record.put('begun', True)
        is_saved = (Path(cfg.work_dir) / 'last_checkpoint').is_file()
        record.put('result', train_and_evaluate(cfg, resume=is_begun and is_saved))
    return record.parts['result']


def deciding_settings(cfg: Config) -> dict[str, Any]:
    """Parts of a config that decide the result, as plain values, without the file of the weights.

    How many processes read the data does not.
    """
    parts = cfg._cfg_dict.to_dict()
    parts['model'].get('backbone', {}).pop('checkpoint', None)
    for loader in ('train_dataloader', 'val_dataloader'):
        for name in ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory'):
            parts[loader].pop(name, None)
    return json.loads(json.dumps({name: parts.get(name) for name in _DECIDING}, default=str))


def shown(name: str, value: Any) -> str:
    """Format a score for tables."""
    if value is None:
        return '-'
    formats = {'L2': 'g', 'seconds': '.0f'}
    return format(value, formats.get(name, '.1f')) if isinstance(value, float) else str(value)


def write_scores(
    folder: Path,
    name: str,
    title: str,
    text: str,
    results: Mapping[str, Mapping[str, float]],
    published: tuple[str, str, Mapping[str, float]] | None = None,
) -> Path:
    """Write the scores of networks, next to published ones if there are any.

    Args:
        folder (Path): Gets ``NAME.html``, ``NAME.md`` and ``NAME.csv``.
        name (str): Stem of the files.
        title (str): Title of the page.
        text (str): What was done.
        results (Mapping): Scores by network.
        published (tuple, optional): Heading, name of the score, and scores by network. Defaults to
            None.

    Returns:
        Path: The page.
    """
    names = list(dict.fromkeys(score for found in results.values() for score in found))
    lines = [[label, *(shown(n, found.get(n)) for n in names)] for label, found in results.items()]
    blocks: list[Block] = [Paragraph(text), Table(['network', *names], lines)]
    if published:
        heading, metric, others = published
        lines = [[label, f'{value:.1f}'] for label, value in others.items()]
        blocks += [Heading(heading), Table(['network', metric], lines)]
    rows = [[label, *(found.get(n, '') for n in names)] for label, found in results.items()]
    table = to_csv([['network', *names], *rows])
    return write_document(folder, title, blocks, name, {f'{name}.csv': table})
