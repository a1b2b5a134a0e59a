#!/usr/bin/env python
"""Build the environment in ``.venv`` (``build``), or check the one of this interpreter (``check``).

Needs nothing but the standard library. ``build`` goes on where an earlier call stopped and has
nothing to do when the environment is ready. mmcv's ops are compiled, which takes a quarter of an
hour; the wheel is kept in the user's cache folder for the next clone (VITO_MM_WHEEL_CACHE=0: never
read nor written).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / 'requirements'
VENV = ROOT / '.venv'
PYTHONS = ((3, 11), (3, 12))
"""Python versions for which the pinned requirements exist and were tried."""
RECIPE = 1
"""To be raised when a step does something else with the same files."""
DISK_GB = 8
"""Free space that a first build wants; torch with its CUDA libraries takes 5 of it."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals to end: Ctrl-C, a kill, a terminal that is closed."""
PATIENCE = 5.0
"""Seconds that what a stopped command has started gets to end, before it is told more firmly."""


class StepFailed(Exception):
    """A step of the build failed; holds the last lines of output, the cause and the remedy."""

    def __init__(self, cause: str, remedy: str, output: str = '') -> None:
        super().__init__(cause)
        self.cause, self.remedy, self.output = cause, remedy, output


# ------------------------------------------------------------------------------------- diagnosis

CAUSES = (
    (
        r'No space left on device|Errno 28|Disk quota exceeded',
        'The disk is full.',
        f'Free about {DISK_GB} GB where the checkout, the temporary folder (TMPDIR) and the user '
        'cache are, then run again.',
    ),
    (
        r'Killed signal terminated program|fatal error: Killed|out of memory|\(exit status -9\)',
        'The compiler was killed, most likely because memory ran out.',
        'Run again with fewer jobs: MAX_JOBS=1 make env',
    ),
    (
        r'Python\.h: No such file',
        'The C headers of Python are missing.',
        'Install the package python3-dev (python3-devel) of the system for this Python version.',
    ),
    (
        r'ensurepip is not available|No module named \'?(ensurepip|venv)',
        'This Python cannot create virtual environments.',
        'Install the package python3-venv of the system for this Python version.',
    ),
    (
        r"command '[^']*(cc|\+\+|clang)[^']*' failed: No such file|(g\+\+|c\+\+|gcc|cc): not found"
        r"|No such file or directory: '[^']*(g\+\+|c\+\+|gcc|cc)'",
        'There is no C++ compiler.',
        'Install the package build-essential (gcc-c++) of the system, or set CC and CXX.',
    ),
    (
        r'CERTIFICATE_VERIFY_FAILED|SSLError',
        'The package registry was reached, but its certificate is not trusted here.',
        'Tell pip the certificate of your network: PIP_CERT=/path/to/file make env',
    ),
    (
        r'Temporary failure in name resolution|Name or service not known|Network is unreachable'
        r'|NewConnectionError|ConnectTimeout|ReadTimeout|Connection refused|Max retries exceeded'
        r'|ProxyError|Read timed out|IncompleteRead|RemoteDisconnected',
        'The package registry cannot be reached.',
        'Check the network and the proxy (HTTPS_PROXY, PIP_INDEX_URL), then run again.',
    ),
    (
        r'(?i)detected CUDA version.*mismatches|nvcc fatal|unsupported gpu architecture'
        r'|CUDA_HOME environment variable is not set',
        'The CUDA compiler (nvcc) does not fit the installed torch.',
        'Point CUDA_HOME to a toolkit with the major version of torch.version.cuda, or build ops '
        'for the CPU only: CUDA_VISIBLE_DEVICES= make env',
    ),
    (
        r"No module named 'pkg_resources'",
        'setuptools is too new: version 82 dropped pkg_resources.',
        'Run: .venv/bin/pip install "setuptools>=70,<82"',
    ),
    (
        r'No matching distribution found for|Could not find a version that satisfies',
        'The registry has no such version for this Python and this machine.',
        'The pinned requirements were tried with Python 3.11 and 3.12 on 64-bit Linux.',
    ),
    (
        r'Permission denied|Errno 13',
        'A file or folder cannot be written.',
        'See which one in the output, and whose it is.',
    ),
)


