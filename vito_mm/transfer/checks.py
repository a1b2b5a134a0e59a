"""Checks of a transfer suite before it starts: each returns the problems that it finds."""

import importlib.util
import inspect
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from vito_mm.checkpoint.config_parts import parts_of, placed_datasets, type_name
from vito_mm.launch import parse_options
from vito_mm.transfer.identity import LOADERS, data_root, difference, leaves
from vito_mm.transfer.options import SHORT_KEYS, SuiteOptions
from vito_mm.transfer.run import Run
from vito_mm.transfer.run_folder import read_json
from vito_mm.transfer.tasks import ARCHITECTURES, PROTOCOL_TASKS, PROTOCOLS, TASKS, Task
from vito_mm.utils.configs import follow
from vito_mm.utils.quiet import ignored_warnings, quiet_logger
from vito_mm.utils.text import first_few, near_text

ACCUMULATED = 'optim_wrapper.accumulative_counts'
TOTAL_BATCH = 'auto_scale_lr.base_batch_size'

CHECKPOINT_KEY = 'model.backbone.checkpoint'

RESERVED = {
    'train_dataloader.batch_size': f'set {TOTAL_BATCH}, the batch over all GPUs',
    CHECKPOINT_KEY: 'name it by --checkpoints',
    'randomness.seed': 'choose by --seeds',
    'work_dir': 'choose by --work-dir',
    'resume': 'runs that were interrupted are resumed in any case',
    'load_from': 'it would replace the weights of --checkpoints',
}
"""Config keys that the suite sets, with the remedy."""

_OTHER_HEADS = ('.rpn_head', '.semantic_head')

_READ = {
    *inspect.signature(Runner.__init__).parameters,
    *('activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval'),
    *('find_unused_parameters', 'model_wrapper_cfg', 'sync_bn'),
} - {'self', 'cfg'}
"""Top-level keys of a config that a run reads: arguments of MMEngine's runner, and those that it
and the reading of configs look up besides. Other keys are variables of the config file."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries while something is only looked at."""
    with quiet_logger(), ignored_warnings():
        yield


def option_problems(options: SuiteOptions, tasks: Mapping[str, str]) -> Iterator[str]:
    """Options that are out of range or contradict each other; for ``tasks`` see ``split_tasks``."""
    if options.protocol not in PROTOCOLS:
        yield f'--protocol {options.protocol}: choose among {", ".join(PROTOCOLS)}'
    if options.seeds < 1:
        yield f'--seeds {options.seeds}: give 1 or more'
    if options.first_seed < 0:
        yield f'--first-seed {options.first_seed}: give 0 or more'
    for name, config in tasks.items():
        if not config and name not in TASKS:
            known = (*TASKS, *PROTOCOL_TASKS)
            near = near_text(name, known)
            yield (
                f'--tasks {name}: choose among {", ".join(known)}{near}, or write NAME=CONFIG for '
                'a config of yours'
            )
    if not options.checkpoints:
        yield '--checkpoints: name at least one file, or random'
    for text in options.data:
        name, _, folder = text.partition('=')
        known = [*TASKS, *tasks]
        if name not in known or not folder:
            yield f'--data {text}: write TASK=FOLDER{near_text(name, known)}'
    if options.launcher == 'slurm':
        if options.gpus is not None:
            yield '--gpus: under --launcher slurm, Slurm chooses the GPUs'
        if not options.partition:
            yield '--launcher slurm needs --partition'
        if not shutil.which('srun'):
            yield '--launcher slurm: there is no srun on this machine'
    else:
        for name, value in (('partition', options.partition), ('srun-args', options.srun_args)):
            if value:
                yield f'--{name} means nothing without --launcher slurm'


def packages_problems(task: Task) -> Iterator[str]:
    """Packages that a task needs and that are not installed."""
    needed = {task.package: dict(mmseg='seg', mmdet='det')[task.package]}
    if task.metric.startswith('lvis/'):
        needed |= dict(lvis='lvis', faster_coco_eval='lvis')
    for package, extra in needed.items():
        if importlib.util.find_spec(package) is None:
            yield f'{task.title} needs {package}: pip install "vito_mm[{extra}]"'


