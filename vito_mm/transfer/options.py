"""The options of a transfer suite and the notations on its command line."""

import hashlib
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from vito_mm.launch import parse_options
from vito_mm.transfer.identity import moved_data
from vito_mm.transfer.tasks import PROTOCOL_TASKS, RANDOM, TASKS
from vito_mm.utils.text import near_text

SHORT_KEYS = {
    'lr': 'optim_wrapper.optimizer.lr',
    'wd': 'optim_wrapper.optimizer.weight_decay',
    'layer_decay': 'optim_wrapper.paramwise_cfg.layer_decay_rate',
}
"""Config keys of the short names in a sweep."""


@dataclass
class SuiteOptions:
    """Options of ``tools/transfer.py``, whose ``--help`` describes those that are not listed.

    Attributes:
        repo (Path): Folder with ``configs`` and ``tools``: a checkout, or an installed ``.mim``.
        checkpoints (Sequence[str]): Files, ``'label=file'``, or ``'random'``.
        tasks (Sequence[str]): Names of the paper's tasks, or ``'name=config'``.
        sweep (Sequence[str]): See :func:`parse_sweep`.
        cfg_options (Sequence[str]): ``'key=value'`` for all tasks or ``'task:key=value'`` for one.
        data (Sequence[str]): ``'task=folder'`` where data is not where the config says.
        gpus (Sequence[int], optional): Visible GPUs to use, counted from 0. Defaults to all.
        gpus_per_run (int): GPUs (without any: processes) of one run.
        jobs (int, optional): Runs side by side. Defaults to as many as the GPUs allow, on a CPU and
            under Slurm 1.
        labels (Sequence[str]): Parts of the labelled training images, such as ``'10%'``.
        layer_decay (Sequence[str]): Values of ``layer_decay`` in the sweep.
    """

    repo: Path
    checkpoints: Sequence[str]
    tasks: Sequence[str] = tuple(TASKS)
    seeds: int = 5
    sweep: Sequence[str] = ()
    protocol: str = 'paper'
    work_dir: Path = Path('work_dirs/transfer')
    cfg_options: Sequence[str] = ()
    data: Sequence[str] = ()
    gpus: Sequence[int] | None = None
    gpus_per_run: int = 1
    jobs: int | None = None
    launcher: str = 'none'
    partition: str = ''
    srun_args: str = ''
    redo: bool = False
    first_seed: int = 0
    labels: Sequence[str] = ('100%',)
    frozen_backbone: bool = False
    layer_decay: Sequence[str] = ()

    @property
    def sweep_words(self) -> list[str]:
        """Words of the sweep, with ``layer_decay`` of its own option."""
        decay = [f'layer_decay={",".join(self.layer_decay)}'] if self.layer_decay else []
        return [*self.sweep, *decay]

    def srun(self) -> list[str]:
        """Words before a command on one GPU under Slurm; none without Slurm."""
        if self.launcher != 'slurm':
            return []
        words = [f'--partition={self.partition}', '--gres=gpu:1', '--ntasks=1']
        return ['srun', *words, *shlex.split(self.srun_args)]

    def environment(self) -> dict[str, str]:
        """Variables that the shell scripts of ``tools`` read."""
        if self.launcher == 'slurm':
            return {
                'PYTHON': sys.executable,
                'GPUS': str(self.gpus_per_run),
                'GPUS_PER_NODE': os.environ.get('GPUS_PER_NODE', str(min(8, self.gpus_per_run))),
                'SRUN_ARGS': self.srun_args,
            }
        return {'PYTHON': sys.executable} if self.gpus_per_run > 1 else {}


def path_problems(settings: Mapping[str, str], where: str) -> Iterator[str]:
    """Paths that do not come through ``--cfg-options`` as they are."""
    if any(parse_options([f'{key}={path}'])[key] != path for key, path in settings.items()):
        yield (
            f'{where}: MMEngine would read another path in --cfg-options; make a link without '
            'quotes, brackets, commas and blanks'
        )


def setting_words(settings: dict[str, str]) -> list[str]:
    """Settings as they are typed, ``'key=value'``."""
    return [f'{key}={value}' for key, value in settings.items()]


def split_tasks(words: Sequence[str]) -> dict[str, str]:
    """Split ``--tasks`` into names and configs, empty for the paper's tasks.

    Raises:
        ValueError: If a name is malformed, taken or comes twice, or is no task and has no config.
    """
    found: dict[str, str] = {}
    for word in words:
        name, sign, config = word.partition('=')
        if sign and (not config or '=' in config or not re.fullmatch(r'\w[\w.-]*', name)):
            raise ValueError(
                f'--tasks {word}: write NAME=CONFIG, with letters, digits, "_", "-" and "." in NAME'
            )
        if sign and name in (*TASKS, *PROTOCOL_TASKS):
            whose = 'of the paper' if name in TASKS else 'that is there'
            raise ValueError(f'--tasks {word}: {name} is a task {whose}. Choose another name')
        if name in found and (sign or found[name]):
            raise ValueError(f'--tasks {word}: the name {name} comes twice')
        shipped = f'{name}.py' if name in PROTOCOL_TASKS else ''
        found[name] = os.path.expanduser(config) or shipped
    return found


def moved_settings(task: str, cfg: Config, options: SuiteOptions) -> dict[str, str]:
    """Settings of ``--data`` for a task, as text by key."""
    settings: dict[str, str] = {}
    for text in options.data:
        name, _, folder = text.partition('=')
        if name == task:
            if not (moved := moved_data(cfg, os.path.expanduser(folder))):
                raise ValueError(
                    f'--data {text}: the config has no data_root for it to replace. Name the '
                    f'folders by --cfg-options {name}:KEY=VALUE'
                )
            if problem := next(path_problems(moved, f'--data {text}'), None):
                raise ValueError(problem)
            settings |= moved
    return settings


