"""Configs by the names that users have for them."""

import os
from pathlib import Path

from mmengine.config import Config

from .text import near_text


def read_config(name: str | os.PathLike) -> Config:
    """Read a config.

    Args:
        name (str): A file, ``'PACKAGE::FILE'`` for one of an installed package, or the file name
            of one of ours, such as ``'pretrain_r50.py'``, as ``mim`` takes them.

    Raises:
        FileNotFoundError: If there is none; suggests one of ours.
    """
    file = os.fspath(name)
    if '::' in file:
        try:
            return Config.fromfile(Config._get_cfg_path(file, '')[0])
        except (AssertionError, ImportError, OSError) as error:
            raise FileNotFoundError(f'there is no config {file!r}: {error}') from None
    if not Path(file).is_file():
        folder = Path(__file__).parents[1] / '.mim' / 'configs'
        ours = {path.name: path for path in Path(os.path.realpath(folder)).rglob('*.py')}
        if file not in ours:
            near = near_text(Path(file).name, ours)
            raise FileNotFoundError(f'there is no config file {file!r}{near}')
        file = ours[file]
    return Config.fromfile(file)