def sweep_problems(
    cfg: Config, sweep: Mapping[str, Sequence[str]], settings: Mapping[str, str], where: str
) -> Iterator[str]:
    """Keys and values of a sweep that do not fit a config named ``where``, or its settings."""
    for name, texts in sweep.items():
        key = SHORT_KEYS.get(name, name)
        if key in settings:
            yield f'--sweep {key}: --cfg-options sets it as well'
        if key in RESERVED:
            yield f'--sweep {key}: {RESERVED[key]}'
        if key in (ACCUMULATED, TOTAL_BATCH):
            yield f'--sweep {key}: set one value by --cfg-options'
        node, unknown, place, near = _look_up(cfg, key)
        if unknown:
            yield f'--sweep {key}: {where} has no {unknown!r} in {place}{near}'
            continue
        if unread := _unread_text(cfg, key):
            yield f'--sweep {key}: {unread}'
        elif key.startswith('test_'):
            yield f'--sweep {key}: the score is that of val_dataloader and val_evaluator'
        is_rate = key in SHORT_KEYS.values()
        for text in texts if _is_number(node) or is_rate else ():
            value = parse_options([f'x={text}'])['x']
            if not _is_number(value) or not math.isfinite(value) or (is_rate and value < 0):
                more = ', 0 or more' if is_rate else ''
                yield f'--sweep {name}={text}: a finite number is needed{more}'


def option_notes(cfg: Config, settings: Mapping[str, str]) -> Iterator[str]:
    """Settings that may change nothing: of keys that no run reads, or that the config has not."""
    for key in settings:
        _, unknown, place, near = _look_up(cfg, key)
        if text := _unread_text(cfg, key):
            yield f'--cfg-options {key}: {text}'
        elif unknown and key not in (ACCUMULATED, TOTAL_BATCH):  # which the suite knows
            yield f'--cfg-options {key}: {unknown!r} is new to {place}{near}'


def data_problems(cfg: Config, task: Task) -> list[str]:
    """Folders and files that are missing; the last problem names the option for other folders."""
    problems = [f'{task.title}{text}' for text in missing_data(cfg)]
    if problems:
        problems[-1] += (
            f'. Data elsewhere: --data {task.name}=FOLDER in the place of {data_root(cfg)}, or key '
            f'by key --cfg-options {task.name}:KEY=VALUE'
        )
    return problems


def missing_data(cfg: Config) -> list[str]:
    """Folders and files of the data of a config that are missing."""
    datasets = [
        (loader.partition('_')[0], dataset)
        for loader in LOADERS
        for _, dataset in placed_datasets(cfg[loader].dataset, '')
    ]
    roots = sorted({dataset.get('data_root') or '' for _, dataset in datasets} - {''})
    missing = [f': there is no data folder {root}' for root in roots if is_missing(root)]
    if not missing:  # one line says it all
        for part, dataset in datasets:
            missing += (f', {part}: {text}' for text in _missing_of(dataset))
        for evaluator in as_list(cfg.get('val_evaluator')):
            if (file := evaluator.get('ann_file')) and is_missing(file):
                missing.append(f', evaluation: there is no annotation file {file}')
    return list(dict.fromkeys(missing))


def class_problems(cfg: Config, task: Task) -> Iterator[str]:
    """Heads whose number of classes is not the data set's."""
    heads = dict(heads_of(cfg))
    for loader in LOADERS:
        for key, dataset in placed_datasets(cfg[loader].dataset, f'{loader}.dataset'):
            names = classes_of(cfg, dataset)
            if isinstance(names, str):
                yield f'{task.title}: {key}.metainfo.classes: there is no file {names}'
                continue
            for place, count in heads.items() if names else ():
                if count != len(names):
                    yield (
                        f'{task.title}: {place}.num_classes is {count}, but {dataset["type"]} of '
                        f'{loader} has {len(names)} classes. Set --cfg-options '
                        f'{task.name}:{place}.num_classes={len(names)}'
                    )


