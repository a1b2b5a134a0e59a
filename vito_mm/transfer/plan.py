"""The plan of a transfer suite: its runs as data, checked."""

import copy
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config

from vito_mm.checkpoint import Checkpoint, CheckpointError, check_config
from vito_mm.launch import parse_options
from vito_mm.transfer.checks import (
    ACCUMULATED,
    CHECKPOINT_KEY,
    RESERVED,
    batch_problems,
    class_problems,
    data_problems,
    disk_problems,
    option_notes,
    option_problems,
    packages_problems,
    quiet,
    suite_problems,
    sweep_problems,
    work_dir_problems,
)
from vito_mm.transfer.identity import identity_of
from vito_mm.transfer.jobs import lay_out_places
from vito_mm.transfer.labels import label_problems, training_images
from vito_mm.transfer.options import (
    SHORT_KEYS,
    SuiteOptions,
    chosen_settings,
    folder_name,
    label_checkpoints,
    moved_settings,
    parse_labels,
    parse_sweep,
    path_problems,
    setting_words,
    settings_name,
    split_tasks,
)
from vito_mm.transfer.own_task import checkpoint_settings, fit_settings, own_task, read_own
from vito_mm.transfer.run import Run, runs_in
from vito_mm.transfer.run_folder import read_json
from vito_mm.transfer.schedule import stretched_schedule
from vito_mm.transfer.tasks import ARCHITECTURES, PROTOCOLS, RANDOM, TASKS, Task
from vito_mm.transfer.variants import (
    FROZEN,
    LAYER_DECAY,
    checkpoint_bytes,
    decay_problems,
    label_settings,
    part_notes,
    part_problems,
)
from vito_mm.utils.text import count_text

_OTHER_NETWORKS = (
    f"The paper's tasks have configs for {' and '.join(ARCHITECTURES.values())}. For another "
    'network give a config that has it: --tasks NAME=CONFIG'
)


class PlanError(RuntimeError):
    """A suite that cannot start, with all of its ``problems``."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(dict.fromkeys(problems))
        listing = ''.join('\n  - ' + text.replace('\n', '\n    ') for text in self.problems)
        super().__init__(f'{len(self.problems)} problem(s), nothing was started:{listing}')


@dataclass
class Plan:
    """All runs of a suite, checked.

    Attributes:
        options (SuiteOptions): Options of the suite.
        runs (list[Run]): In the order of their start: all tasks and checkpoints with the first seed
            come first.
        places (list[dict[str, str]]): Environment of each run side by side.
        threads (int): Threads of each process.
        configs (dict[str, Config]): Resolved config of each task, without a sweep's settings.
        run_bytes (dict[str, tuple[int, int]]): Size of a checkpoint of each task while it trains
            and afterwards.
        warnings (list[str]): Findings that do not stop the suite.
        batches (dict[str, str]): Composition of the batch of each task, for messages.
        architecture (str): One of :data:`.tasks.ARCHITECTURES`; empty without a task of the paper.
    """

    options: SuiteOptions
    runs: list[Run] = field(default_factory=list)
    places: list[dict[str, str]] = field(default_factory=list)
    threads: int = 1
    configs: dict[str, Config] = field(default_factory=dict)
    run_bytes: dict[str, tuple[int, int]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    batches: dict[str, str] = field(default_factory=dict)
    architecture: str = ''


def make_plan(options: SuiteOptions) -> Plan:
    """Lay out the runs and check all that can be checked without training.

    Raises:
        PlanError: If anything is wrong; it lists all of it.
    """
    plan = Plan(options)
    problems = [*work_dir_problems(options.work_dir)]

    def parsed(function: Any, argument: Any) -> Any:
        try:
            return function(argument)
        except ValueError as error:
            problems.append(str(error))
            return None

    tasks = parsed(split_tasks, options.tasks) or {}
    problems += option_problems(options, tasks)
    labelled = parsed(label_checkpoints, options.checkpoints) or {}
    sweep = parsed(parse_sweep, options.sweep_words) or {}
    swept = {SHORT_KEYS.get(name, name) for name in sweep}
    if options.frozen_backbone and SHORT_KEYS['layer_decay'] in swept:
        problems.append('layer_decay, or --layer-decay, means nothing with --frozen-backbone')
    labels = parsed(parse_labels, options.labels) or []
    plan.places, plan.threads = parsed(lay_out_places, options) or ([], 1)
    if options.protocol not in PROTOCOLS:
        raise PlanError(problems)
    checkpoints: dict[str, Checkpoint | None] = {}
    for label, file in labelled.items():
        try:
            if file:
                problems += path_problems({CHECKPOINT_KEY: str(file.absolute())}, str(file))
            checkpoints[label] = Checkpoint.read(file) if file else None
        except CheckpointError as error:
            problems.append(f'--checkpoints {label}: {error}')
    if any(name in TASKS for name in tasks):
        plan.architecture = parsed(partial(_architecture_of, options), checkpoints) or ''
    unfit: dict[tuple[str, str], list[str]] = {}
    for name in sorted(tasks, key=[*TASKS, *tasks].index):
        if config := tasks[name]:
            task, cfg = parsed(partial(_own_task, options, name), config) or (None, None)
        else:  # which configs it takes is not known without a network
            task, cfg = TASKS.get(name) if plan.architecture else None, None
        if task:
            plan.runs += _runs_of(task, cfg, plan, checkpoints, sweep, labels, problems, unfit)
    for (label, error), titles in unfit.items():
        problems.append(f'checkpoint {label} for {", ".join(titles)}: {error}')
    # Seed by seed, so that a first comparison is there early.
    plan.runs.sort(key=lambda run: run.seed)
    if not problems:
        _find_folders(plan)
        problems += disk_problems(options.work_dir, plan.runs, len(plan.places), plan.run_bytes)
        problems += suite_problems(options, plan.runs, plan.architecture)
    if problems:
        raise PlanError(problems)
    return plan


def _find_folders(plan: Plan) -> None:
    """Keep the folders of points that an earlier call had in other words (``wd lr``, long keys)."""

    def point(run: Run) -> tuple:
        settings = {(SHORT_KEYS.get(name, name), repr(value)) for name, value in run.settings}
        return run.task.name, run.label, frozenset(settings)

    known: dict[tuple, Run] = {}
    for run in runs_in(plan.options.work_dir):
        known.setdefault(point(run), run)
    for run in plan.runs:
        if same := known.get(point(run)):
            run.settings, run.work_dir = same.settings, same.work_dir.parent / run.work_dir.name


def _own_task(options: SuiteOptions, name: str, config: str) -> tuple[Task, Config]:
    """A task of the user, and its config."""
    cfg = read_own(name, config)
    changed = copy.deepcopy(cfg)
    settings = moved_settings(name, cfg, options) | chosen_settings(name, options)
    try:
        changed.merge_from_dict(parse_options(setting_words(settings)))
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f'--cfg-options do not fit {config}: {error}') from None
    return own_task(name, config, changed), cfg


def _architecture_of(options: SuiteOptions, checkpoints: Mapping[str, Checkpoint | None]) -> str:
    """Network whose configs the paper's tasks take: that of the checkpoints, else of the suite.

    Raises:
        ValueError: If the checkpoints hold several: gains and sweeps are of one.
    """
    found = {label: _network_in(each) for label, each in checkpoints.items() if each}
    if len(set(found.values())) > 1:
        listed = ', '.join(f'{label} is a {ARCHITECTURES[kind]}' for label, kind in found.items())
        raise ValueError(f'--checkpoints: {listed}. Give each network a --work-dir of its own')
    known = None
    with suppress(OSError):  # of a folder that cannot be, which is said elsewhere
        known = (read_json(options.work_dir / 'suite.json') or {}).get('architecture')
    architecture = next(iter(found.values()), known or 'r50')
    if not TASKS['coco'].config_for(options.protocol, architecture):
        raise ValueError(
            f'--protocol {options.protocol} has no configs for a {ARCHITECTURES[architecture]}; '
            '--protocol paper has'
        )
    return architecture


def _network_in(checkpoint: Checkpoint) -> str:
    """The one of :data:`ARCHITECTURES` that a checkpoint holds, as far as its names tell."""
    with suppress(CheckpointError):  # without weights: strict loading says so
        if any('relative_position_bias_table' in name for name in checkpoint.state_dict):
            return 'swin_s'
    return 'r50'


def _runs_of(
    task: Task,
    cfg: Config | None,
    plan: Plan,
    checkpoints: Mapping[str, Checkpoint | None],
    sweep: Mapping[str, Sequence[str]],
    labels: Sequence[float],
    problems: list[str],
    unfit: dict[tuple[str, str], list[str]],
) -> list[Run]:
    """All runs of a task; its problems, checkpoints that do not fit and warnings are collected.

    ``cfg`` is that of a task of the user, None for one of the paper.
    """
    options, warnings = plan.options, []
    if task.config:
        config_file = Path(task.config)
    else:
        shipped = task.config_for(options.protocol, plan.architecture)
        config_file = options.repo / 'configs' / shipped
    missing = list(packages_problems(task))
    if not (task.config or config_file.is_file()):
        missing.append(f'{task.title}: there is no config {config_file}')
    problems += missing
    if missing:
        return []
    base = cfg or Config.fromfile(config_file)
    try:
        chosen = chosen_settings(task.name, options)
        given = moved_settings(task.name, base, options) | chosen
        warnings += (f'{task.title}: {text}' for text in option_notes(base, chosen))
        base.merge_from_dict(parse_options(setting_words(given)))
        settings: dict[str, str] = {}
        if task.config:
            settings, remarks = fit_settings(base, task)
            warnings += (f'{task.title}: {text}' for text in remarks)
        base.merge_from_dict(parse_options(setting_words(settings | given)))
        if 'layer_decay' in sweep:
            problems += decay_problems(base, task, sweep['layer_decay'])
            base.merge_from_dict(parse_options(setting_words(LAYER_DECAY)))
            settings |= LAYER_DECAY
        settings |= given
    except ValueError as error:
        problems.append(str(error))
        return []
    except (KeyError, TypeError, IndexError) as error:
        problems.append(f'--cfg-options do not fit {config_file}: {error}')
        return []
    found = [f'--cfg-options {key}: {RESERVED[key]}' for key in chosen if key in RESERVED]
    found += sweep_problems(base, sweep, given, config_file.name)
    missing = data_problems(base, task)
    label_faults, remarks = ([], []) if missing else label_problems(base, task)
    warnings += remarks
    found += [*missing, *label_faults, *class_problems(base, task)]
    found += batch_problems(base, task, options.gpus_per_run, config_file)
    if min(labels, default=100) < 100 and not found:
        try:
            images = training_images(base, task)
            found += part_problems(task, images, labels, base.auto_scale_lr.base_batch_size)
        except ValueError as error:
            found.append(str(error))
        warnings += part_notes(base, task)
    fits = True
    for label, checkpoint in checkpoints.items():
        try:
            with quiet():
                check = checkpoint and check_config(base, checkpoint)
            warnings += (f'{label}: {text}' for text in getattr(check, 'warnings', ()))
        except CheckpointError as error:
            text = str(error) + ('' if task.config else f'\n{_OTHER_NETWORKS}')
            unfit.setdefault((label, text), []).append(task.title)
            fits = False
    problems += found
    if found or not fits:
        return []
    if options.frozen_backbone:
        settings |= FROZEN
        base.merge_from_dict(parse_options(setting_words(FROZEN)))
    launch = _launch_settings(task, base, plan)
    plan.warnings += [text for text in warnings if text not in plan.warnings]
    size, runs = checkpoint_bytes(base), []
    for part in labels:
        of_part = label_settings(base, part)
        cfg = Config(base.to_dict())
        cfg.merge_from_dict(parse_options(setting_words(of_part)))
        variant = task.variant(part, options.frozen_backbone)
        plan.configs[variant.name] = base  # how long a step takes does not depend on the part
        plan.run_bytes[variant.name] = size
        runs += _runs_of_variant(
            *(variant, cfg, plan, checkpoints, sweep, config_file),
            *(settings | of_part, launch, chosen),
        )
    return runs


def _runs_of_variant(
    task: Task,
    base: Config,
    plan: Plan,
    checkpoints: Mapping[str, Checkpoint | None],
    sweep: Mapping[str, Sequence[str]],
    config_file: Path,
    settings: dict[str, str],
    launch: dict[str, str],
    own: dict[str, str],
) -> list[Run]:
    """The runs of a task with a part of its labels: each checkpoint, point of the sweep, seed."""
    options = plan.options
    runs = []
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for texts in itertools.product(*sweep.values()):
        chosen = {SHORT_KEYS.get(name, name): text for name, text in zip(sweep, texts, strict=True)}
        values = parse_options(setting_words(chosen))
        cfg = Config(base.to_dict())
        cfg.merge_from_dict(values)
        stretched = stretched_schedule(cfg)
        cfg.merge_from_dict(parse_options(setting_words(stretched)))
        pairs = tuple(
            # Tables and folders take what is no number or word as it was typed.
            (name, value if isinstance(value, (int, float, str)) else text)
            for name, text, value in zip(sweep, texts, values.values(), strict=True)
        )
        identity = identity_of(cfg)
        text = json.dumps(identity, sort_keys=True, default=str)
        for (label, checkpoint), seed in itertools.product(checkpoints.items(), seeds):
            file = Path(checkpoint.path) if checkpoint else None
            digest = checkpoint.sha256 if checkpoint else RANDOM
            parts = ('runs', task.name, folder_name(label), settings_name(pairs), f'seed{seed}')
            of_run = {
                CHECKPOINT_KEY: str(file and file.absolute()),
                'randomness.seed': str(seed),
                **label_settings(base, task.labels, seed),
            }
            runs.append(
                Run(
                    *(task, label, file, pairs, seed, options.work_dir.joinpath(*parts)),
                    config_file=config_file,
                    cfg_options=settings | chosen | stretched | of_run | launch,
                    fingerprint=hashlib.sha256(f'{text}\n{digest}\n{seed}'.encode()).hexdigest(),
                    checkpoint_sha256=digest,
                    identity=identity,
                    max_epochs=cfg.train_cfg.get('max_epochs', 1),
                    chosen=own,
                )
            )
    return runs


def _launch_settings(task: Task, cfg: Config, plan: Plan) -> dict[str, str]:
    """Batch of a GPU, and what is kept on the disk: no part of the result."""
    total, gpus = cfg.auto_scale_lr.base_batch_size, plan.options.gpus_per_run
    count = cfg.optim_wrapper.get('accumulative_counts', 1)
    share = total // (gpus * count)
    accumulated = f' x {count} accumulated' if count > 1 else ''
    plan.batches[task.name] = f'batch {total} = {count_text(gpus, "GPU")} x {share}{accumulated}'
    if stretched := stretched_schedule(cfg):
        plan.warnings.append(
            f'{task.title}: {ACCUMULATED}={count}, and MMEngine counts every micro-batch, so what '
            f'its schedule counts in iterations is {count} times as long: '
            f'{", ".join(setting_words(stretched))}'
        )
    return checkpoint_settings(cfg) | {
        'train_dataloader.batch_size': str(share),
        'default_hooks.checkpoint.type': 'vito_mm.AtomicCheckpointHook',
        'default_hooks.checkpoint.max_keep_ckpts': '1',
        'default_hooks.checkpoint.save_optimizer': 'True',
    }
