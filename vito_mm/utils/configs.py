"""Configs by the names that users have for them."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .text import near_text


def read_config(name: str | os.PathLike) -> Config:
    """Read a config.

    Args:
        name (str): A file, ``'PACKAGE::FILE'`` for one of an installed package, or the file name
            of one of ours, such as ``'pretrain_r50.py'``, as ``mim`` takes them.

    Raises:
        FileNotFoundError: If there is none; suggests one of the package, or of ours.
    """
    file = os.fspath(name)
    if '::' in file:
        try:
            found, _ = Config._get_cfg_path(file, '')
        except (AssertionError, ImportError, OSError, ValueError) as error:
            package, name = file.split('::', 1)
            folder = _folder_of(package)
            if not (folder and (folder / name).is_file()):
                near = _near_text(package, name, folder)
                raise FileNotFoundError(f'there is no config {file!r}{near}: {error}') from None
            found = folder / name  # MMEngine takes no `+` and no `.` in the names of folders
        return Config.fromfile(found)
    if not Path(file).is_file():
        ours = {path.name: path for path in _configs(Path(__file__).parents[1]).rglob('*.py')}
        if file not in ours:
            near = near_text(Path(file).name, ours)
            raise FileNotFoundError(f'there is no config file {file!r}{near}')
        file = ours[file]
    return Config.fromfile(file)


def follow(cfg: Config, key: str) -> tuple[Any, list[str]]:
    """Follow a key with dots: the last node that is there, and the names that lead no further."""
    node, names = cfg, key.split('.')
    while names:
        name = names[0]
        if isinstance(node, (list, tuple)) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, (Config, dict)) and name in node:
            node = node[name]
        else:
            break
        del names[0]
    return node, names


def _configs(package: Path) -> Path:
    return Path(os.path.realpath(package / '.mim' / 'configs'))


def _folder_of(package: str) -> Path | None:
    """Folder with the configs of an installed package; None for one that is not installed."""
    spec = find_spec(package) if package.isidentifier() else None
    return _configs(Path(spec.origin).parent) if spec and spec.origin else None


def _near_text(package: str, file: str, folder: Path | None) -> str:
    """Suggest configs of a package for a name that it does not have."""
    files = sorted(folder.rglob('*.py')) if folder else ()
    names = [f'{package}::{path.relative_to(folder).as_posix()}' for path in files]
    return near_text(file, names, lambda name: name.split('::')[-1])
