"""On what a run was made: machine, versions, revision of the code."""

import os
import platform
from pathlib import Path
from typing import Any

import vito_mm

# One place decides which versions and which revision a record holds.
from vito_mm.engine.hooks.run_record_hook import git_revision, installed_versions


def conditions(machine: str | None = None) -> dict[str, Any]:
    """What a record of a run holds beside its numbers.

    Args:
        machine (str, optional): Where it was made. Defaults to None, which means here.

    Returns:
        dict[str, Any]: ``machine``; ``versions`` by name; ``git``, the revision of the code.
    """
    known = {'Python': platform.python_version(), 'vito_mm': vito_mm.__version__}
    return dict(
        machine=machine or machine_words(),
        versions=known | installed_versions(),
        git=git_revision(Path(vito_mm.__file__).parent) or 'not run from a checkout',
    )


def machine_words() -> str:
    """This machine, such as ``'Linux x86_64, 16 logical cores, no GPU'``."""
    import torch

    system = f'{platform.system()} {platform.machine()}, {os.cpu_count()} logical cores'
    if not torch.cuda.is_available():
        return f'{system}, no GPU'
    return f'{system}, {torch.cuda.device_count()} x {torch.cuda.get_device_name()}'