def batch_problems(cfg: Config, task: Task, gpus: int, where: Path) -> Iterator[str]:
    """Total batches that cannot be split over GPUs and accumulated micro-batches."""
    total = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    count = cfg.optim_wrapper.get('accumulative_counts', 1)
    if total is None:
        yield (
            f'{task.title}: {where} has no {TOTAL_BATCH}, the batch over all GPUs. Set '
            f'--cfg-options {task.name}:{TOTAL_BATCH}=16'
        )
    elif not isinstance(count, int) or count < 1:
        yield f'{task.title}: {ACCUMULATED} is {count}: give 1 or more'
    elif count > 1 and 'max_epochs' not in cfg.train_cfg:
        # MMEngine counts micro-batches: the schedule would end after a part of its steps.
        yield (
            f'{task.title}: {ACCUMULATED}={count} would shorten the schedule, whose '
            'train_cfg.max_iters counts every micro-batch. Use --gpus-per-run instead'
        )
    elif count > 1 and isinstance(cfg.get('param_scheduler'), tuple):
        yield (
            f'{task.title}: {ACCUMULATED}={count} changes parts of param_scheduler, which '
            f'MMEngine can do in a list only. Write it with square brackets in {where}'
        )
    elif total % (max(1, gpus) * count):
        accumulated = f' x {count} of {ACCUMULATED}' if count > 1 else ''
        yield (
            f'{task.title}: the batch of {total} images cannot be split over --gpus-per-run '
            f'{gpus}{accumulated}'
        )


def work_dir_problems(work_dir: Path) -> Iterator[str]:
    """A folder that cannot be made or written to."""
    place = f'--work-dir {work_dir}'
    try:
        folder = existing_folder(work_dir)
    except OSError as error:  # such as a folder above it that may not be entered
        yield f'{place}: {error.strerror} ({error.filename}). Choose another'
        return
    if not os.path.isdir(folder):
        yield f'{place}: {folder} is no folder'
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield f'{place}: nothing can be written to {folder}'


def disk_problems(
    work_dir: Path, runs: Sequence[Run], at_once: int, run_bytes: Mapping[str, tuple[int, int]]
) -> Iterator[str]:
    """Too little room for the checkpoints of the runs to come; ``run_bytes`` as in a plan."""
    free = shutil.disk_usage(existing_folder(work_dir)).free
    waiting = [run for run in runs if not (run.work_dir / 'result.json').exists()]
    needed = sum(run_bytes[run.task.name][1] - run.saved_bytes() for run in waiting)
    needed += peak_bytes(run_bytes) * min(len(waiting), at_once)
    if needed > free:
        yield (
            f'--work-dir {work_dir}: checkpoints of {len(waiting)} runs need {needed / 1e9:.1f} '
            f'GB, and {free / 1e9:.1f} GB are free. Choose another disk, or fewer runs'
        )


def peak_bytes(run_bytes: Mapping[str, tuple[int, int]]) -> int:
    """Room that a run needs: a new checkpoint is complete before the last is removed; and logs."""
    return 2 * max(training for training, _ in run_bytes.values()) + 50_000_000


def suite_problems(
    options: SuiteOptions, runs: Sequence[Run], architecture: str = ''
) -> Iterator[str]:
    """Runs in the folder that cannot be compared with those that are planned."""
    record = read_json(options.work_dir / 'suite.json')
    known = (record or {}).get('architecture') or architecture
    if architecture and known != architecture:
        yield (
            f'{options.work_dir} holds runs of a {ARCHITECTURES[known]}, and the checkpoints are '
            f'of a {ARCHITECTURES[architecture]}; choose another --work-dir'
        )
    if record and record['protocol'] != options.protocol:
        yield (
            f'{options.work_dir} holds runs of --protocol {record["protocol"]}; choose another '
            '--work-dir'
        )
    others = [run for run in runs if run.belongs_elsewhere()]
    if others and not options.redo:
        shown = first_few([f'\n  {run.name}: {_difference(run)}' for run in others], 4, '')
        yield (
            f'{len(others)} run(s) in {options.work_dir} were made with another config or another '
            f'content of the checkpoint:{shown}\nChoose another --work-dir or another '
            'label (label=FILE), or start them again with --redo'
        )


