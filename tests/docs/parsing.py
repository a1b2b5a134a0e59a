"""Whether a command could run: its file is there, its options parse, its config has the keys."""

import argparse
import importlib
import inspect
import re
import runpy
import subprocess
import sys
from collections.abc import Sequence
from configparser import ConfigParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import mmengine.registry
import yaml
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry
from torch.utils.data import DataLoader

import vito_mm  # noqa: F401  registers its names
from tests.conftest import REPO
from vito_mm.launch import parse_options

CONFIG = 'configs/vito/pretrain_r50.py'
"""Stands for CONFIG in a command."""
PLAIN = ('.', 'cd', 'git', 'ln', 'mkdir', 'cp')
"""Commands of the system, which are taken as they are."""


class _Parsed(Exception):
    pass


def check_command(words: Sequence[str]) -> None:
    """Fail if a command could not even start.

    Args:
        words: The command as the shell splits it.
    """
    words = list(words)
    variables = [word.partition('=')[0] for word in words if re.match(r'[A-Z_]+=', word)]
    words = [word for word in words if not re.match(r'[A-Z_]+=', word)]
    words = words[1:] if words[0] == 'nice' else words
    for variable in variables:
        assert is_known(variable, words), f'nothing reads {variable}'
    program, *rest = words
    if program == 'python':
        if rest[:2] == ['-m', 'pytest']:
            assert all((REPO / word).exists() for word in rest if word.startswith('tests/'))
            return
        program, *rest = rest
    if program in ('tools/dist_train.sh', 'tools/dist_test.sh'):
        config, processes, *rest = rest
        assert int(processes) > 0
        script = program.replace('dist_', '').replace('.sh', '.py')
        check_training(parse(script, [config, *rest]))
    elif program == 'tools/slurm_train.sh':
        _, _, config, work_dir, *rest = rest
        check_training(parse('tools/train.py', [config, '--work-dir', work_dir, *rest]))
    elif re.fullmatch(r'(tools|benchmarks)/\w+\.py', program):
        check_training(parse(program, rest))
    elif program == 'vito-mm':
        check_training(parse(f'tools/{rest[0].replace("-", "_")}.py', rest[1:]))
    elif program == 'mim':
        check_mim(rest)
    elif program == 'pip':
        check_pip(rest)
    elif program == 'make':
        subprocess.run(['make', '--dry-run', *rest], cwd=REPO, check=True, capture_output=True)
    else:
        assert program in PLAIN, f'what is {program}?'


def is_known(variable: str, words: Sequence[str]) -> bool:
    """Whether a variable is read by somebody: a script of the command, torch or mmcv."""
    scripts = [REPO / word for word in words if word.startswith('tools/')]
    scripts += [REPO / 'tools/_torchrun.sh', REPO / 'tools/build_mmcv.py']
    return variable in ('OMP_NUM_THREADS', 'CUDA_VISIBLE_DEVICES') or any(
        re.search(rf'\b{variable}\b', script.read_text()) for script in scripts
    )


