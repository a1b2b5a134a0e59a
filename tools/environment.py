#!/usr/bin/env python
"""Build the environment in ``.venv`` (``build``), or check the one of this interpreter (``check``).

Needs nothing but the standard library. uv installs the pinned packages, ``build_mmcv.py`` mmcv
with its compiled ops. ``build`` goes on where an earlier call stopped and has nothing to do when
the environment is ready.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from _building import BuildFailed, duration, run, run_tool
from build_mmcv import install_mmcv

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / '.venv'
PINS = 'requirements/environment.txt'
FILES = (
    *(PINS, 'pyproject.toml', 'setup.cfg', 'setup.py', 'vito_mm/version.py'),
    *(f'tools/{name}.py' for name in ('_building', 'build_mmcv', 'environment')),
)
"""What the environment follows from."""
PYTHONS = ('3.11', '3.12', '3.13', '3.10')
"""Python versions that the pins are for, the most tried one first."""


def python_version(python: str) -> str:
    """Version of an interpreter as ``3.11``, '' if it does not run."""
    try:
        done = subprocess.run([python, '--version'], capture_output=True, text=True)
    except OSError:
        return ''
    found = re.match(r'Python (\d+\.\d+)', done.stdout)
    return found[1] if found else ''


def make_venv(log: Path) -> None:
    """Create .venv, unless there is one that works."""
    if python_version(str(VENV / 'bin' / 'python')) in PYTHONS:
        return
    names = [sys.executable, *(f'python{version}' for version in PYTHONS)]
    python = next((name for name in names if python_version(name) in PYTHONS), None)
    if not python:
        raise BuildFailed(
            f'Python 3.10 to 3.13 is needed; only {platform.python_version()} was found.',
            'Install one, or use your own environment: make demo PYTHON=/path/to/python',
        )
    if (VENV / 'pyvenv.cfg').exists():
        print(
            '      .venv is of another Python or does not run any more; making it anew', flush=True
        )
        shutil.rmtree(VENV)
        log.parent.mkdir(parents=True)
    run([python, '-m', 'venv', str(VENV)], log)


def pip(*arguments: str) -> list[str]:
    """Command line of .venv's pip."""
    return [str(VENV / 'bin' / 'python'), '-m', 'pip', '--disable-pip-version-check', *arguments]


def uv_install(log: Path, *arguments: str) -> None:
    """Install something into .venv by uv, without what it needs, from the registry of pip."""
    uv = [str(VENV / 'bin' / 'uv'), 'pip', 'install', '--compile-bytecode', '--no-deps']
    found = subprocess.run(pip('config', 'get', 'global.index-url'), capture_output=True, text=True)
    if index := os.environ.get('PIP_INDEX_URL') or found.stdout.strip():
        os.environ.setdefault('UV_DEFAULT_INDEX', index)
    run([*uv, '--python', str(VENV), *arguments], log)


STEPS: list[tuple[str, Callable[[Path], None]]] = [
    ('uv', lambda log: run(pip('install', f'uv=={pinned("uv")[0]}'), log)),
    ('the pinned packages (5 GB on disk)', lambda log: uv_install(log, '-r', str(ROOT / PINS))),
    ('mmcv with compiled ops', install_mmcv),
    ('vito_mm', lambda log: uv_install(log, '--no-build-isolation', '-e', str(ROOT))),
]


def ready_key() -> str:
    """Changes with everything that the environment follows from."""
    digest = hashlib.sha256(str(VENV).encode())
    for name in FILES:
        digest.update((ROOT / name).read_bytes())
    return f'{digest.hexdigest()} {python_version(str(VENV / "bin" / "python"))}'


