"""Processes in which torchcodec finds FFmpeg, which the system may not have."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest

from tests.conftest import REPO


def run_python(backend: str, folder: Path, *arguments: object) -> str:
    """Run Python in a process of its own; returns what it prints. Skips without the backend.

    Args:
        backend: For torchcodec the process finds the libraries of FFmpeg in PyAV's wheel.
        folder: Made for links to them, under their usual names.
        *arguments: Of Python.
    """
    if importlib.util.find_spec(backend.replace('pyav', 'av')) is None:
        pytest.skip(f'{backend} is not installed')
    environment = os.environ | {'PYTHONPATH': str(REPO)}
    if backend == 'torchcodec':
        wheel = Path(av.__file__).parents[1] / 'av.libs'
        folder.mkdir()
        for file in wheel.glob('lib*.so.*'):
            name, _, version = file.name.partition('-')
            major = version.partition('.so.')[2].split('.')[0]
            link = folder / f'{name}.so.{major}'
            if not link.exists():
                link.symlink_to(file)
        environment['LD_LIBRARY_PATH'] = f'{folder}:{wheel}'
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=REPO,
        env=environment,
        timeout=1200,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout
