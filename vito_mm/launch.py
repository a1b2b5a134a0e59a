"""Start a run from a config: what ``tools/train.py`` and ``tools/test.py`` share."""

import argparse
import inspect
import logging
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from vito_mm.checkpoint.config_parts import placed_datasets, type_name
from vito_mm.checkpoint.loading import is_pretraining, load_pretraining
from vito_mm.utils.configs import follow, read_config
from vito_mm.utils.text import near_text
from vito_mm.utils.unwrap import unwrap
from vito_mm.videos.tables import ENDINGS

LAUNCHED_AT = 'VITO_MM_LAUNCHED_AT'
"""Environment variable in which ``_torchrun.sh`` says when it was started (seconds since 1970)."""

_PLACE = re.compile(r'(.*[._])?(root|file|dir|(?<!drop_)path|folder|checkpoint|from|data)')
"""Keys of a config whose values are files or folders, but those that say how to see to them."""
_NO_PLACES = ('None', 'True', 'False')


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """Parse ``key=value`` words as MMEngine's ``DictAction`` does, but leave places as typed.

    MMEngine removes blanks, takes a comma for a list and digits for a number. Where a key names a
    place (``data_root``, ``ann_file``, ``checkpoint``, ``load_from``, ...) the value is text, with
    ``~`` for the home folder; lists in brackets, None, True and False are taken as elsewhere.

    Raises:
        ValueError: If a word is no ``key=value``, or its brackets do not match.
    """
    options = {}
    for text in words:
        key, sign, value = text.partition('=')
        if not (key and sign):
            raise ValueError(f'{text!r} is no KEY=VALUE')
        is_place = _PLACE.fullmatch(key) and value not in _NO_PLACES
        if is_place and not value.startswith(('[', '(')):
            options[key] = os.path.expanduser(value.strip('\'"'))
        else:
            try:
                options[key] = DictAction._parse_iterable(value)
            except AssertionError as error:
                raise ValueError(str(error)) from None
    return options


def apply_options(cfg: Config, words: Sequence[str]) -> None:
    """Merge ``key=value`` words into a config; warns of keys that are new to it.

    A new key may be meant, as of an argument that the config leaves at its default, or be a slip
    of the pen that would change nothing.

    Raises:
        ValueError: As :func:`parse_options`.
    """
    options = parse_options(words)
    for key in options:
        node, unknown = follow(cfg, key)
        if unknown:
            parent = key.removesuffix('.'.join(unknown)).rstrip('.')
            place = f'{parent} of the config' if parent else 'the config'
            near = near_text(unknown[0], node if isinstance(node, (Config, dict)) else ())
            _tell(f'--cfg-options {key}: {unknown[0]!r} is new to {place}{near}')
    cfg.merge_from_dict(options)
    loop = cfg.get('train_cfg') or {}
    if loop.get('type') == 'ClipTrainLoop' and any(
        key.startswith('param_scheduler') for key in options
    ):
        loop.setdefault('fit_schedule', False)  # a schedule that is typed is meant as it is


def check_arguments(cfg: Config) -> None:
    """Check the arguments of the data loaders and their data sets before anything is built.

    Raises:
        SystemExit: If one does not exist; names the config key and what was meant.
    """
    loader = {*inspect.signature(DataLoader).parameters, 'num_batch_per_epoch'}
    for part in ('train', 'val', 'test'):
        key = f'{part}_dataloader'
        if isinstance(cfg.get(key), dict):
            _check_keys(cfg[key], key, 'DataLoader', loader)
            _check_datasets(cfg[key].get('dataset'), f'{key}.dataset', cfg.get('default_scope'))


def _check_datasets(node: Any, key: str, scope: str | None) -> None:
    if isinstance(node, (list, tuple)):
        for number, each in enumerate(node):
            _check_datasets(each, f'{key}.{number}', scope)
    if not (isinstance(node, dict) and 'type' in node):
        return
    for name in ('dataset', 'datasets'):
        _check_datasets(node.get(name), f'{key}.{name}', scope)
    kind = node['type']
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(node.get('_scope_') or scope) as registry:
            kind = registry.get(kind)
    known: set[str] = set()
    for each in inspect.getmro(kind) if inspect.isclass(kind) else ():
        parameters = inspect.signature(each.__init__).parameters.values()
        known.update(parameter.name for parameter in parameters)
        if all(parameter.kind != parameter.VAR_KEYWORD for parameter in parameters):
            _check_keys(node, key, kind.__name__, known)
            return


