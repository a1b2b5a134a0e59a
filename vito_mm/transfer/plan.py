"""The runs of a transfer suite: the grid, and everything that can be wrong with it."""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from vito_mm.transfer.tasks import PROTOCOLS, TASKS, Run, Task
from vito_mm.utils.cores import count_cores
from vito_mm.utils.text import near_text

from .checks import (
    checkpoint_bytes,
    class_problems,
    data_problems,
    key_problems,
    moved_data,
    packages_problems,
    quiet,
    value_problems,
    without_places,
)
from .labels import label_problems, label_remarks
from .options import (
    RANDOM,
    SHORT_KEYS,
    SuiteOptions,
    content_hash,
    folder_name,
    label_checkpoints,
    parse_settings,
    parse_sweep,
    settings_name,
)
from .schedule import stretched_schedule

RESERVED = {
    'train_dataloader.batch_size': 'set auto_scale_lr.base_batch_size, the batch over all GPUs',
    'model.backbone.checkpoint': 'name it by --checkpoints',
    'randomness.seed': 'choose by --seeds',
    'work_dir': 'choose by --work-dir',
    'resume': 'runs that were interrupted are resumed in any case',
    'load_from': 'it would replace the weights of --checkpoints',
}
"""Config keys that the suite sets, and how."""

_ACCUMULATED = 'optim_wrapper.accumulative_counts'
_SIGNS = ',\'"()[] '
_NO_SIGNS = (
    'MMEngine cannot take a path with a comma, a blank, quotes or brackets in --cfg-options; make '
    'a link without them'
)
_KEPT = 'vito_mm.AtomicCheckpointHook'


