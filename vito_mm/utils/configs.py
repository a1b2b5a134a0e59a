"""Configs by the names that users have for them."""

import os
from importlib.util import find_spec
from pathlib import Path

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
            near = _near_of_package(*file.split('::', 1))
            reason = '' if near else f': {error}'
            raise FileNotFoundError(f'there is no config {file!r}{near}{reason}') from None
        return Config.fromfile(found)
    if not Path(file).is_file():
        ours = {path.name: path for path in _configs(Path(__file__).parents[1]).rglob('*.py')}
        if file not in ours:
            near = near_text(Path(file).name, ours)
            raise FileNotFoundError(f'there is no config file {file!r}{near}')
        file = ours[file]
    return Config.fromfile(file)


def _configs(package: Path) -> Path:
    return Path(os.path.realpath(package / '.mim' / 'configs'))


def _near_of_package(package: str, file: str) -> str:
    """Suggest configs of an installed package for a name that it does not have."""
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        return ''
    folder = _configs(Path(spec.origin).parent)
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob('*.py')))
    return near_text(
        file, [f'{package}::{name}' for name in names], lambda name: name.split('::')[-1]
    )