def diagnose(output: str) -> tuple[str, str]:
    """Likely cause and remedy of a failure, from what the command printed."""
    for pattern, cause, remedy in CAUSES:
        if re.search(pattern, output):
            return cause, remedy
    return 'The command failed; its last lines are above.', 'See the log for everything it printed.'


# -------------------------------------------------------------------------------------- progress


def duration(seconds: float) -> str:
    """Seconds in words: ``48 s`` or ``12 min 5 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes} min {rest} s' if minutes else f'{rest} s'


class Progress:
    """Says how far a command is, from the lines it prints.

    Understands ninja's ``[12/77]`` and pip's raw ``Progress 100 of 200``.
    """

    NINJA = re.compile(r'^\s*\[(\d+)/(\d+)\]')
    DOWNLOAD = re.compile(r'^Progress (\d+) of (\d+)')

    def __init__(self, now: float) -> None:
        self.begin = now
        self.first: tuple[float, int] | None = None
        self.done = self.total = 0
        self.text = ''

    def feed(self, line: str, now: float) -> bool:
        """Take a line of output; returns whether it is worth a line of the log."""
        if match := self.DOWNLOAD.match(line):
            got, size = (int(number) / 1e6 for number in match.groups())
            if size >= 20:
                self.text = f'{self.text.split(",")[0]}, {got:.0f} of {size:.0f} MB'
            return False
        if match := self.NINJA.match(line):
            self.done, self.total = map(int, match.groups())
            self.first = self.first or (now, self.done)
        elif match := re.match(r'\s*(Downloading \S+|Installing collected packages)', line):
            self.text = match[1].replace('Installing collected packages', 'unpacking')
        return True

    def percent(self) -> int:
        """Share of the files that are compiled; 0 before the first."""
        return 100 * self.done // self.total if self.total else 0

    def describe(self, now: float) -> str:
        """Where the command is, in a few words."""
        elapsed = f'{(now - self.begin) / 60:.1f} min'
        if not self.total:
            return f'{elapsed}  {self.text}'.rstrip()
        text = f'{self.done} of {self.total} files compiled, {elapsed}'
        begin, before = self.first
        if self.done - before >= 3:
            left = (now - begin) / (self.done - before) * (self.total - self.done)
            text += f', about {left / 60:.1f} min left'
        return text


class Display:
    """Shows progress as one changing line on a terminal, elsewhere as a line now and then."""

    QUIET_SECONDS = 30

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self.last_time = time.monotonic()
        self.last_percent = 0

    def show(self, progress: Progress) -> None:
        """Show the progress if it is time to."""
        now = time.monotonic()
        if self.terminal:
            width = shutil.get_terminal_size().columns - 7
            print(f'\r\033[K      {progress.describe(now)[:width]}', end='', flush=True)
            return
        due = now - self.last_time >= self.QUIET_SECONDS * (4 if progress.total else 1)
        if progress.total:
            due = due or progress.percent() // 10 > self.last_percent // 10
        if due:
            print(f'      {progress.describe(now)}', flush=True)
            self.last_time, self.last_percent = now, progress.percent()

    def clear(self) -> None:
        """Remove the changing line."""
        if self.terminal:
            print('\r\033[K', end='', flush=True)


class Stopped(BaseException):
    """A signal to end; its only argument is the signal's number."""


def stop(number: int, frame: object) -> None:
    """Handle a signal to end: whatever runs is unwound, which ends what it has started."""
    raise Stopped(number)


def members(session: int) -> list[int]:
    """Living processes of a session; on a system without /proc none is found."""
    found = []
    for file in Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):  # it has ended in between
            # Behind the name, which may hold anything: state, parent, group, session.
            state, _, _, its_session = file.read_text().rpartition(')')[2].split()[:4]
            if int(its_session) == session and state != 'Z':
                found.append(int(file.parent.name))
    return found


def end_session(process: subprocess.Popen) -> None:
    """End a command and everything that it has started.

    ninja puts each compiler into a process group of its own, so the command's group is not all;
    the session is.
    """
    handled = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        # pip and ninja tidy up after the first of these.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            for pid in members(process.pid) or [process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            patience = time.monotonic() + PATIENCE
            while time.monotonic() < patience:
                if process.poll() is not None and not members(process.pid):
                    return
                time.sleep(0.05)
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)


