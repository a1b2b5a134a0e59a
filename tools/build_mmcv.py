#!/usr/bin/env python
"""Build mmcv with its compiled ops against the torch of this Python, and install it.

A few minutes on two cores instead of a quarter of an hour: the header that every file includes
first is compiled once, without debug information. Other installed packages are not touched; what
the build needs and is missing goes into a temporary folder. The wheel is kept in the user's cache
folder (VITO_MM_WHEEL_CACHE=0: neither read nor written). MAX_JOBS sets the number of compilers.
Where there is a GPU and nvcc, or with FORCE_CUDA=1, CUDA ops are built, too.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from pathlib import Path

from _building import BuildFailed, duration, run, run_tool

MMCV = 'mmcv==2.1.0'
"""The mmcv that mmdet 3.3.0 and mmseg 1.2.2 take."""
HEADER = 'pytorch_cpp_helper.hpp'
"""The header of mmcv, with all of torch in it, that its files include first."""
JOB_BYTES = 2e9
"""Memory that a compiler may take."""


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


def keep_wheel(wheel: Path, folder: Path) -> Path:
    """Put a finished wheel into the cache, in one step, so that no other build sees half of it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, suffix='.part')
    os.close(handle)
    shutil.copyfile(wheel, name)
    os.replace(name, folder / wheel.name)
    return folder / wheel.name


def default_jobs() -> int:
    """Compilers that cores and memory allow."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return max(1, min(len(os.sched_getaffinity(0)), int(memory / JOB_BYTES)))


def cuda_targets() -> str:
    """GPU architectures that CUDA ops are to be built for; empty for CPU ops only."""
    import torch

    # It warns of a toolkit without a GPU.
    logging.getLogger('torch.utils.cpp_extension').setLevel(logging.ERROR)
    from torch.utils.cpp_extension import CUDA_HOME

    gpus = range(torch.cuda.device_count())
    nvcc = bool(CUDA_HOME) and Path(CUDA_HOME, 'bin', 'nvcc').exists()
    if not (gpus and nvcc) and os.environ.get('FORCE_CUDA') != '1':
        if gpus:
            print('      there is a GPU but no nvcc: the ops are built for the CPU only, and')
            print('      detectors cannot train on the GPU; install the CUDA toolkit', flush=True)
        return ''
    found = {'{}.{}'.format(*torch.cuda.get_device_capability(gpu)) for gpu in gpus}
    return os.environ.get('TORCH_CUDA_ARCH_LIST') or ','.join(sorted(found)) or 'all'


def cache_name(mmcv: str, cuda: str) -> str:
    """Name that wheels for the same Python, torch, mmcv, ops and machine share."""
    import torch

    ops = f'cuda_{cuda}' if cuda else 'cpu'
    python = 'cp{}{}'.format(*sys.version_info)
    name = f'{python}-torch_{torch.__version__}-{mmcv}-{ops}-{platform.machine()}'
    return re.sub(r'[^\w.+-]+', '_', name)


# ------------------------------------------------------------------------------------- compiler


def compile_file(compiler: str, arguments: list[str], state: Path, standard: str = '') -> int:
    """Run the C++ compiler in the place of mmcv's build, and make its files cheap.

    Before the first file, its own options serve to compile the header that all files start with;
    where that fails, files are compiled as they are. Debug information of torch's headers is half
    of a compiler's work and never used.

    Args:
        compiler (str): The real compiler.
        arguments (list[str]): What it was to be called with.
        state (Path): Folder in which the compilers of one build see each other.
        standard (str): C++ standard to ask for in place of the build's, or ''.

    Returns:
        int: Exit status of the compiler.
    """
    if standard:
        arguments = [standard if text.startswith('-std=') else text for text in arguments]
    if '-c' in arguments:
        arguments = [*arguments, '-g0']
        folders = [Path(text[2:]) for text in arguments if text.startswith('-I')]
        headers = [folder / HEADER for folder in folders if (folder / HEADER).exists()]
        if headers:
            precompile(compiler, arguments, headers[0], state)
    return subprocess.call([compiler, *arguments])


def precompile(compiler: str, arguments: list[str], header: Path, state: Path) -> None:
    """Compile a header with the options of a file, once per build and set of options."""
    options, words = [], iter(arguments)
    for text in words:
        if text in ('-o', '-MF', '-MT', '-MQ'):
            next(words)
        elif text not in ('-c', '-MD', '-MMD') and not text.endswith(('.cpp', '.cc', '.cxx')):
            options.append(text)
    tried = state / hashlib.sha256('\0'.join(options).encode()).hexdigest()
    with (state / 'lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if tried.exists():
            return
        tried.touch()
        unfinished = state / 'header.gch'
        command = [compiler, *options, '-x', 'c++-header', str(header), '-o', str(unfinished)]
        # Only GCC takes it without being told; clang ignores a file of GCC's kind beside it.
        if subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
            os.replace(unfinished, f'{header}.gch')


def install_compiler(folder: Path) -> str:
    """Put a program that runs ``compile_file`` into a folder, and return its path.

    Raises:
        BuildFailed: If there is no C++ compiler.
    """
    import torch

    words = shlex.split(os.environ.get('CXX') or 'c++')
    compiler = shutil.which(words[0])
    if not compiler or len(words) > 1:
        raise BuildFailed.diagnosed(f'{shlex.join(words)}: not found')
    # torch's headers are C++20 since 2.14, which mmcv's setup.py does not know of.
    release = tuple(int(number) for number in torch.__version__.split('.')[:2])
    standard = '-std=c++20' if release >= (2, 14) else ''
    # torch knows compilers that it trusts by name.
    path = folder / ('clang++' if 'clang' in os.path.realpath(compiler) else 'g++')
    call = f'compile_file({compiler!r}, sys.argv[1:], Path({str(folder)!r}), {standard!r})'
    path.write_text(
        f'#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n'
        f'from build_mmcv import Path, compile_file\nsys.exit({call})\n'
    )
    path.chmod(0o755)
    return str(path)


# ---------------------------------------------------------------------------------------- wheel

OLD_EXEC = """
import builtins, sys