class PlanError(RuntimeError):
    """The suite cannot start.

    Attributes:
        problems (list[str]): Everything that is wrong.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        listing = ''.join('\n  - ' + text.replace('\n', '\n    ') for text in self.problems)
        super().__init__(f'{len(self.problems)} problem(s), nothing was started:{listing}')


@dataclass
class PlannedRun:
    """A run, and how it is started.

    Attributes:
        run (Run): The run.
        config (Path): Config file.
        settings (dict[str, str]): What ``--cfg-options`` gets, as text by key.
        fingerprint (str): Hash of the resolved config, the checkpoint's content and the seed.
        checkpoint_sha256 (str): Hash of the checkpoint's content alone.
        identity (dict): What of the resolved config goes into the fingerprint.
        max_epochs (int): Epochs of an epoch-based config, else 1.
    """

    run: Run
    config: Path
    settings: dict[str, str]
    fingerprint: str
    checkpoint_sha256: str = RANDOM
    identity: dict = field(default_factory=dict, repr=False)
    max_epochs: int = 1

    @property
    def name(self) -> str:
        """What the user sees, such as ``pascal/vito/lr0.01/seed0``."""
        return '/'.join(self.run.work_dir.parts[-4:])

    def arguments(self) -> list[str]:
        """Behind the config and the work dir on the command line of ``tools/train.py``."""
        return ['--resume', '--cfg-options', *(f'{k}={v}' for k, v in self.settings.items())]


@dataclass
class Plan:
    """All runs of a suite, checked.

    Attributes:
        options (SuiteOptions): What was asked for.
        runs (list[PlannedRun]): In the order in which they are started: all tasks and checkpoints
            with the first seed come first.
        places (list[dict[str, str]]): Environment of each run side by side.
        threads (int): Threads of each process.
        configs (dict[str, Config]): Resolved config of each task, without a sweep's settings.
        run_bytes (dict[str, tuple[int, int]]): Size of a checkpoint of each task while it trains
            and afterwards.
        seconds (dict[str, float]): Estimated time of a run of each task, where it was measured.
        remarks (list[str]): What loads, but should be known.
        batches (dict[str, str]): How the batch of each task is made up, for people.
    """

    options: SuiteOptions
    runs: list[PlannedRun] = field(default_factory=list)
    places: list[dict[str, str]] = field(default_factory=list)
    threads: int = 1
    configs: dict[str, Config] = field(default_factory=dict)
    run_bytes: dict[str, tuple[int, int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    batches: dict[str, str] = field(default_factory=dict)


def gpu_names(count: int) -> list[str]:
    """What to put into ``CUDA_VISIBLE_DEVICES`` for each GPU that this process sees.

    What that variable hides stays hidden; its entries may be names, not numbers.

    Args:
        count (int): Number of GPUs that PyTorch sees.

    Returns:
        list[str]: One name a GPU.
    """
    visible = os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')
    return visible[:count] if len(visible) >= count and visible[0] else [*map(str, range(count))]


def make_plan(options: SuiteOptions) -> Plan:
    """Lay out the runs and check all that can be told without training.

    Args:
        options (SuiteOptions): What was asked for.

    Returns:
        Plan: The runs.

    Raises:
        PlanError: If anything is wrong; it lists all of it.
    """
    planner = _Planner(options)
    planner.lay_out()
    if planner.problems:
        raise PlanError(list(dict.fromkeys(planner.problems)))
    return planner.plan


class _Planner:
    """Collects the plan and its problems."""

    def __init__(self, options: SuiteOptions) -> None:
        self.options = options
        self.plan = Plan(options)
        self.problems: list[str] = []
        self.unfit: dict[tuple[str, str], list[str]] = {}

    def lay_out(self) -> None:
        options = self.options
        if options.protocol not in PROTOCOLS:
            self.problems.append(
                f'--protocol {options.protocol}: choose among {", ".join(PROTOCOLS)}'
            )
        if options.seeds < 1:
            self.problems.append(f'--seeds {options.seeds}: give 1 or more')
        if options.first_seed < 0:
            self.problems.append(f'--first-seed {options.first_seed}: give 0 or more')
        tasks = self._tasks()
        labelled = self._parsed(label_checkpoints, options.checkpoints) or {}
        if not options.checkpoints:
            self.problems.append('--checkpoints: name at least one file, or random')
        sweep = self._parsed(parse_sweep, options.sweep) or {}
        self._lay_out_places()
        self._check_work_dir()
        if options.protocol not in PROTOCOLS:
            return
        hashes = {
            label: content_hash(file)
            for label, file in labelled.items()
            if file is None or file.is_file()
        }
        by_task = [self._runs_of(task, labelled, hashes, sweep) for task in tasks]
        for (label, error), titles in self.unfit.items():
            self.problems.append(f'checkpoint {label} for {", ".join(titles)}: {error}')
        # Seed by seed, so that a first comparison is there early.
        self.plan.runs = sorted(itertools.chain(*by_task), key=lambda planned: planned.run.seed)
        if not self.problems:
            self._check_disk()

    def _parsed(self, function: Any, texts: Sequence[str]) -> Any:
        try:
            return function(texts)
        except ValueError as error:
            self.problems.append(str(error))
            return None

    def _tasks(self) -> list[Task]:
        for name in self.options.tasks:
            if name not in TASKS:
                self.problems.append(
                    f'--tasks {name}: choose among {", ".join(TASKS)}{near_text(name, TASKS)}'
                )
        return [task for name, task in TASKS.items() if name in self.options.tasks]

    def _lay_out_places(self) -> None:
        """Which GPUs each of the runs side by side has."""
        import torch

        options, per_run = self.options, self.options.gpus_per_run
        if per_run < 1 or (options.jobs is not None and options.jobs < 1):
            self.problems.append('--gpus-per-run and --jobs must be 1 or more')
            return
        count = torch.cuda.device_count()
        if options.launcher != 'slurm':
            for name, value in (('partition', options.partition), ('srun-args', options.srun_args)):
                if value:
                    self.problems.append(f'--{name} means nothing without --launcher slurm')
        else:
            if options.gpus is not None:
                self.problems.append('--gpus: under --launcher slurm, Slurm chooses the GPUs')
            if not options.partition:
                self.problems.append('--launcher slurm needs --partition')
            if not shutil.which('srun'):
                self.problems.append('--launcher slurm: there is no srun on this machine')
            self.plan.places = [{} for _ in range(options.jobs or 1)]
            return
        gpus = list(range(count)) if options.gpus is None else list(options.gpus)
        if unknown := [gpu for gpu in gpus if not 0 <= gpu < count]:
            self.problems.append(
                f'--gpus {" ".join(map(str, unknown))}: this machine shows {count} GPU(s), counted '
                'from 0'
            )
            return
        if len(set(gpus)) < len(gpus):
            self.problems.append(f'--gpus {" ".join(map(str, gpus))}: one comes twice')
        jobs = options.jobs or max(1, len(gpus) // per_run)
        if gpus and jobs * per_run > len(gpus):
            self.problems.append(
                f'--jobs {jobs} with --gpus-per-run {per_run} needs {jobs * per_run} GPUs, and '
                f'there are {len(gpus)}'
            )
            return
        if gpus:
            names = gpu_names(count)
            self.plan.places = [
                {'CUDA_VISIBLE_DEVICES': ','.join(names[gpu] for gpu in gpus[i : i + per_run])}
                for i in range(0, jobs * per_run, per_run)
            ]
        else:
            self.plan.places = [{} for _ in range(jobs)]
        threads = max(1, count_cores() // (jobs * per_run))
        limit = os.environ.get('OMP_NUM_THREADS', '')
        self.plan.threads = min(threads, int(limit)) if limit.isdigit() else threads

    def _runs_of(
        self,
        task: Task,
        labelled: dict[str, Path | None],
        hashes: dict[str, str],
        sweep: dict[str, list[str]],
    ) -> list[PlannedRun]:
        """All runs of a task; its problems are collected."""
        config = self.options.repo / 'configs' / task.configs[self.options.protocol]
        missing = list(packages_problems(task))
        if not config.is_file():
            missing.append(f'{task.title}: there is no config {config}')
        self.problems += missing
        if missing:
            return []
        base = Config.fromfile(config)
        settings = self._settings_of(task, base)
        if settings is None:
            return []
        try:
            base.merge_from_dict(parse_settings([f'{k}={v}' for k, v in settings.items()]))
        except (KeyError, TypeError, IndexError) as error:
            self.problems.append(f'--cfg-options do not fit {config}: {error}')
            return []
        self.plan.configs[task.name] = base
        swept = [SHORT_KEYS.get(name, name) for name in sweep]
        before = len(self.problems) + len(self.unfit)
        unknown = list(key_problems(base, swept, config.name))
        self.problems += unknown or value_problems(base, sweep)
        self.problems += [
            f'--sweep {key}: --cfg-options sets it as well' for key in swept if key in settings
        ]
        for key in swept:
            if key in RESERVED:
                self.problems.append(f'--sweep {key}: {RESERVED[key]}')
            elif key in (_ACCUMULATED, 'auto_scale_lr.base_batch_size'):
                self.problems.append(f'--sweep {key}: set one value by --cfg-options')
        missing = data_problems(base, task)
        self.problems += missing or label_problems(base, task)
        self.problems += class_problems(base, task)
        launch = self._launch_settings(task, base, config)
        self._check_checkpoints(task, base, labelled)
        if len(self.problems) + len(self.unfit) > before or launch is None:
            return []
        self.plan.remarks += label_remarks(base, task)
        self.plan.run_bytes[task.name] = checkpoint_bytes(base)

        runs = []
        for texts in itertools.product(*sweep.values()):
            point = list(zip(sweep, texts, strict=True))
            chosen = {SHORT_KEYS.get(name, name): value for name, value in point}
            values = parse_settings([f'{k}={v}' for k, v in chosen.items()])
            cfg = Config(base.to_dict())
            cfg.merge_from_dict(values)
            stretched = self._stretched(cfg)
            cfg.merge_from_dict(parse_settings([f'{k}={v}' for k, v in stretched.items()]))
            pairs = tuple(
                # Tables and folders take what is no number or word as it was typed.
                (name, value if isinstance(value, (int, float, str)) else text)
                for (name, text), value in zip(point, values.values(), strict=True)
            )
            identity = significant(cfg)
            text = json.dumps(identity, sort_keys=True, default=str)
            first = self.options.first_seed
            for (label, file), seed in itertools.product(
                labelled.items(), range(first, first + self.options.seeds)
            ):
                if label not in hashes:
                    continue
                parts = (task.name, folder_name(label), settings_name(pairs), f'seed{seed}')
                known = f'{text}\n{hashes[label]}\n{seed}'
                own = {
                    'model.backbone.checkpoint': str(file.absolute() if file else None),
                    'randomness.seed': str(seed),
                }
                runs.append(
                    PlannedRun(
                        Run(task, label, file, pairs, seed, self._runs_dir.joinpath(*parts)),
                        config,
                        settings | chosen | stretched | own | launch,
                        hashlib.sha256(known.encode()).hexdigest(),
                        hashes[label],
                        identity,
                        cfg.train_cfg.get('max_epochs', 1),
                    )
                )
        return runs

    @property
    def _runs_dir(self) -> Path:
        return self.options.work_dir / 'runs'

    def _settings_of(self, task: Task, cfg: Config) -> dict[str, str] | None:
        """What the user sets for a task, as text by key."""
        settings: dict[str, str] = {}
        for text in self.options.data:
            name, _, folder = text.partition('=')
            if name not in TASKS or not folder:
                self.problems.append(f'--data {text}: write TASK=FOLDER{near_text(name, TASKS)}')
            elif any(sign in folder for sign in _SIGNS):
                self.problems.append(f'--data {text}: {_NO_SIGNS}')
            elif name == task.name:
                if not (moved := moved_data(cfg, folder)):
                    self.problems.append(
                        f'--data {text}: the config has no data_root for it to replace. Name the '
                        f'folders by --cfg-options {name}:KEY=VALUE'
                    )
                settings |= moved
        try:
            settings |= dict(self._options_of(task))
            parse_settings([f'{k}={v}' for k, v in settings.items()])
        except ValueError as error:
            self.problems.append(f'--cfg-options: {error}')
            return None
        for key, remedy in RESERVED.items():
            if key in settings:
                self.problems.append(f'--cfg-options {key}: {remedy}')
        return settings

    def _options_of(self, task: Task) -> Iterator[tuple[str, str]]:
        for text in self.options.cfg_options:
            key, sign, value = text.partition('=')
            name, colon, rest = key.partition(':')
            if not sign:
                raise ValueError(f'{text!r} is no KEY=VALUE')
            if colon and name not in TASKS:
                raise ValueError(f'{text!r} names no task before the colon{near_text(name, TASKS)}')
            if not colon or name == task.name:
                yield (rest if colon else key), value

    @staticmethod
    def _stretched(cfg: Config) -> dict[str, str]:
        return stretched_schedule(cfg, cfg.optim_wrapper.get('accumulative_counts', 1))

    def _launch_settings(self, task: Task, cfg: Config, config: Path) -> dict[str, str] | None:
        """Batch of a GPU and what is kept on the disk: no part of what the run computes."""
        total = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
        gpus = self.options.gpus_per_run
        count = cfg.optim_wrapper.get('accumulative_counts', 1)
        if total is None:
            self.problems.append(
                f'{task.title}: {config} has no auto_scale_lr.base_batch_size, the batch over all '
                f'GPUs. Set --cfg-options {task.name}:auto_scale_lr.base_batch_size=16'
            )
        elif not isinstance(count, int) or count < 1:
            self.problems.append(f'{task.title}: {_ACCUMULATED} is {count}: give 1 or more')
        elif count > 1 and 'max_epochs' not in cfg.train_cfg:
            # MMEngine counts micro-batches: the schedule would end after a part of its steps.
            self.problems.append(
                f'{task.title}: {_ACCUMULATED}={count} would shorten the schedule, whose '
                'train_cfg.max_iters counts every micro-batch. Use --gpus-per-run instead'
            )
        elif count > 1 and isinstance(cfg.get('param_scheduler'), tuple):
            self.problems.append(
                f'{task.title}: {_ACCUMULATED}={count} changes parts of param_scheduler, which '
                f'MMEngine can do in a list only. Write it with square brackets in {config}'
            )
        elif total % (gpus * count):
            accumulated = f' x {count} of {_ACCUMULATED}' if count > 1 else ''
            self.problems.append(
                f'{task.title}: the batch of {total} images cannot be split over --gpus-per-run '
                f'{gpus}{accumulated}'
            )
        else:
            share = total // (gpus * count)
            accumulated = f' x {count} accumulated' if count > 1 else ''
            self.plan.batches[task.name] = (
                f'batch {total} = {gpus} GPU{"s" * (gpus > 1)} x {share}{accumulated}'
            )
            if stretched := self._stretched(cfg):
                changes = ', '.join(f'{key}={value}' for key, value in stretched.items())
                self.plan.remarks.append(
                    f'{task.title}: {_ACCUMULATED}={count}, and MMEngine counts every micro-batch, '
                    f'so what its schedule counts in iterations is {count} times as long: {changes}'
                )
            return {
                'train_dataloader.batch_size': str(share),
                'default_hooks.checkpoint.type': _KEPT,
                'default_hooks.checkpoint.max_keep_ckpts': '1',
                'default_hooks.checkpoint.save_optimizer': 'True',
            }
        return None

    def _check_checkpoints(self, task: Task, cfg: Config, labelled: dict[str, Path | None]) -> None:
        from vito_mm.checkpoint import CheckpointError, check_config

        for label, file in labelled.items():
            if file is None:
                continue
            if not file.is_file():
                self.problems.append(f'--checkpoints {file}: there is no such file')
                continue
            if any(sign in str(file.absolute()) for sign in _SIGNS):
                self.problems.append(f'{file}: {_NO_SIGNS}')
                continue
            try:
                with quiet():
                    check = check_config(cfg, str(file))
            except CheckpointError as error:
                self.unfit.setdefault((label, str(error)), []).append(task.title)
            else:
                found = (f'{label}: {text}' for text in getattr(check, 'remarks', ()))
                self.plan.remarks += [text for text in found if text not in self.plan.remarks]

    def _existing_folder(self) -> Path:
        target = self.options.work_dir.absolute()
        for path in (target, *target.parents):
            # A link that leads nowhere is there as well: no folder can be made in its place.
            with suppress(FileNotFoundError, NotADirectoryError):
                path.lstat()
                return path
        return target

    def _check_work_dir(self) -> None:
        place = f'--work-dir {self.options.work_dir}'
        try:
            folder = self._existing_folder()
        except OSError as error:  # such as a folder above it that may not be entered
            self.problems.append(f'{place}: {error.strerror} ({error.filename}). Choose another')
            return
        if not os.path.isdir(folder):
            self.problems.append(f'{place}: {folder} is no folder')
        elif not os.access(folder, os.W_OK | os.X_OK):
            self.problems.append(f'{place}: nothing can be written to {folder}')

    def _check_disk(self) -> None:
        free = shutil.disk_usage(self._existing_folder()).free
        waiting = [p for p in self.plan.runs if not (p.run.work_dir / 'result.json').exists()]
        kept = sum(self.plan.run_bytes[p.run.task.name][1] for p in waiting)
        largest = max(training for training, _ in self.plan.run_bytes.values())
        needed = kept + peak_bytes(largest) * min(len(waiting), len(self.plan.places))
        needed -= sum(saved_bytes(p.run.work_dir) for p in waiting)
        if needed > free:
            self.problems.append(
                f'--work-dir {self.options.work_dir}: checkpoints of {len(waiting)} runs need '
                f'{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free. Choose another disk, or '
                'fewer runs'
            )


def peak_bytes(training: int) -> int:
    """Room that a running run needs: a new checkpoint is whole before the last is removed.

    Args:
        training (int): Bytes of a checkpoint with the optimizer's state.

    Returns:
        int: Bytes, with some for logs.
    """
    return 2 * training + 50_000_000


def saved_bytes(folder: Path) -> int:
    """Size of the checkpoints that a run has on the disk already.

    Args:
        folder (Path): Folder of the run.

    Returns:
        int: Bytes.
    """
    return sum(file.stat().st_size for file in folder.glob('*.pth'))


def significant(cfg: Config) -> dict:
    """The resolved config without what does not change the result.

    Args:
        cfg (Config): Config of a run.

    Returns:
        dict: What identifies the run, beside checkpoint and seed.
    """
    content = cfg.to_dict()
    logging = ('visualizer', 'vis_backends', 'log_level', 'log_processor')
    for key in ('work_dir', 'launcher', 'resume', 'env_cfg', *logging):
        content.pop(key, None)
    content['randomness'] = dict(content.get('randomness') or {})
    content['randomness'].pop('seed', None)
    content['model']['backbone'].pop('checkpoint', None)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for key in ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory'):
            content.get(loader, {}).pop(key, None)
    content['train_dataloader'].pop('batch_size', None)  # follows from base_batch_size
    for key in ('logger', 'checkpoint', 'visualization'):
        content.get('default_hooks', {}).pop(key, None)
    return without_places(content)