def run(command: list[str], log: Path, **environment: str) -> None:
    """Run a command; its output goes to the log, its progress to the screen.

    It runs in a session of its own, all of which ends with this call, however it ends.

    Args:
        command (list[str]): Program and arguments.
        log (Path): File to append the output to.
        **environment (str): Environment variables on top of the present ones.

    Raises:
        StepFailed: If the command does not exist or returns an error.
    """
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    # The programs of .venv come first: torch looks for ninja on the path.
    env.update(PATH=f'{VENV / "bin"}{os.pathsep}{env.get("PATH", "")}', PYTHONNOUSERSITE='1')
    env.update(environment)
    progress, display = Progress(time.monotonic()), Display()
    tail: deque[str] = deque(maxlen=400)
    lines: queue.Queue[str | None] = queue.Queue()
    with log.open('a', encoding='utf-8') as file:
        file.write(f'\n$ {" ".join(command)}\n')
        try:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors='replace',
                start_new_session=True,
            )
        except OSError as error:
            raise StepFailed(*diagnose(str(error)), str(error)) from None

        def read() -> None:
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        try:
            threading.Thread(target=read, daemon=True).start()
            while True:
                try:
                    line = lines.get(timeout=1)
                except queue.Empty:
                    display.show(progress)
                    continue
                if line is None:
                    break
                if progress.feed(line, time.monotonic()):
                    tail.append(line)
                    file.write(line)
                    file.flush()
                display.show(progress)
            status = process.wait()
        except BaseException:
            end_session(process)
            raise
        finally:
            display.clear()
    if status:
        output = ''.join(tail)
        cause, remedy = diagnose(f'{output}\n(exit status {status})')
        raise StepFailed(cause, remedy, ''.join(list(tail)[-20:]))


# ------------------------------------------------------------------------------------ mmcv wheel

PROBE = """
import json, os, platform, shutil, sys, sysconfig
import torch
from torch.utils.cpp_extension import CUDA_HOME
gpu = torch.cuda.is_available()
nvcc = bool(CUDA_HOME) and os.path.exists(os.path.join(CUDA_HOME, 'bin', 'nvcc'))
devices = range(torch.cuda.device_count())
archs = os.environ.get('TORCH_CUDA_ARCH_LIST') or ','.join(
    sorted({'%d.%d' % torch.cuda.get_device_capability(device) for device in devices})
)
print(json.dumps(dict(
    tag='cp%d%d' % sys.version_info[:2], torch=torch.__version__, cuda=torch.version.cuda,
    gpu=gpu, nvcc=nvcc, archs=archs, machine=platform.machine(),
    headers=os.path.exists(os.path.join(sysconfig.get_paths()['include'], 'Python.h')),
)))
"""


@dataclass(frozen=True)
class Target:
    """What an mmcv wheel is built for.

    Attributes:
        tag: Python's tag, ``cp311``.
        torch: Version of torch with its local part, ``2.11.0+cu130``.
        mmcv: Version of mmcv.
        cuda_archs: GPU architectures that CUDA ops are built for; empty for CPU ops only.
        machine: Machine architecture.
    """

    tag: str
    torch: str
    mmcv: str
    cuda_archs: str
    machine: str

    @property
    def key(self) -> str:
        """Name of the cache's folder."""
        ops = f'cuda_{self.cuda_archs}' if self.cuda_archs else 'cpu'
        key = f'{self.tag}-torch_{self.torch}-mmcv_{self.mmcv}-{ops}-{self.machine}'
        return re.sub(r'[^\w.+-]+', '_', key)


def wheel_cache() -> Path | None:
    """Folder of the wheels that were built, or None if VITO_MM_WHEEL_CACHE=0."""
    if os.environ.get('VITO_MM_WHEEL_CACHE') == '0':
        return None
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base, 'vito_mm', 'wheels')


def has_ops(wheel: Path) -> bool:
    """Whether an mmcv wheel has its compiled ops."""
    with zipfile.ZipFile(wheel) as archive:
        return any(re.match(r'mmcv/_ext\..*so$', name) for name in archive.namelist())


def cached_wheel(cache: Path | None, target: Target) -> Path | None:
    """The wheel in the cache that was built for this target, if there is one."""
    wheels = sorted((cache / target.key).glob('mmcv-*.whl')) if cache else []
    return wheels[0] if wheels else None