@contextlib.contextmanager
def only_one_build() -> Iterator[None]:
    """Wait until no other process builds this checkout's environment."""
    handle = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print('waiting for another process that builds this environment', flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def build() -> int:
    """Build what is missing in .venv and check the result; returns the exit status."""
    log, ready = VENV / '.vito_mm' / 'build.log', VENV / '.vito_mm' / 'ready.txt'
    with only_one_build():
        if ready.exists():
            key, _, text = ready.read_text(encoding='utf-8').partition('\n')
            if key == ready_key():
                print(text.strip())
                return 0
        log.parent.mkdir(parents=True, exist_ok=True)
        ready.unlink(missing_ok=True)
        begin = time.monotonic()
        title = '.venv'
        try:
            if Path(sys.prefix) != VENV:
                print(
                    f'building the environment in .venv; log: {log.relative_to(ROOT)}', flush=True
                )
                make_venv(log)
                python = str(VENV / 'bin' / 'python')
                os.execv(python, [python, str(Path(__file__).resolve()), 'build'])
            os.environ['PATH'] = f'{VENV / "bin"}{os.pathsep}{os.environ["PATH"]}'
            os.environ.pop('PYTHONPATH', None)
            for number, (title, install) in enumerate(STEPS, 1):
                print(f'[{number}/{len(STEPS)}] {title}', flush=True)
                start = time.monotonic()
                install(log)
                print(f'      {duration(time.monotonic() - start)}', flush=True)
        except BuildFailed as failure:
            print(f'{title}: FAILED after {duration(time.monotonic() - begin)}')
            failure.report(log)
            print('The next call goes on from here.')
            return 1
        print('checking the environment', flush=True)
        # A process of its own: an editable package is found from the start of one on.
        command = [sys.executable, str(Path(__file__).resolve()), 'check']
        if status := subprocess.run(command).returncode:
            return status
        print(f'environment built in {duration(time.monotonic() - begin)}')
        built = f'environment is ready: .venv, built {time.strftime("%Y-%m-%d %H:%M")}'
        ready.write_text(f'{ready_key()}\n{built} (`make check` shows the versions)\n')
        return 0


@dataclass
class Row:
    """A row of the table: a part, its version, and what is wrong with it, if anything."""

    part: str
    version: str
    problem: str = ''
    remedy: str = ''


PARTS = (
    # part, module to import, distribution, arguments of pip that repair it
    *((name, name, name, '') for name in ('torch', 'torchvision', 'numpy')),
    ('setuptools', 'pkg_resources', 'setuptools', '"setuptools>=70,<82"'),
    *((name, name, name, '') for name in ('mmengine', 'mmcv')),
    ('mmcv._ext', 'mmcv._ext', 'mmcv', ''),
    ('mmpretrain', 'mmpretrain', 'mmpretrain', ''),
    ('mmseg', 'mmseg.models', 'mmsegmentation', 'mmsegmentation ftfy regex'),
    ('mmdet', 'mmdet.models', 'mmdet', ''),
    ('mim', 'mim', 'openmim', '--no-deps openmim'),
    ('av', 'av', 'av', ''),
    ('vito_mm', 'vito_mm', 'vito_mm', '--no-build-isolation --no-deps -e .'),
)


def pinned(distribution: str) -> list[str]:
    """Versions that are pinned for a distribution; more than one where Python decides."""
    pattern = rf'^{re.escape(distribution)}==(\S+)'
    pins = (ROOT / PINS).read_text(encoding='utf-8') if (ROOT / PINS).exists() else ''
    return re.findall(pattern, pins, re.MULTILINE | re.IGNORECASE)


def check_part(part: str, module: str, distribution: str, arguments: str) -> Row:
    """Import a part and read its version."""
    row = Row(part, '-')
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # whatever an import raises is what the table reports
        row.problem = f'{type(error).__name__}: {error}'
        row.remedy = f'pip install {arguments or distribution}'
        if distribution == 'mmcv':
            row.remedy = 'python tools/build_mmcv.py'
        return row
    package = sys.modules[module.partition('.')[0]]
    row.version = getattr(package, '__version__', '')
    if not row.version:  # a fork's distribution has another name
        owners = importlib.metadata.packages_distributions().get(package.__name__, [distribution])
        row.version = importlib.metadata.version(owners[0])
    if part == 'mmcv._ext':
        cuda = loaded.get_compiling_cuda_version()
        row.version = f'{loaded.get_compiler_version()}, CUDA {cuda}'
    return row


def check_cuda(ops: Row) -> Row:
    """Row of the GPUs; without one everything runs on the CPU."""
    torch = sys.modules.get('torch')
    if torch is None or not torch.cuda.is_available():
        return Row('CUDA', 'no GPU, runs on the CPU')
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    text = f'{torch.version.cuda}, {len(names)} x {", ".join(sorted(set(names)))}'
    if 'not available' in ops.version:
        text += "; mmcv's ops are for the CPU only, and detectors cannot train on the GPU: with "
        text += 'nvcc installed, run python tools/build_mmcv.py'
    return Row('CUDA', text)


def check() -> int:
    """Print a table of the parts in this interpreter; returns 1 if a required one is wrong."""
    # tools/test.py is not the module that a package may import.
    sys.path = [path for path in sys.path if Path(path or '.').resolve() != ROOT / 'tools']
    rows = [Row('python', platform.python_version(), remedy='use another interpreter')]
    if python_version(sys.executable) not in PYTHONS:
        rows[0].problem = 'Python 3.10 to 3.13 is needed'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        rows.extend(check_part(*part) for part in PARTS)
    rows.insert(2, check_cuda(next(row for row in rows if row.part == 'mmcv._ext')))
    tried = {part: pinned(distribution) for part, _, distribution, _ in PARTS if '.' not in part}
    for row in rows:
        state = 'WRONG' if row.problem else 'ok'
        pins = tried.get(row.part)
        other = pins and row.version.split('+')[0] not in pins
        note = f'  (pinned: {", ".join(pins)})' if other else ''
        print(f'  {row.part:<12} {state:<6} {row.version}{note}')
    problems = [row for row in rows if row.problem]
    for row in problems:
        print(f'\n  {row.part}: {row.problem}\n    remedy: {row.remedy}')
    return int(bool(problems))


def main() -> int:
    """Parse the command line and run; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('command', choices=['build', 'check'])
    return dict(build=build, check=check)[parser.parse_args().command]()


if __name__ == '__main__':
    sys.exit(run_tool(main))