def _check_keys(node: Config, key: str, kind: str, known: set[str]) -> None:
    for name in node:
        if name not in known | {'type'} and not name.startswith('_'):
            near = near_text(name, known)
            raise SystemExit(f'{key}.{name}: {kind} has no such argument{near}')


def load_config(args: argparse.Namespace) -> Config:
    """Read the config that the arguments name and apply what they override.

    Args:
        args (argparse.Namespace): Has ``config``, ``work_dir``, ``cfg_options`` (key=value words),
            ``launcher`` and ``local_rank``, and may have ``videos`` (see :func:`set_videos`).

    Raises:
        SystemExit: If there is no such config file, or an option is malformed.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    try:
        cfg = read_config(args.config)
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from None
    cfg.launcher = args.launcher
    if args.cfg_options:
        try:
            apply_options(cfg, args.cfg_options)
        except ValueError as error:
            raise SystemExit(f'--cfg-options: {error}') from None
    if getattr(args, 'videos', None):
        set_videos(cfg, args.videos)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    return cfg


def set_videos(cfg: Config, place: str | os.PathLike) -> None:
    """Let a config of pre-training take its videos from another place.

    Args:
        cfg (Config): Config, changed in place.
        place: Folder of videos, or a manifest, whose relative paths start from its folder.

    Raises:
        SystemExit: If there is no such place, or the config does not train on one set of videos.
    """
    place = os.path.expanduser(place)
    is_folder = os.path.isdir(place)
    if not (is_folder or (os.path.isfile(place) and place.lower().endswith(ENDINGS))):
        raise SystemExit(
            f'--videos {place}: there is no such folder, or manifest ({", ".join(ENDINGS)})'
        )
    dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    found = [d for _, d in placed_datasets(dataset, '') if type_name(d) == 'VideoDataset']
    if len(found) != 1:
        raise SystemExit(
            f'--videos {place}: the config trains on {len(found)} sets of videos and not on one. '
            'Name each by --cfg-options, as in train_dataloader.dataset.datasets.0.data_root=FOLDER'
        )
    found[0].update(data_root=place if is_folder else '', ann_file='' if is_folder else place)


def fit_to_machine(cfg: Config, amp: bool = False) -> None:
    """Let a config written for GPUs run on a machine without one, and say what changes.

    NCCL and MMEngine's ``AmpOptimWrapper`` refuse a CPU, MMEngine's launcher selects a CUDA device,
    and bfloat16 pays only on CPUs that multiply it (AMX). With a GPU nothing is changed.

    Args:
        cfg (Config): Config, changed in place.
        amp (bool): Keep the config's bfloat16 on a CPU. Defaults to False.
    """
    if torch.cuda.is_available():
        return
    optim_wrapper = cfg.get('optim_wrapper') or {}
    wrapper = optim_wrapper.get('type', '')
    is_refused = wrapper == 'AmpOptimWrapper'
    if is_refused or (optim_wrapper.get('dtype') and not amp):
        remedy = '' if is_refused else ' (--amp keeps it, for CPUs with AMX)'
        _tell(f'no GPU: training in float32 instead of mixed precision{remedy}')
        if is_refused:
            optim_wrapper.type = 'OptimWrapper'
        for key in ('dtype', 'loss_scale', 'use_fsdp'):
            optim_wrapper.pop(key, None)
    if cfg.launcher == 'pytorch' and not torch.distributed.is_initialized():
        _tell('no GPU: processes talk over gloo instead of NCCL')
        torch.distributed.init_process_group('gloo')
        cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {}).backend = 'gloo'


class _Runner(Runner):
    """MMEngine's runner, for which ``load_from`` in pre-training is strict."""

    def load_or_resume(self) -> None:
        """Resume and load as MMEngine does, but in pre-training all of ``load_from`` or nothing."""
        model = unwrap(self.model)
        if is_pretraining(model) and self._load_from and not (self._resume or self._has_loaded):
            load_pretraining(model, self._load_from)
            self._has_loaded = True
        super().load_or_resume()

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load as MMEngine does; to resume, only from a file that a run can go on from."""
        checkpoint = super().load_checkpoint(filename, *args, **kwargs)
        if self._resume and 'optimizer' not in checkpoint:
            raise ValueError(
                f'{filename} has no state of the optimizer, as files of best weights and exported '
                'ones: resume from another one, or start a new run from its weights (load_from)'
            )
        return checkpoint


class _CPURunner(_Runner):
    """MMEngine's runner where there is no GPU: it names CUDA devices and keeps SyncBN."""

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        if not self.distributed or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        # PyTorch has no SyncBatchNorm on CPUs; without a process group MMEngine does the same.
        _tell('no GPU: SyncBN becomes BN, each process has its own batch statistics')
        model_wrapper_cfg = dict(
            model_wrapper_cfg
            or dict(
                broadcast_buffers=False,
                find_unused_parameters=self.cfg.get('find_unused_parameters', False),
            ),
            device_ids=None,
        )
        return super().wrap_model(model_wrapper_cfg, revert_sync_batchnorm(model))