def keep_wheel(wheel: Path, cache: Path, target: Target) -> Path:
    """Put a finished wheel into the cache, in one step, so that no other build sees half of it."""
    kept = cache / target.key / wheel.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=kept.parent, suffix='.part')
    os.close(handle)
    shutil.copyfile(wheel, name)
    os.replace(name, kept)
    return kept


def pinned(name: str) -> str:
    """The version that the requirement files pin for a package, or ''."""
    pattern = re.compile(rf'^{re.escape(name)}==(\S+)', re.MULTILINE | re.IGNORECASE)
    for path in sorted(REQUIREMENTS.glob('*.txt')):
        if match := pattern.search(path.read_text(encoding='utf-8')):
            return match[1]
    return ''


def default_jobs() -> int:
    """Compiler jobs that cores and memory allow: one takes up to 2 GB."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return max(1, min(len(os.sched_getaffinity(0)), int(memory / 2e9)))


def ask_python(code: str) -> str:
    """Standard output of a piece of code in .venv's interpreter."""
    done = subprocess.run(
        [str(VENV / 'bin' / 'python'), '-c', code], capture_output=True, text=True, cwd=VENV
    )
    if done.returncode:
        raise StepFailed(*diagnose(done.stderr), done.stderr[-2000:])
    return done.stdout


def install_mmcv(log: Path) -> None:
    """Install mmcv with ops that fit the installed torch, from the cache or from source.

    Raises:
        StepFailed: If it cannot be built, or has no ops that load.
    """
    probe = json.loads(ask_python(PROBE).splitlines()[-1])
    force = os.environ.get('FORCE_CUDA') == '1'
    with_cuda = force or (probe['gpu'] and probe['nvcc'])
    if probe['gpu'] and not with_cuda:
        print('      there is a GPU but no nvcc: the ops are built for the CPU only, and detectors')
        print('      cannot train on the GPU; install the CUDA toolkit of torch.version.cuda')
    target = Target(
        probe['tag'],
        probe['torch'],
        pinned('mmcv'),
        (probe['archs'] or 'all') if with_cuda else '',
        probe['machine'],
    )
    cache = wheel_cache()
    wheel = cached_wheel(cache, target)
    if wheel:
        print(f'      using the wheel built earlier for {target.key}')
        install_wheel(wheel, log)
        try:
            verify_mmcv()
            return
        except StepFailed as failure:
            print(f'      it does not load here ({failure.output.strip()[-200:]}); building anew')
            wheel.unlink()
    with tempfile.TemporaryDirectory(prefix='mmcv-') as folder:
        wheel = build_mmcv(Path(folder), target, probe['headers'], log)
        install_wheel(wheel, log)
        verify_mmcv()
        if cache:
            try:
                print(f'      kept for the next clone: {keep_wheel(wheel, cache, target)}')
            except OSError as error:
                print(f'      the wheel cannot be kept for the next clone: {error}')


def build_mmcv(folder: Path, target: Target, headers: bool, log: Path) -> Path:
    """Build mmcv's wheel from source into a folder."""
    if not any(map(shutil.which, filter(None, (os.environ.get('CXX'), 'c++', 'g++')))):
        raise StepFailed(*diagnose('c++: not found'))
    if not headers:
        raise StepFailed(*diagnose('Python.h: No such file'))
    jobs = os.environ.get('MAX_JOBS') or str(default_jobs())
    kind = f'for CUDA {target.cuda_archs} and the CPU' if target.cuda_archs else 'for the CPU'
    print(f'      compiling the ops of mmcv {target.mmcv} {kind} against torch {target.torch},')
    print(f'      {jobs} jobs (MAX_JOBS); on two cores this takes about a quarter of an hour')
    environment = {'MMCV_WITH_OPS': '1', 'MAX_JOBS': jobs}
    if target.cuda_archs:
        environment['FORCE_CUDA'] = '1'
    else:
        environment.update(FORCE_CUDA='0', CUDA_VISIBLE_DEVICES='')
    options = ['--no-build-isolation', '--no-deps', '--no-cache-dir', '--no-binary', 'mmcv', '-v']
    run(pip('wheel', *options, '-w', str(folder), f'mmcv=={target.mmcv}'), log, **environment)
    wheels = list(folder.glob('mmcv-*.whl'))
    if not wheels or not has_ops(wheels[0]):
        raise StepFailed(
            'mmcv was built without its ops, and without an error.',
            f'Its build did not see torch; look for "mmcv._ext" in {log}.',
        )
    return wheels[0]


def install_wheel(wheel: Path, log: Path) -> None:
    """Install an mmcv wheel over whatever mmcv is there."""
    run(pip('install', '--no-deps', '--no-index', '--force-reinstall', str(wheel)), log)


def verify_mmcv() -> None:
    """Load the ops alone: importing mmcv itself needs packages of a later step."""
    ask_python(
        'import glob, importlib.util as u, os, torch\n'
        'folder = u.find_spec("mmcv").submodule_search_locations[0]\n'
        'path, = glob.glob(os.path.join(folder, "_ext.*so"))\n'
        's = u.spec_from_file_location("mmcv._ext", path); u.module_from_spec(s)'
    )


# ----------------------------------------------------------------------------------------- build


def pip(command: str, *arguments: str) -> list[str]:
    """Command line of .venv's pip."""
    python = str(VENV / 'bin' / 'python')
    return [python, '-m', 'pip', '--disable-pip-version-check', command, *arguments]


def python_version(python: str) -> tuple[int, int] | None:
    """Major and minor version of an interpreter, None if it does not run."""
    code = 'import sys; print(*sys.version_info[:2])'
    try:
        done = subprocess.run([python, '-c', code], capture_output=True, text=True)
    except OSError:
        return None
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else None


def find_python() -> str:
    """An interpreter of a version that the requirements exist for.

    Raises:
        StepFailed: If there is none.
    """
    names = [sys.executable, *(f'python{major}.{minor}' for major, minor in PYTHONS), 'python3']
    for name in names:
        if python_version(name) in PYTHONS:
            return name
    found = platform.python_version()
    raise StepFailed(
        f'Python 3.11 or 3.12 is needed; only {found} was found.',
        'Install one, or use your own environment: make demo PYTHON=/path/to/python',
    )


def make_venv(log: Path) -> None:
    """Create .venv, unless there is one that works."""
    if python_version(str(VENV / 'bin' / 'python')) in PYTHONS:
        return
    if (VENV / 'pyvenv.cfg').exists():
        print('      .venv is of another Python or does not run any more; making it anew')
        shutil.rmtree(VENV)
        log.parent.mkdir(parents=True)
    run([find_python(), '-m', 'venv', str(VENV)], log)


def install_torch(log: Path) -> None:
    """Install torch, after a look at the free space."""
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < DISK_GB and not list(VENV.glob('lib/python3*/site-packages/torch')):
        raise StepFailed(f'{free:.1f} GB of disk are free; that is too little.', CAUSES[0][2])
    install_file('torch.txt', log)


def install_file(name: str, log: Path, *options: str) -> None:
    """Install a requirement file."""
    constraints = ('-c', str(REQUIREMENTS / 'constraints.txt'))
    options = ('--progress-bar', 'raw', *constraints, *options, '-r', str(REQUIREMENTS / name))
    run(pip('install', *options), log)


@dataclass(frozen=True)
class Step:
    """A step of the build.

    Attributes:
        name: Short name, also the name of its stamp.
        title: What it does.
        files: Files, relative to the checkout, that make it run again when they change.
        action: Does it; takes the path of the log.
    """

    name: str
    title: str
    files: tuple[str, ...]
    action: Callable[[Path], None]


def steps() -> list[Step]:
    """The steps of the build, in order. torch comes before mmcv, which is compiled against it."""

    def of_file(name: str, title: str, *options: str) -> Step:
        file = f'{name}.txt'
        return Step(
            name,
            title,
            (f'requirements/{file}', 'requirements/constraints.txt'),
            lambda log: install_file(file, log, *options),
        )

    def upgrade_pip(log: Path) -> None:
        run(pip('install', '-r', str(REQUIREMENTS / 'pip.txt')), log)

    def install_package(log: Path) -> None:
        run(pip('install', '--no-build-isolation', '--no-deps', '-e', str(ROOT)), log)

    torch_files = ('requirements/torch.txt', 'requirements/constraints.txt')
    package_files = ('setup.py', 'setup.cfg', 'pyproject.toml', 'vito_mm/version.py')
    return [
        Step('venv', 'virtual environment .venv', (), make_venv),
        Step('pip', 'pip', ('requirements/pip.txt',), upgrade_pip),
        Step('torch', 'torch and torchvision (5 GB on disk)', torch_files, install_torch),
        Step('mmcv', 'mmcv with compiled ops', ('requirements/mmcv.txt',), install_mmcv),
        of_file('openmmlab', 'mmengine, mmpretrain, mmseg, mmdet and video decoders'),
        of_file('openmim', 'mim, without its dependencies', '--no-deps'),
        of_file('openmim-needs', 'what mim needs'),
        of_file('dev', 'pytest and ruff'),
        of_file('docs', 'Sphinx'),
        Step('package', 'vito_mm itself, editable', package_files, install_package),
    ]