def as_list(value: Any) -> list:
    """A setting that may be one value, several or none, as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value] if value else []


def heads_of(cfg: Config) -> Iterator[tuple[str, int]]:
    """Key and number of classes of each head over the classes of the data set.

    Others are region proposal networks, the branch of HTC and its like that segments other classes
    (``semantic_head``), and STDC's head of edges.
    """
    for place, part in parts_of(cfg.model, 'model'):
        is_other = place.endswith(_OTHER_HEADS) or type_name(part) == 'STDCHead'
        if isinstance(count := part.get('num_classes'), int) and not is_other:
            yield place, count


def dataset_class(cfg: Config, dataset: Mapping) -> type | None:
    """Class of a data set without wrappers, None if unknown."""
    kind = dataset['type']
    with quiet(), DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        return registry.get(kind) if isinstance(kind, str) else kind


def classes_of(cfg: Config, dataset: Mapping) -> Sequence[str]:
    """Classes of a data set in order, none if unknown; a text if ``metainfo`` names no file."""
    cls = dataset_class(cfg, dataset)
    if not hasattr(cls, '_load_metainfo'):  # none of MMEngine's
        return (dataset.get('metainfo') or {}).get('classes', ())
    with quiet():
        return cls._load_metainfo(dataset.get('metainfo')).get('classes', ())


def existing_folder(path: Path) -> Path:
    """The path itself, or the nearest above it that exists."""
    path = path.absolute()
    for folder in (path, *path.parents):
        # A link that leads nowhere exists as well: no folder can be made in its place.
        with suppress(FileNotFoundError, NotADirectoryError):
            folder.lstat()
            return folder
    return path


def _difference(run: Run) -> str:
    record = run.started()
    if record.get('checkpoint_sha256') != run.checkpoint_sha256:
        return f'{record.get("checkpoint") or "random weights"} had another content'
    try:
        return difference(run.config(), run.identity)
    except Exception:  # any config file of a broken run; it only explains a refusal
        return 'another config'


def _look_up(cfg: Config, key: str) -> tuple[Any, str, str, str]:
    """Follow a key with dots.

    Returns:
        tuple[Any, str, str, str]: The value, and '' thrice; or None, the first part that is not
        there, the place that lacks it, and similar names.
    """
    node, unknown = follow(cfg, key)
    if not unknown:
        return node, '', '', ''
    is_list = isinstance(node, (list, tuple))
    keys = range(len(node)) if is_list else getattr(node, 'keys', list)()
    place = key.removesuffix('.'.join(unknown)).rstrip('.') or 'the config'
    return None, unknown[0], place, near_text(unknown[0], list(map(str, keys)))


def _unread_text(cfg: Config, key: str) -> str:
    """Say that no run reads a key; empty where one does."""
    name = key.partition('.')[0]
    if name in _READ:
        return ''
    read = {part: cfg[part] for part in sorted(_READ) if part in cfg}
    meant = [f'{each!r}' for each, _ in leaves(read) if each.endswith(f'.{key}')]
    near = f' (did you mean {" or ".join(meant[:3])}?)' if meant else near_text(name, _READ)
    return f'no run reads {name!r}{near}'


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_missing(path: str) -> bool:
    """True for a local path where there is nothing; addresses are not looked up."""
    return '://' not in path and not os.path.exists(path)


def _missing_of(dataset: Mapping) -> Iterator[str]:
    root = dataset.get('data_root') or ''
    if listed := dataset.get('ann_file'):
        listed = os.path.join(root, listed)
        if is_missing(listed):
            yield f'there is no list or annotation file {listed}'
    for name, prefix in (dataset.get('data_prefix') or {}).items():
        if isinstance(prefix, str):
            folder = os.path.join(root, prefix)
            if is_missing(folder):
                yield f'there is no folder {folder} ({name})'
            elif os.path.isdir(folder) and next(os.scandir(folder), None) is None:
                yield f'the folder {folder} ({name}) is empty'
