"""The scripts that build and check the environment."""

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

REPO = Path(__file__).resolve().parents[1]
TOOLS = REPO / 'tools'
SCRIPT = TOOLS / 'environment.py'
BUILDING = ('_building.py', 'build_mmcv.py', 'environment.py')


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a script of tools/ as a module."""

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    monkeypatch.syspath_prepend(TOOLS)
    yield load
    for name in ('_building', 'build_mmcv', 'environment'):
        sys.modules.pop(name, None)


@pytest.fixture
def building(tool: Callable[[str], ModuleType]) -> ModuleType:
    """What runs the commands of a build."""
    return tool('_building')


@pytest.fixture
def build_mmcv(tool: Callable[[str], ModuleType]) -> ModuleType:
    """The script that builds mmcv."""
    return tool('build_mmcv')


def test_progress_of_ninja(building: ModuleType) -> None:
    progress = building.Progress(now=0)
    progress.feed('  running build_ext\n', now=30)
    assert progress.describe(now=30) == '0.5 min'
    for done in range(1, 41):
        progress.feed(f'  [{done}/77] c++ -MMD -MF [1/2].o.d\n', now=60 + 6 * (done - 1))
    # 39 files in 234 s after the first one, 37 are left
    assert progress.describe(now=294) == ('40 of 77 files compiled, 4.9 min, about 3.7 min left')


def test_compilation_prints_a_line_every_ten_percent(
    building: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    code = 'for i in range(1, 78): print(f"  [{i}/77] c++ -c", flush=True)'
    log = tmp_path / 'log'
    building.run([sys.executable, '-c', code], log)
    shown = [int(n) for n in re.findall(r'(\d+) of 77 files', capsys.readouterr().out)]
    assert shown == [8, 16, 24, 31, 39, 47, 54, 62, 70, 77]
    assert '[42/77]' in log.read_text()


@pytest.mark.parametrize(
    ('output', 'cause', 'remedy'),
    [
        ("OSError: [Errno 28] No space left on device: '/x'", 'disk is full', 'Free'),
        ('c++: fatal error: Killed signal terminated program cc1plus', 'killed', 'MAX_JOBS=1'),
        ('a.cpp:1:10: fatal error: Python.h: No such file or directory', 'headers', 'python3-dev'),
        ("[Errno 2] No such file or directory: 'c++'", 'compiler', 'build-essential'),
        ("error: command 'g++' failed: No such file or directory", 'compiler', 'build-essential'),
        ('The virtual environment was not created: ensurepip is not available', 'virtual', 'venv'),
        (
            'WARNING: Retrying: NewConnectionError(...)\nNo matching distribution found',
            'reached',
            'proxy',
        ),
        ('SSLError(CERTIFICATE_VERIFY_FAILED) Max retries exceeded', 'certificate', 'PIP_CERT'),
        ('The detected CUDA version (12.1) mismatches the version', 'nvcc', 'CUDA_HOME'),
        ('  error sending request for url (x)\n  dns error', 'reached', 'UV_INDEX_URL'),
        ('  invalid peer certificate: UnknownIssuer', 'certificate', 'SSL_CERT_FILE'),
        ('ERROR: No matching distribution found for torch==2.11.0', 'no such version', '3.10'),
        ('something else', 'failed', 'log'),
    ],
)
def test_diagnosis(building: ModuleType, output: str, cause: str, remedy: str) -> None:
    failure = building.BuildFailed.diagnosed(output)
    assert cause in failure.cause
    assert remedy in failure.remedy


def test_missing_command_is_a_failure(building: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(building.BuildFailed, match='failed') as raised:
        building.run([str(tmp_path / 'nowhere')], tmp_path / 'log')
    assert 'nowhere' in raised.value.output


COMPILING = """
import os, signal, subprocess, sys
if {stubborn}:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
# ninja gives each compiler a process group of its own.
compiler = subprocess.Popen(['sleep', '300'], preexec_fn=os.setpgrp)
print('c++', os.getpid(), compiler.pid, flush=True)
compiler.wait()
"""
BUILD = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)  # whatever the tests were started with
sys.path.insert(0, {tools!r})
import _building, build_mmcv
def install(log, mmcv):
    _building.run([sys.executable, '-c', {compiling!r}], log)
_building.PATIENCE = 0.5 if {stubborn} else 30
build_mmcv.install_mmcv = install
sys.argv = ['build_mmcv.py']
sys.exit(_building.run_tool(build_mmcv.main))
"""


