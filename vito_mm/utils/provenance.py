"""On what a run was made: machine, versions, revision of the code."""

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vito_mm.version import __version__

PACKAGES = (
    'mmengine',
    'mmcv',
    'mmpretrain',
    'mmsegmentation',
    'mmdet',
    'torch',
    'torchvision',
    'numpy',
    'opencv-python',
    'av',
    'decord',
)
"""Distributions whose versions are recorded."""


def conditions(machine: str | None = None) -> dict[str, Any]:
    """What a record of a run holds beside its numbers.

    Args:
        machine (str, optional): Where it was made. Defaults to None, which means here.

    Returns:
        dict[str, Any]: ``machine``; ``versions`` by name; ``git``, the revision of the code.
    """
    known = {'Python': platform.python_version(), 'vito_mm': __version__}
    return dict(
        machine=machine or machine_words(),
        versions=known | installed_versions(),
        git=git_revision(Path(__file__).parents[1]) or 'not run from a checkout',
    )


def machine_words() -> str:
    """This machine, such as ``'Linux x86_64, 16 logical cores, no GPU'``."""
    import torch

    system = f'{platform.system()} {platform.machine()}, {os.cpu_count()} logical cores'
    if not torch.cuda.is_available():
        return f'{system}, no GPU'
    return f'{system}, {torch.cuda.device_count()} x {torch.cuda.get_device_name()}'


def installed_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of those distributions that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_revision(folder: Path) -> str | None:
    """Revision of the checkout that the package runs from, None for an installed package."""
    try:
        lines = [
            subprocess.run(
                ['git', '-C', str(folder), *words],
                capture_output=True,
                text=True,
                check=True,
                timeout=20,
            ).stdout.strip()
            for words in (
                ['ls-files', '--error-unmatch', '__init__.py'],  # not some repository around it
                ['rev-parse', 'HEAD'],
                ['status', '--porcelain', '-uno', '--', '.'],
            )
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return lines[1] + (' with uncommitted changes' if lines[2] else '')