def parse(script: str, words: Sequence[str]) -> argparse.Namespace:
    """What a script's own parser makes of a command line, which must please it."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(self, args=None, namespace=None):
        raise _Parsed(original(self, args, namespace))

    assert (REPO / script).is_file(), f'there is no {script}'
    words = [word.replace('CONFIG', CONFIG) if word == 'CONFIG' else word for word in words]
    with (
        mock.patch.object(argparse.ArgumentParser, 'parse_args', parse_args),
        mock.patch.object(sys, 'argv', [script, *words]),
    ):
        try:
            runpy.run_path(str(REPO / script), run_name='__main__')
        except _Parsed as parsed:
            return parsed.args[0]
        except SystemExit as error:
            raise AssertionError(f'{script} does not take {" ".join(words)}') from error
    raise AssertionError(f'{script} has parsed nothing')


def is_of_the_page(config: str) -> bool:
    """Whether a config is one that a page shows and its reader saves, such as my_detector.py."""
    return re.fullmatch(r'my_\w+\.py', config) is not None


def check_training(args: argparse.Namespace) -> None:
    """Check the config and the keys of ``--cfg-options``, where a command has them."""
    config, options = getattr(args, 'config', None), getattr(args, 'cfg_options', None)
    if config is None or is_of_the_page(config):
        return
    assert (REPO / config).is_file(), f'there is no config {config}'
    if options:
        check_options(REPO / config, parse_options(options))


def check_mim(words: list[str]) -> None:
    """Check a command of mim: ``train``, ``run`` of a script, ``search`` or ``download``."""
    from mim.commands.train import cli

    if words[0] == 'run':
        package, script = Path(importlib.import_module(words[1]).__file__).parent, words[2]
        assert [*(package / '.mim').rglob(f'{script}.py')], f'{words[1]} has no {script}'
        return
    if words[0] in ('search', 'download'):
        metafile = yaml.safe_load((REPO / 'configs/vito/metafile.yml').read_text())
        names = {model['Name'] for model in metafile['Models']}
        assert words[1] == 'vito_mm'
        if words[0] == 'download':
            assert words[words.index('--config') + 1] in names
        return
    action, package, config, *rest = words
    assert (action, package) in {
        ('train', name) for name in ('mmseg', 'mmdet', 'mmpretrain', 'vito_mm')
    }
    own = {option for parameter in cli.params for option in parameter.opts}
    options = {}
    for number, word in enumerate(rest):
        if word.startswith('--') and word != '--cfg-options':
            assert word in own | {'--work-dir', '--resume', '--amp'}, f'mim train has no {word}'
        elif '=' in word:
            key, _, options[key] = word.partition('=')
        else:
            assert rest[number - 1].startswith('--') or word == '--cfg-options', word
    if is_of_the_page(config):
        return
    assert (REPO / config).is_file(), f'there is no config {config}'
    check_options(REPO / config, options)


def check_pip(words: list[str]) -> None:
    """Check that files and extras of ``pip install`` exist."""
    assert words[0] == 'install'
    setup = ConfigParser()
    setup.read(REPO / 'setup.cfg')
    extras = set(setup['options.extras_require'])
    for before, word in pairwise(words):
        if before in ('-r', '-c'):
            assert (REPO / word).is_file(), f'there is no {word}'
        elif named := re.fullmatch(r'(?:\.|vito_mm)\[(.+)\]', word):
            assert set(named[1].split(',')) <= extras, f'no extra {word}'


def check_options(config: Path, options: dict[str, Any]) -> None:
    """Check that a config has the keys, or that what it builds there takes them.

    Args:
        config: File.
        options: Values by dotted key, as ``--cfg-options`` has them.
    """
    before = Config.fromfile(config)
    after = Config.fromfile(config)
    after.merge_from_dict(options)
    with DefaultScope.overwrite_default_scope(after.get('default_scope') or 'mmengine'):
        for key in options:
            check_key(before, after, key)


def check_key(before: Config, after: Config, key: str) -> None:
    """Check one key, from the outside to the inside."""
    *parents, _ = names = key.split('.')
    for depth, name in enumerate(names):
        if isinstance(before, (list, tuple)):
            assert name.isdigit(), f'{key}: {name} is no place in a list'
            before, after = before[int(name)], after[int(name)]
            continue
        if before is not None and name in before:
            before, after = before[name], after[name]
            continue
        value = after[name]
        if depth and parents[depth - 1] == 'default_hooks':
            assert isinstance(value, dict), f'{key}: a hook is a dict'
            assert class_of(value.get('type')), f'{key}: there is no hook {value.get("type")}'
        else:
            made = class_of(after.get('type')) if 'type' in after else None
            if depth and parents[depth - 1].endswith('_dataloader'):
                made = DataLoader
            assert made, f'{key}: the config has no such key'
            assert name == 'type' or takes(made, name), f'{key}: {made.__name__} has no {name}'
        before, after = None, value


def class_of(name: str | type) -> type | None:
    """The class that MMEngine builds for a type, None if there is none."""
    if isinstance(name, type):
        return name
    for registry in vars(mmengine.registry).values():
        found = registry.get(name) if isinstance(registry, Registry) and name else None
        if found is not None:
            lazy = re.fullmatch(r'Builds :class:`(.+)\.(\w+)`\.', found.__doc__ or '')
            return getattr(importlib.import_module(lazy[1]), lazy[2]) if lazy else found
    return None


def takes(made: type, name: str) -> bool:
    """Whether a class has a parameter, its own or one that it passes on to a parent."""
    if not inspect.isclass(made):
        return name in inspect.signature(made).parameters
    for parent in made.__mro__:
        if '__init__' not in vars(parent):
            continue
        parameters = inspect.signature(parent.__init__).parameters
        if name in parameters:
            return True
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return False
    return False


def check_config_text(file: Path) -> None:
    """Check a piece of a config: it loads, its types exist, and they take what it gives them."""
    config = Config.fromfile(file, import_custom_modules=True)
    scope = config.get('default_scope') or 'mmpretrain'
    with DefaultScope.overwrite_default_scope(scope):
        check_parts(config._cfg_dict.to_dict() if '_base_' not in file.read_text() else {})


def check_parts(part: Any) -> None:
    """Check all dicts with a type within a config."""
    if isinstance(part, list | tuple):
        for item in part:
            check_parts(item)
    elif isinstance(part, dict):
        if 'type' in part:
            made = class_of(part['type'])
            assert made, f'there is no {part["type"]}'
            for name in set(part) - {'type', '_delete_'}:
                assert takes(made, name), f'{part["type"]} has no {name}'
        for item in part.values():
            check_parts(item)