@pytest.mark.parametrize(
    ('number', 'stubborn'),
    [
        (signal.SIGINT, False),
        (signal.SIGTERM, False),
        (signal.SIGHUP, False),
        (signal.SIGTERM, True),
    ],
)
def test_stopped_build_leaves_no_compiler(
    building: ModuleType, tmp_path: Path, number: int, stubborn: bool
) -> None:
    code = BUILD.format(
        tools=str(TOOLS), compiling=COMPILING.format(stubborn=stubborn), stubborn=stubborn
    )
    build = subprocess.Popen(
        [sys.executable, '-c', code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, 'TMPDIR': str(tmp_path)},
    )
    found = None
    try:
        while not found and build.poll() is None:
            time.sleep(0.05)
            text = ''.join(log.read_text() for log in tmp_path.glob('build_mmcv-*.log'))
            found = re.search(r'^c\+\+ (\d+) (\d+)\n', text, re.MULTILINE)
        command, compiler = map(int, found.groups())
        assert {command, compiler} <= set(building._members(command))
        build.send_signal(number)
        shown, _ = build.communicate(timeout=60)
        assert building._members(command) == []
    finally:
        build.kill()
    assert build.returncode == 128 + number
    assert 'interrupted' in shown


FAKE_UV = """#!/bin/sh
[ "$UV_DEFAULT_INDEX" = https://mirror.invalid ] || exit 9
echo "uv $*" >> {calls}
case "$*" in
  *environment.txt*) {pins} ;;
  *-e*) echo "{folder}" > "$(echo "{folder}"/.venv/lib/python3*/site-packages)/editable.pth" ;;
esac
"""