def step_keys(plan: list[Step]) -> list[str]:
    """A key per step, which changes with its files and with all steps before it."""
    key = f'{RECIPE} {VENV}'
    keys = []
    for step in plan:
        digest = hashlib.sha256(f'{key} {step.name}'.encode())
        for file in step.files:
            digest.update((ROOT / file).read_bytes())
        key = digest.hexdigest()
        keys.append(key)
    return keys


def venv_python_version() -> str:
    """Full Python version that .venv was made with, '' if there is none that could run."""
    config = VENV / 'pyvenv.cfg'
    if not config.exists() or not (VENV / 'bin' / 'python').exists():
        return ''
    match = re.search(r'^version\S* = (\S+)', config.read_text(encoding='utf-8'), re.MULTILINE)
    return match[1] if match else ''


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
    with only_one_build():
        state = VENV / '.vito_mm'
        log, summary = state / 'build.log', state / 'ready.txt'
        plan = steps()
        keys = step_keys(plan)
        ready_key = f'{keys[-1]} {venv_python_version()}'
        if summary.exists():
            stored_key, _, text = summary.read_text(encoding='utf-8').partition('\n')
            if stored_key == ready_key:
                print(text.strip())
                return 0
        begin = time.monotonic()
        summary.unlink(missing_ok=True)
        state.mkdir(parents=True, exist_ok=True)
        print(f'building the environment in {VENV.name}; log: {log.relative_to(ROOT)}')
        for number, (step, key) in enumerate(zip(plan, keys, strict=True), 1):
            if not run_step(step, key, f'[{number}/{len(plan)}]', state, log):
                return 1
        print('checking the environment')
        command = [str(VENV / 'bin' / 'python'), str(Path(__file__).resolve()), 'check']
        checked = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        print(checked.stdout, end='')
        if checked.returncode:
            return checked.returncode
        print(f'environment built in {duration(time.monotonic() - begin)}')
        ready = f'environment is ready: {VENV.name}, built {time.strftime("%Y-%m-%d %H:%M")}'
        ready_key = f'{keys[-1]} {venv_python_version()}'
        summary.write_text(f'{ready_key}\n{ready} (`make check` shows the versions)\n')
        return 0


def run_step(step: Step, key: str, label: str, state: Path, log: Path) -> bool:
    """Run a step unless its stamp says that it is done; returns whether it went well."""
    stamp = state / f'{step.name}.stamp'
    done = stamp.exists() and stamp.read_text(encoding='utf-8') == key
    # Without an interpreter that runs, no stamp is worth anything.
    if done and (step.name != 'venv' or venv_python_version()):
        print(f'{label} {step.title}: done before')
        return True
    print(f'{label} {step.title}', flush=True)
    begin = time.monotonic()
    try:
        step.action(log)
    except StepFailed as failure:
        print(f'\n{label} {step.title}: FAILED after {duration(time.monotonic() - begin)}')
        if failure.output:
            print('\n' + '\n'.join(f'    {line}' for line in failure.output.splitlines()) + '\n')
        print(f'  cause:  {failure.cause}\n  remedy: {failure.remedy}')
        print(f'  log:    {log}\nThe next call goes on with this step.')
        return False
    stamp.write_text(key, encoding='utf-8')
    print(f'{label} {step.title}: {duration(time.monotonic() - begin)}', flush=True)
    return True


# ----------------------------------------------------------------------------------------- check


