"""Provenance of a run: machine, versions, git revision."""

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vito_mm.version import __version__

PACKAGES = (
    *('mmengine', 'mmcv', 'mmpretrain', 'mmsegmentation', 'mmdet'),
    *('torch', 'torchvision', 'numpy', 'opencv-python', 'av', 'decord'),
)
"""Distributions whose versions are recorded."""

FORKED = dict(mmdet='mmdetection')
"""Names of those that OneDL's fork calls otherwise, but for ``onedl-`` in front."""

FACTS = dict(machine='Machine', versions='Versions', git='Git revision of vito_mm')
"""Titles of the entries of :func:`conditions` in reports."""


def conditions(machine: str | None = None) -> dict[str, Any]:
    """Describe the machine (default: this one), ``versions`` and ``git`` revision of a run."""
    known = {'Python': platform.python_version(), 'vito_mm': __version__}
    return dict(
        machine=machine or _this_machine(),
        versions=known | installed_versions(),
        git=git_revision(Path(__file__).parents[1]) or 'not run from a checkout',
    )


def conditions_text(record: Mapping[str, Any]) -> list[str]:
    """List what :func:`conditions` recorded, as lines of a report."""
    return [f'{title}: {fact_text(record.get(key))}' for key, title in FACTS.items()]


def fact_text(value: str | Mapping[str, str] | None) -> str:
    """Format one entry of :func:`conditions`, empty where it is missing."""
    if isinstance(value, Mapping):
        return ', '.join(f'{name} {number}' for name, number in value.items())
    return value or ''


def cpu_name() -> str:
    """Name the processor, as Linux or else Python knows it."""
    with suppress(OSError):
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor()


def _this_machine() -> str:
    """Describe this machine, such as ``'Linux x86_64, 16 logical cores, no GPU'``."""
    import torch

    system = f'{platform.system()} {platform.machine()}, {os.cpu_count()} logical cores'
    if not torch.cuda.is_available():
        return f'{system}, no GPU'
    return f'{system}, {torch.cuda.device_count()} x {torch.cuda.get_device_name()}'


def installed_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Look up the versions of those of some distributions that are installed, or of OneDL's."""
    found = {}
    for name in packages:
        for distribution in (f'onedl-{FORKED.get(name, name)}', name):
            with suppress(PackageNotFoundError):
                found[name] = version(distribution)
    return found


def git_revision(folder: Path) -> str | None:
    """Look up the revision of the checkout of a package, None for an installed one."""
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