class Checkout:
    """A copy of what builds an environment, with stand-ins for what takes minutes.

    ``.venv`` is a real one, made by the script; uv and the compilation are replaced in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ('requirements/environment.txt', 'pyproject.toml', 'setup.cfg', 'setup.py'):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(REPO / name, folder / name)
        (folder / 'vito_mm').mkdir()
        shutil.copy(REPO / 'vito_mm' / 'version.py', folder / 'vito_mm')
        (folder / 'tools').mkdir()
        for name in BUILDING:
            shutil.copy(TOOLS / name, folder / 'tools')
        script = folder / 'tools' / 'environment.py'
        text = script.read_text()
        # Needs the network.
        command = "run(pip('install', f'uv=={pinned(\"uv\")[0]}'), log)"
        assert command in text
        text = text.replace(command, 'None')
        # There is nothing but what this installs.
        place = '    # tools/test.py is not'
        assert place in text
        script.write_text(text.replace(place, f'    import vito_mm.version\n    return 0\n{place}'))
        (folder / 'tools' / 'build_mmcv.py').write_text(
            'from pathlib import Path\n'
            'def install_mmcv(log):\n'
            '    with Path(__file__).with_name("calls").open("a") as file:\n'
            '        file.write("mmcv\\n")\n'
        )

    def build(self, pins: str = 'true') -> subprocess.CompletedProcess:
        """Result of a build in which the installation of the pins is this shell command."""
        program = self.folder / '.venv' / 'bin' / 'uv'
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(
            FAKE_UV.format(folder=self.folder, calls=self.folder / 'tools' / 'calls', pins=pins)
        )
        program.chmod(0o755)
        return subprocess.run(
            [sys.executable, str(self.folder / 'tools' / 'environment.py'), 'build'],
            capture_output=True,
            text=True,
            env={**os.environ, 'PIP_INDEX_URL': 'https://mirror.invalid'},
        )

    def calls(self) -> list[str]:
        """The installations since the last call, each by its last word."""
        file = self.folder / 'tools' / 'calls'
        words = (
            [line.split()[-1] for line in file.read_text().splitlines()] if file.exists() else []
        )
        file.unlink(missing_ok=True)
        return [Path(word).name for word in words]


def test_build_goes_on_after_a_failure_and_rests_when_ready(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    failed = checkout.build('echo "step output"; echo "x: Read timed out" >&2; exit 2')
    assert failed.returncode == 1
    assert 'FAILED' in failed.stdout
    assert '    step output' in failed.stdout
    assert 'cause:  The package registry cannot be reached.' in failed.stdout
    assert 'build.log' in failed.stdout
    assert checkout.calls() == ['environment.txt']

    done = checkout.build()
    assert done.returncode == 0, done.stdout + done.stderr
    assert checkout.calls() == ['environment.txt', 'mmcv', tmp_path.name]

    ready = checkout.build()
    assert ready.stdout.count('\n') == 1
    assert 'environment is ready' in ready.stdout
    assert checkout.calls() == []

    with (tmp_path / 'requirements' / 'environment.txt').open('a') as file:
        file.write('new==1.0\n')
    assert checkout.build().returncode == 0
    assert checkout.calls() == ['environment.txt', 'mmcv', tmp_path.name]

    (tmp_path / '.venv' / 'bin' / 'python').unlink()
    again = checkout.build()
    assert 'making it anew' in again.stdout, 'an environment without interpreter is made anew'


def test_wheel_cache_keeps_whole_wheels(
    build_mmcv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    wheel = tmp_path / 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr('mmcv/_ext.cpython-311-x86_64-linux-gnu.so', '')
    folder = build_mmcv.wheel_cache() / build_mmcv.cache_name('mmcv==2.1.0', '')
    assert folder.is_relative_to(tmp_path / 'cache' / 'vito_mm' / 'wheels')
    kept = build_mmcv.keep_wheel(wheel, folder)
    assert build_mmcv.has_ops(kept)
    assert [path.name for path in folder.iterdir()] == [wheel.name], 'nothing half-written'
    monkeypatch.setenv('VITO_MM_WHEEL_CACHE', '0')
    assert build_mmcv.wheel_cache() is None


def test_wheel_cache_tells_builds_apart(
    build_mmcv: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [
        build_mmcv.cache_name('mmcv==2.1.0', ''),
        build_mmcv.cache_name('mmcv==2.2.0', ''),
        build_mmcv.cache_name('mmcv==2.1.0', '9.0'),
        build_mmcv.cache_name('mmcv==2.1.0', '8.0,9.0'),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(torch, '__version__', '2.9.0+cu126')
        names.append(build_mmcv.cache_name('mmcv==2.1.0', ''))
    with monkeypatch.context() as patch:
        patch.setattr(sys, 'version_info', (3, 99))
        names.append(build_mmcv.cache_name('mmcv==2.1.0', ''))
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r'[\w.+-]+', name) for name in names)


HELPER = """
#ifndef HELPER
#define HELPER
#include <map>
#include <string>
inline std::string hello() { return "precompiled"; }
#endif
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Folder of two C++ files that start with mmcv's header."""
    (tmp_path / 'common').mkdir()
    (tmp_path / 'common' / 'pytorch_cpp_helper.hpp').write_text(HELPER)
    for name in 'ab':
        (tmp_path / f'{name}.cpp').write_text(
            f'#include "pytorch_cpp_helper.hpp"\nint {name}() {{ return hello().size() + ONE; }}\n'
        )
    (tmp_path / 'state').mkdir()
    return tmp_path


def compile_source(
    build_mmcv: ModuleType, sources: Path, name: str, *options: str, **settings: str
) -> int:
    """Compile a file as mmcv's build does, with a warning turned error if the header is unused."""
    arguments = ['-MMD', '-MF', str(sources / 'x.d'), f'-I{sources / "common"}', '-DONE=1']
    arguments += ['-c', str(sources / f'{name}.cpp'), '-o', str(sources / f'{name}.o'), *options]
    state = sources / 'state'
    return build_mmcv.compile_file(shutil.which('g++'), arguments, state, **settings)