@dataclass
class Row:
    """A row of the table: a part, its version, and what is wrong with it, if anything."""

    part: str
    version: str
    problem: str = ''
    remedy: str = ''
    required: bool = True


PINNED = 'pip install -c requirements/constraints.txt -r requirements/'
MMCV_REMEDY = (
    'MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps --no-cache-dir --force-reinstall '
    '--no-binary mmcv mmcv==2.1.0'
)
PARTS = (
    # part, module to import, distribution, remedy
    ('torch', 'torch', 'torch', f'{PINNED}torch.txt'),
    ('torchvision', 'torchvision', 'torchvision', f'a build that matches torch: {PINNED}torch.txt'),
    ('numpy', 'numpy', 'numpy', f'{PINNED}torch.txt'),
    ('setuptools', 'pkg_resources', 'setuptools', 'pip install "setuptools>=70,<82"'),
    ('mmengine', 'mmengine', 'mmengine', f'{PINNED}openmmlab.txt'),
    ('mmcv', 'mmcv', 'mmcv', MMCV_REMEDY),
    ('mmcv._ext', 'mmcv._ext', 'mmcv', MMCV_REMEDY),
    ('mmpretrain', 'mmpretrain', 'mmpretrain', f'{PINNED}openmmlab.txt'),
    ('mmseg', 'mmseg.models', 'mmsegmentation', f'{PINNED}openmmlab.txt'),
    ('mmdet', 'mmdet.models', 'mmdet', f'{PINNED}openmmlab.txt'),
    ('mim', 'mim', 'openmim', f'pip install --no-deps openmim==0.3.9 && {PINNED}openmim-needs.txt'),
    ('av', 'av', 'av', 'pip install av'),
    ('vito_mm', 'vito_mm', 'vito_mm', 'pip install --no-build-isolation --no-deps -e .'),
)


def check_python() -> Row:
    """Row of the interpreter."""
    row = Row('python', platform.python_version())
    if sys.version_info < (3, 11):  # noqa: UP036 - the interpreter is the user's
        row.problem, row.remedy = 'Python >= 3.11 is needed', 'use another interpreter'
    return row


def check_part(part: str, module: str, distribution: str, remedy: str) -> Row:
    """Import a part and read its version."""
    row = Row(part, '-')
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # whatever an import raises is what the table reports
        row.problem, row.remedy = f'{type(error).__name__}: {error}', remedy
        return row
    package = sys.modules[module.partition('.')[0]]
    row.version = getattr(package, '__version__', None) or importlib.metadata.version(distribution)
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
    row = Row('CUDA', f'{torch.version.cuda}, {len(names)} x {", ".join(sorted(set(names)))}')
    if 'not available' in ops.version:
        row.required = False
        row.problem = "mmcv's ops were built for the CPU only: detectors cannot train on the GPU"
        row.remedy = f'with nvcc installed: FORCE_CUDA=1 {MMCV_REMEDY}'
    return row


def check() -> int:
    """Print a table of the parts in this interpreter; returns 1 if a required one is wrong."""
    sys.path = [path for path in sys.path if Path(path or '.').resolve() != ROOT / 'tools']
    rows = [check_python()]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        rows.extend(check_part(*part) for part in PARTS)
        ops = next(row for row in rows if row.part == 'mmcv._ext')
        rows.insert(2, check_cuda(ops))
    tried = {part: pinned(distribution) for part, _, distribution, _ in PARTS if '.' not in part}
    for row in rows:
        state = ('WRONG' if row.required else 'note') if row.problem else 'ok'
        pin = tried.get(row.part, '')
        other = f'  (tried with {pin})' if pin and row.version.split('+')[0] != pin else ''
        print(f'  {row.part:<12} {state:<6} {row.version}{other}')
    problems = [row for row in rows if row.problem]
    for row in problems:
        print(f'\n  {row.part}: {row.problem}\n    remedy: {row.remedy}')
    return int(any(row.required for row in problems))


def main() -> int:
    """Parse the command line and run; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('command', choices=['build', 'check'])
    command = parser.parse_args().command
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, stop)
    try:
        return build() if command == 'build' else check()
    except Stopped as stopped:
        with contextlib.suppress(OSError):  # the terminal may be gone
            print('\ninterrupted; the next call goes on with the step that was running')
        return 128 + stopped.args[0]


if __name__ == '__main__':
    sys.exit(main())