new_exec = builtins.exec

def old_exec(code, globals=None, locals=None, /, **options):
    if globals is None:
        frame = sys._getframe(1)
        globals, locals = frame.f_globals, frame.f_locals
    new_exec(code, globals, locals, **options)

builtins.exec = old_exec
"""
"""mmcv's setup.py looks for what it executes among ``locals()``, as before Python 3.13."""


def pip(command: str, *arguments: str) -> list[str]:
    """Command line of this Python's pip."""
    return [sys.executable, '-m', 'pip', '--disable-pip-version-check', command, *arguments]


def build_needs() -> list[str]:
    """Requirements of mmcv's build, which is not isolated, that are not installed here."""
    needs = {
        'pkg_resources': 'setuptools>=70,<82',
        'wheel': 'wheel',
        'ninja': 'ninja',
        'psutil': 'psutil',
        'packaging': 'packaging',
    }
    return [need for module, need in needs.items() if importlib.util.find_spec(module) is None]


def build_wheel(folder: Path, mmcv: str, cuda: str, log: Path) -> Path:
    """Build mmcv's wheel from source into a folder.

    Raises:
        BuildFailed: If a compiler, headers, the network or disk space is missing, or if the wheel
            has no ops.
    """
    import torch

    compiler = install_compiler(folder)
    if not Path(sysconfig.get_paths()['include'], 'Python.h').exists():
        raise BuildFailed.diagnosed('Python.h: No such file')
    environment = {
        'CXX': compiler,
        'MMCV_WITH_OPS': '1',
        'MAX_JOBS': os.environ.get('MAX_JOBS') or str(default_jobs()),
        'FORCE_CUDA': '1' if cuda else '0',
    }
    if not cuda:
        environment['CUDA_VISIBLE_DEVICES'] = ''
    needed = folder / 'needs'
    needed.mkdir()
    if sys.version_info >= (3, 13):
        (needed / 'sitecustomize.py').write_text(OLD_EXEC)
    programs = [str(needed / 'bin'), str(Path(sys.executable).parent), os.environ.get('PATH', '')]
    if needs := build_needs():
        run(pip('install', '--target', str(needed), *needs), log)
    environment['PYTHONPATH'] = str(needed)
    environment['PATH'] = os.pathsep.join(programs)
    kind = f'for CUDA {cuda} and the CPU' if cuda else 'for the CPU'
    print(f'      compiling the ops of {mmcv} {kind} against torch {torch.__version__},')
    print(f'      {environment["MAX_JOBS"]} jobs (MAX_JOBS)', flush=True)
    options = ['--no-build-isolation', '--no-deps', '--no-cache-dir', '--no-binary', ':all:', '-v']
    run(pip('wheel', *options, '-w', str(folder), mmcv), log, **environment)
    wheels = list(folder.glob('*mmcv-*.whl'))
    if not wheels or not has_ops(wheels[0]):
        raise BuildFailed(
            'mmcv was built without its ops, and without an error.',
            f'Its build did not see torch; look for "mmcv._ext" in {log}.',
        )
    return wheels[0]


def install_wheel(wheel: Path, log: Path) -> None:
    """Install an mmcv wheel over whatever mmcv is there, and load its ops.

    Raises:
        BuildFailed: If the ops do not load with this torch.
    """
    run(pip('install', '--no-deps', '--no-index', '--force-reinstall', str(wheel)), log)
    # Importing mmcv itself needs packages that may come later.
    code = (
        'import glob, importlib.util as u, os, torch\n'
        'folder = u.find_spec("mmcv").submodule_search_locations[0]\n'
        'path, = glob.glob(os.path.join(folder, "_ext.*so"))\n'
        's = u.spec_from_file_location("mmcv._ext", path); u.module_from_spec(s)'
    )
    run([sys.executable, '-c', code], log, folder=log.parent)


def install_mmcv(log: Path, mmcv: str = MMCV) -> None:
    """Install mmcv with ops that fit the installed torch, from the cache or from source.

    Args:
        log (Path): File to append the output to.
        mmcv (str): What to build. Defaults to ``MMCV``.

    Raises:
        BuildFailed: If it cannot be built, or has no ops that load.
    """
    cuda = cuda_targets()
    cache = wheel_cache()
    kept = cache / cache_name(mmcv, cuda) if cache else None
    for wheel in kept.glob('*mmcv-*.whl') if kept else ():
        print(f'      using the wheel built earlier for {kept.name}', flush=True)
        try:
            return install_wheel(wheel, log)
        except BuildFailed as failure:
            print(f'      it does not load here ({failure.output.strip()[-200:]}); building anew')
            wheel.unlink()
    with tempfile.TemporaryDirectory(prefix='mmcv-') as folder:
        wheel = build_wheel(Path(folder), mmcv, cuda, log)
        install_wheel(wheel, log)
        if kept:
            try:
                print(f'      kept for the next time: {keep_wheel(wheel, kept)}')
            except OSError as error:
                print(f'      the wheel cannot be kept for the next time: {error}')
    return None


def main() -> int:
    """Parse the command line and run; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'mmcv',
        nargs='?',
        default=MMCV,
        help='what to build, e.g. mmcv==2.2.0 or onedl-mmcv==2.3.6 (default: %(default)s)',
    )
    mmcv = parser.parse_args().mmcv
    if importlib.util.find_spec('torch') is None:
        parser.error(f'{sys.executable} has no torch to build against; install torch first')
    handle, name = tempfile.mkstemp(prefix='build_mmcv-', suffix='.log')
    os.close(handle)
    log, begin = Path(name), time.monotonic()
    try:
        install_mmcv(log, mmcv)
    except BuildFailed as failure:
        failure.report(log)
        return 1
    with contextlib.suppress(OSError):
        log.unlink()
    print(f'{mmcv} with its ops is installed: {duration(time.monotonic() - begin)}')
    return 0


if __name__ == '__main__':
    sys.exit(run_tool(main))