def test_header_is_compiled_once_and_used(build_mmcv: ModuleType, sources: Path) -> None:
    used = ('-Winvalid-pch', '-Werror')
    assert compile_source(build_mmcv, sources, 'a', *used) == 0
    compiled = sources / 'common' / 'pytorch_cpp_helper.hpp.gch'
    before = compiled.stat().st_mtime_ns
    # The text of the header is gone: only what was compiled can serve.
    (sources / 'common' / 'pytorch_cpp_helper.hpp').write_text('#error not to be read\n')
    assert compile_source(build_mmcv, sources, 'b', *used) == 0
    assert compiled.stat().st_mtime_ns == before
    symbols = subprocess.check_output(['nm', '-C', str(sources / 'b.o')], text=True)
    assert re.search(r'T b\(\)', symbols)


def test_files_compile_where_the_header_cannot_be_precompiled(
    build_mmcv: ModuleType, sources: Path
) -> None:
    refuses = sources / 'c++'
    refuses.write_text('#!/bin/sh\ncase "$*" in *c++-header*) exit 1;; esac\nexec g++ "$@"\n')
    refuses.chmod(0o755)
    arguments = [f'-I{sources / "common"}', '-DONE=1', '-c', str(sources / 'a.cpp')]
    arguments += ['-o', str(sources / 'a.o')]
    assert build_mmcv.compile_file(str(refuses), arguments, sources / 'state') == 0
    assert not list((sources / 'common').glob('*.gch'))


def test_a_newer_standard_takes_the_place_of_mmcvs(build_mmcv: ModuleType, sources: Path) -> None:
    (sources / 'a.cpp').write_text('#include <concepts>\ntemplate <std::integral T> T f(T);\n')
    assert compile_source(build_mmcv, sources, 'a', '-std=c++17') != 0
    assert compile_source(build_mmcv, sources, 'a', '-std=c++17', standard='-std=c++20') == 0


def test_wheel_without_ops_is_noticed(build_mmcv: ModuleType, tmp_path: Path) -> None:
    wheel = tmp_path / 'mmcv-2.1.0-py2.py3-none-any.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr('mmcv/__init__.py', '')
    assert not build_mmcv.has_ops(wheel)


def check(python: Path | str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(python), str(SCRIPT), 'check'],
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key != 'PYTHONPATH'},
    )


def test_check_of_an_interpreter_without_packages(tmp_path: Path) -> None:
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', tmp_path / 'bare'], check=True)
    done = check(tmp_path / 'bare' / 'bin' / 'python')
    assert done.returncode == 1
    assert re.search(r'python +ok', done.stdout)
    for part in ('torch', 'setuptools', 'mmcv._ext', 'mmdet', 'mim', 'vito_mm'):
        assert re.search(rf'^  {re.escape(part)} +WRONG', done.stdout, re.MULTILINE)
    assert 'remedy: python tools/build_mmcv.py' in done.stdout
    assert done.stderr == ''


def test_check_of_this_environment() -> None:
    done = check(sys.executable)
    assert done.returncode == 0, done.stdout
    assert 'WRONG' not in done.stdout
    assert re.search(r'mmcv\._ext +ok', done.stdout)


def test_every_requirement_is_pinned_and_names_no_place() -> None:
    for line in (REPO / 'requirements' / 'environment.txt').read_text().splitlines():
        if not line.startswith('#'):
            assert re.fullmatch(r'[\w.-]+==[\w.]+( ; .*)?', line), line


def test_check_in_a_fresh_clone_says_what_to_run(tmp_path: Path) -> None:
    shutil.copy(REPO / 'Makefile', tmp_path)
    done = subprocess.run(['make', 'check'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert 'make env' in done.stdout
