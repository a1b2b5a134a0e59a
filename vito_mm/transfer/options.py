"""What the command line of a transfer suite says, and how it is read."""

import argparse
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import DictAction

from vito_mm.transfer.tasks import RANDOM, TASKS
from vito_mm.utils.hashing import sha256_of_file

SHORT_KEYS = {
    'lr': 'optim_wrapper.optimizer.lr',
    'wd': 'optim_wrapper.optimizer.weight_decay',
}
"""Short names of what is swept."""


@dataclass
class SuiteOptions:
    """What the command line of ``tools/transfer.py`` says.

    Attributes:
        repo (Path): Folder with ``configs`` and ``tools``: a checkout, or an installed ``.mim``.
        checkpoints (Sequence[str]): Files, ``'label=file'``, or ``'random'``.
        tasks (Sequence[str]): Names in :data:`.tasks.TASKS`. Defaults to all.
        seeds (int): Number of seeds. Defaults to 5.
        first_seed (int): The first of them; they count from it. Defaults to 0.
        sweep (Sequence[str]): Values to try, as ``'name=value,value'``; every combination is run.
            Defaults to none, the config's own.
        protocol (str): One of :data:`.tasks.PROTOCOLS`. Defaults to 'paper'.
        work_dir (Path): Folder of the suite. Defaults to ``work_dirs/transfer``.
        cfg_options (Sequence[str]): Settings for all tasks, ``'key=value'``, or for one,
            ``'task:key=value'``. Defaults to none.
        data (Sequence[str]): ``'task=folder'`` where data is not where the config says. Defaults to
            none.
        gpus (Sequence[int], optional): Visible GPUs to use, counted from 0. Defaults to all.
        gpus_per_run (int): GPUs (without any: processes) of one run. Defaults to 1.
        jobs (int, optional): Runs side by side. Defaults to as many as the GPUs allow, on a CPU and
            under Slurm 1.
        launcher (str): ``'none'`` or ``'slurm'``. Defaults to 'none'.
        partition (str): Slurm's partition. Defaults to ''.
        srun_args (str): Further arguments of srun. Defaults to ''.
        redo (bool): Whether runs that belong to another config or checkpoint are started anew.
            Defaults to False.
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


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Values as MMEngine's ``--cfg-options`` understands them.

    Args:
        texts (Sequence[str]): Texts such as ``'train_cfg.max_iters=100'``.

    Returns:
        dict[str, Any]: Values by key.

    Raises:
        ValueError: If a text has no ``=`` or its brackets do not match.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    for text in texts:
        if '=' not in text.strip('='):
            raise ValueError(f'{text!r} is no KEY=VALUE')
    try:
        return parser.parse_args(['--cfg-options', *texts] if texts else []).cfg_options
    except AssertionError as error:
        raise ValueError(str(error)) from None


def parse_sweep(words: Sequence[str]) -> dict[str, list[str]]:
    """The values of each setting of a sweep.

    Args:
        words (Sequence[str]): Texts such as ``'lr=0.01,0.02'``; one may hold several, parted by
            ``;`` or ``,``: ``'lr=0.01,0.02,wd=0.001'``.

    Returns:
        dict[str, list[str]]: Values, as texts, by name.

    Raises:
        ValueError: If a text is no ``name=value,value``, or a name or a value comes twice.
    """
    sweep: dict[str, list[str]] = {}
    for word in (part for text in words for part in _split(text, ';') if part):
        name = ''
        for part in _split(word, ','):
            # A comma parts values, or settings where a name follows.
            if found := re.match(r'([A-Za-z_][\w.]*)\s*=\s*(.*)', part):
                name, part = found.groups()
                key = SHORT_KEYS.get(name, name)
                if any(SHORT_KEYS.get(other, other) == key for other in sweep):
                    raise ValueError(f'--sweep {word}: {key} is swept twice')
                sweep[name] = []
            if not name or not part or part.startswith('='):
                raise ValueError(f'--sweep {word}: write NAME=VALUE,VALUE, such as lr=0.01,0.02')
            sweep[name].append(part)
    for name, values in sweep.items():
        meant = []
        for value in values:
            try:
                meant.append(repr(parse_settings([f'x={value}'])['x']))
            except ValueError as error:
                raise ValueError(f'--sweep {name}={value}: {error}') from None
        if twice := [value for value, count in Counter(meant).items() if count > 1]:
            raise ValueError(f'--sweep {name}: {", ".join(twice)} comes twice')
    return sweep


def label_checkpoints(texts: Sequence[str]) -> dict[str, Path | None]:
    """Names for tables.

    Args:
        texts (Sequence[str]): Files, ``'label=file'``, or ``'random'``.

    Returns:
        dict[str, Path | None]: File of each label, None for random weights. A file without a label
        is called by its name without the ending; the second of that name has its folder before it.

    Raises:
        ValueError: If a label or a file comes twice, or 'random' names a file.
    """
    labelled: dict[str, Path | None] = {}
    for text in texts:
        label, sign, name = text.partition('=')
        if text == RANDOM:
            label, file = RANDOM, None
        elif sign and label and not Path(text).exists():
            file = Path(name)
            if label == RANDOM:
                raise ValueError(f'--checkpoints {text}: the label {RANDOM} means random weights')
        else:
            file = Path(text)
            options = [file.stem, f'{file.absolute().parent.name}-{file.stem}']
            options += [f'{options[-1]}-{count}' for count in range(2, len(texts) + 2)]
            label = next(name for name in options if name not in labelled and name != RANDOM)
        if label in labelled:
            raise ValueError(f'--checkpoints: the label {label} comes twice')
        same = [k for k, v in labelled.items() if v and file and v.absolute() == file.absolute()]
        if same:
            raise ValueError(f'--checkpoints: {file} comes twice, as {same[0]} and as {label}')
        labelled[label] = file
    return labelled


def content_hash(file: Path | None) -> str:
    """SHA-256 of a checkpoint.

    Args:
        file (Path, optional): The file, None for random weights.

    Returns:
        str: Hexadecimal, or ``'random'``.
    """
    if file is None:
        return RANDOM
    return sha256_of_file(file)


def folder_name(text: str) -> str:
    """A text as the name of a folder; different texts give different names.

    Args:
        text (str): Any text.

    Returns:
        str: The text itself where it can be a name.
    """
    plain = re.sub(r'[^\w.+-]', '_', text).strip('.') or '_'
    if plain == text and len(text) < 100:
        return text
    return f'{plain[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}'


def settings_name(pairs: Sequence[tuple[str, Any]]) -> str:
    """Name of the folder of a point of the sweep.

    Args:
        pairs (Sequence[tuple[str, Any]]): Names and values.

    Returns:
        str: Such as ``'lr0.01_wd0.0005'``; ``'default'`` without a sweep.
    """
    return folder_name('_'.join(f'{name}{value}' for name, value in pairs)) if pairs else 'default'


def _split(text: str, sign: str) -> list[str]:
    """Parts of a text between the signs that stand outside of brackets, without blanks."""
    parts, depth = [''], 0
    for letter in text:
        depth += (letter in '([') - (letter in ')]')
        if letter == sign and depth <= 0:
            parts.append('')
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]