def list_stages(node: Config | dict | list) -> None:
    """Make lists of the pipelines of a config whose stages have names, in place.

    MMEngine sorts the keys of the config that it writes next to the log and into checkpoints: named
    stages would come back from there in another order.
    """
    from vito_mm.datasets.transforms.augment_views import named_stages  # needs more than a launch

    if isinstance(node, list):
        for part in node:
            list_stages(part)
    elif isinstance(node, (Config, dict)):
        for name in list(node.keys()):
            if name == 'pipeline' and isinstance(node[name], dict):
                node[name] = named_stages(node[name])
            elif name == 'pipelines' and node.get('type') == 'AugmentViews':
                node[name] = [named_stages(part) for part in named_stages(node[name])]
            list_stages(node[name])


def without_workers(dataloader: Any) -> Any:
    """Remove from a data loader without workers the settings that need some; returns it."""
    if isinstance(dataloader, dict) and dataloader.get('num_workers') == 0:
        for name in ('persistent_workers', 'prefetch_factor', 'multiprocessing_context', 'timeout'):
            dataloader.pop(name, None)
    return dataloader


def build_runner(cfg: Config, amp: bool = False) -> Runner:
    """Build MMEngine's runner for this machine; the config has ``work_dir`` and ``launcher``.

    Args:
        cfg (Config): Config, changed in place.
        amp (bool): As of :func:`fit_to_machine`. Defaults to False.
    """
    check_arguments(cfg)
    fit_to_machine(cfg, amp)
    list_stages(cfg)
    for part in ('train', 'val', 'test'):
        without_workers(cfg.get(f'{part}_dataloader'))
    runner_type = _Runner if torch.cuda.is_available() else _CPURunner
    return runner_type.from_cfg(cfg)


def set_resume(cfg: Config, resume: str | None) -> None:
    """Decide from which checkpoint a run goes on, if from any.

    Processes that torchrun has started again after a failure (``MAX_RESTARTS``) go on from what was
    saved since the launch, whatever the launch was asked to start from. The time of the launch
    tells that: torchrun counts restarts on each machine by itself.

    Args:
        cfg (Config): Config with ``work_dir``, changed in place.
        resume (str, optional): A checkpoint; 'auto' for the latest complete one in the work dir, or
            the beginning where there is none; or None for a new run.
    """
    work_dir = Path(cfg.work_dir)
    if resume == 'auto':
        resume = latest_checkpoint(work_dir)
        if resume is None:
            _tell(f'no checkpoint to resume from in {work_dir}: starting at the beginning')
    launched_at = os.environ.get(LAUNCHED_AT)
    pointer = work_dir / 'last_checkpoint'
    if launched_at and pointer.is_file() and pointer.stat().st_mtime > float(launched_at):
        resume = pointer.read_text().strip()
    if resume is not None:
        _tell(f'resuming from {resume}')
        cfg.resume, cfg.load_from = True, str(resume)


def latest_checkpoint(work_dir: str | os.PathLike) -> str | None:
    """Find the latest complete checkpoint of a run, None if there is none.

    It is the one that ``last_checkpoint`` names or, if that is missing or cut off, the newest
    ``.pth`` file that is not. ``best_*.pth`` do not count: they lack the state of the optimizer.
    """
    work_dir = Path(work_dir)
    pointer = work_dir / 'last_checkpoint'
    named = [pointer.read_text().strip()] if pointer.is_file() else []
    named += [str(work_dir / Path(file).name) for file in named]  # the folder may have moved
    saved = [file for file in work_dir.glob('*.pth') if not file.name.startswith('best_')]
    newest_first = sorted(saved, key=lambda file: -file.stat().st_mtime)
    for file in dict.fromkeys((*named, *map(str, newest_first))):
        # torch.save writes an archive whose directory comes last, so a cut file has none.
        if Path(file).is_file() and zipfile.is_zipfile(file):
            return file
        _tell(f'{file} is missing or cut off, looking for an older checkpoint')
    return None


def _tell(message: str) -> None:
    if int(os.environ.get('RANK', 0)) == 0:
        print_log(message, logger='current', level=logging.WARNING)