def chosen_settings(task: str, options: SuiteOptions) -> dict[str, str]:
    """Settings of ``--cfg-options`` for a task, as text by key."""
    settings: dict[str, str] = {}
    for text in options.cfg_options:
        key, sign, value = text.partition('=')
        name, colon, rest = key.partition(':')
        if not sign:
            raise ValueError(f'--cfg-options: {text!r} is no KEY=VALUE')
        known = {*TASKS, *split_tasks(options.tasks)}
        if colon and name not in known:
            near = near_text(name, known)
            raise ValueError(f'--cfg-options: {text!r} names no task before the colon{near}')
        if not colon or name == task:
            settings[rest if colon else key] = value
    return settings


def parse_sweep(words: Sequence[str]) -> dict[str, list[str]]:
    """Parse the values, as texts, of each setting of a sweep.

    Words are such as ``'lr=0.01,0.02'``; one may hold several settings, separated by ``;`` or
    ``,``: ``'lr=0.01,0.02,wd=0.001'``.

    Raises:
        ValueError: If a text is no ``name=value,value``, or a name or a value comes twice.
    """
    sweep: dict[str, dict[str, str]] = {}
    keys: set[str] = set()
    for word in (part for text in words for part in _split(text, ';') if part):
        name = ''
        for value in _split(word, ','):
            # A comma separates values, or settings where a name follows.
            if found := re.match(r'([A-Za-z_][\w.]*)\s*=\s*(.*)', value):
                name, value = found.groups()
                key = SHORT_KEYS.get(name, name)
                if key in keys:
                    raise ValueError(f'--sweep {word}: {key} is swept twice')
                keys.add(key)
                sweep[name] = {}
            if not name or not value or value.startswith('='):
                raise ValueError(f'--sweep {word}: write NAME=VALUE,VALUE, such as lr=0.01,0.02')
            try:
                meant = repr(parse_options([f'x={value}'])['x'])
            except ValueError as error:
                raise ValueError(f'--sweep {name}={value}: {error}') from None
            if meant in sweep[name]:
                raise ValueError(f'--sweep {name}: {meant} comes twice')
            sweep[name][meant] = value
    return {name: list(values.values()) for name, values in sweep.items()}


def parse_labels(words: Sequence[str]) -> list[float]:
    """Parse parts of the labels, such as ``['1%', '10%']``, as percent, the smallest first.

    Raises:
        ValueError: If a text is no percentage above 0 and up to 100, or comes twice.
    """
    parts: set[float] = set()
    for word in words:
        number = re.fullmatch(r'(\d+\.?\d*|\.\d+)%', word)
        if not number or not 0 < float(number.group(1)) <= 100:
            raise ValueError(f'--labels {word}: write a percentage above 0, up to 100%, as in 10%')
        if float(number.group(1)) in parts:
            raise ValueError(f'--labels {word}: it comes twice')
        parts.add(float(number.group(1)))
    return sorted(parts)


def split_label(text: str) -> tuple[str, str]:
    """Split ``'label=file'``; the label is empty where there is none, as for random weights.

    Raises:
        ValueError: If 'random' names a file.
    """
    label, sign, name = text.partition('=')
    if not (sign and label) or Path(text).exists():
        return '', text
    if label == RANDOM:
        raise ValueError(f'{text}: the label {RANDOM} means random weights')
    return label, name


def label_checkpoints(texts: Sequence[str]) -> dict[str, Path | None]:
    """Find the file of each label, None for random weights.

    A file without a label is called by its name without the ending; the second of that name has its
    folder before it.

    Raises:
        ValueError: If a label or a file comes twice, or 'random' names a file.
    """
    labelled: dict[str, Path | None] = {}
    for text in texts:
        label, name = split_label(text)
        if text == RANDOM:
            label, file = RANDOM, None
        elif label:
            file = Path(name).expanduser()
        else:
            file = Path(text)
            long = f'{file.absolute().parent.name}-{file.stem}'
            options = [file.stem, long, *(f'{long}-{count}' for count in range(2, len(texts) + 2))]
            label = next(name for name in options if name not in labelled and name != RANDOM)
        if label in labelled:
            raise ValueError(f'--checkpoints: the label {label} comes twice')
        for other, known in labelled.items():
            if file and known and known.absolute() == file.absolute():
                raise ValueError(f'--checkpoints: {file} comes twice, as {other} and as {label}')
        labelled[label] = file
    return labelled


def folder_name(text: str) -> str:
    """Turn a text into the name of a folder; different texts give different names."""
    plain = re.sub(r'[^\w.+-]', '_', text).strip('.') or '_'
    if plain == text and len(text) < 100:
        return text
    return f'{plain[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}'


def settings_name(pairs: Sequence[tuple[str, Any]]) -> str:
    """Name the folder of a point of the sweep, such as ``'lr0.01_wd0.0005'``, or ``'default'``."""
    return folder_name('_'.join(f'{name}{value}' for name, value in pairs)) if pairs else 'default'


def _split(text: str, sign: str) -> list[str]:
    """Split a text at the signs outside of brackets, without blanks."""
    parts, depth = [''], 0
    for letter in text:
        depth += (letter in '([') - (letter in ')]')
        if letter == sign and depth <= 0:
            parts.append('')
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]
