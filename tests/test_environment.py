"""The script that builds and checks the environment."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

REPO = Path(__file__).resolve().parents[1]
SCRIPT = REPO / 'tools' / 'environment.py'


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, working on a checkout of its own."""
    spec = importlib.util.spec_from_file_location('environment', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, 'environment', module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'ROOT', tmp_path)
    monkeypatch.setattr(module, 'VENV', tmp_path / '.venv')
    return module


def python_step(environment: ModuleType, name: str, code: str, files: tuple = ()) -> object:
    """A step that runs a piece of Python."""
    return environment.Step(
        name, name, files, lambda log: environment.run([sys.executable, '-c', code], log)
    )


def run_steps(environment: ModuleType, plan: list) -> list[bool]:
    """Run steps as the build does, until one fails."""
    state = environment.VENV / '.vito_mm'
    state.mkdir(parents=True, exist_ok=True)
    results = []
    for step, key in zip(plan, environment.step_keys(plan), strict=True):
        results.append(environment.run_step(step, key, '[1/1]', state, state / 'build.log'))
        if not results[-1]:
            break
    return results


def test_progress_of_ninja(environment: ModuleType) -> None:
    progress = environment.Progress(now=0)
    assert progress.feed('  running build_ext\n', now=30)
    assert progress.describe(now=30) == '0.5 min'
    for done in range(1, 41):
        progress.feed(f'  [{done}/77] c++ -MMD -MF [1/2].o.d\n', now=60 + 6 * (done - 1))
    assert progress.percent() == 51
    # 39 files in 234 s after the first one, 37 are left
    assert progress.describe(now=294) == ('40 of 77 files compiled, 4.9 min, about 3.7 min left')


def test_progress_of_a_download_stays_out_of_the_log(environment: ModuleType) -> None:
    progress = environment.Progress(now=0)
    assert progress.feed('  Downloading torch-2.11.0-cp311.whl (530 MB)\n', now=1)
    assert not progress.feed('Progress 100000000 of 530000000\n', now=2)
    assert not progress.feed('Progress 200000000 of 530000000\n', now=3)
    assert progress.describe(now=60) == '1.0 min  Downloading torch-2.11.0-cp311.whl, 200 of 530 MB'


def test_compilation_prints_a_line_every_ten_percent(
    environment: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    code = 'for i in range(1, 78): print(f"  [{i}/77] c++ -c", flush=True)'
    log = tmp_path / 'log'
    environment.run([sys.executable, '-c', code], log)
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
        ("ModuleNotFoundError: No module named 'pkg_resources'", 'setuptools', '<82'),
        ('ERROR: No matching distribution found for torch==2.11.0', 'no such version', '3.11'),
        ('something else', 'failed', 'log'),
    ],
)
def test_diagnosis(environment: ModuleType, output: str, cause: str, remedy: str) -> None:
    found_cause, found_remedy = environment.diagnose(output)
    assert cause in found_cause
    assert remedy in found_remedy


def test_failed_step_says_why_and_is_tried_again(
    environment: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first = python_step(environment, 'first', 'open("ran", "a").write("1")')
    code = 'import sys; print("step output"); sys.exit("fatal error: Python.h: No such file")'
    assert run_steps(environment, [first, python_step(environment, 'second', code)]) == [
        True,
        False,
    ]
    shown = capsys.readouterr().out
    assert 'second: FAILED' in shown
    assert '    step output' in shown
    assert 'cause:  The C headers of Python are missing.' in shown
    assert 'remedy: Install the package python3-dev' in shown
    assert 'build.log' in shown

    repaired = python_step(environment, 'second', 'open("ran", "a").write("2")')
    assert run_steps(environment, [first, repaired]) == [True, True]
    assert (tmp_path / 'ran').read_text() == '12', 'the first step is not run again'


def test_missing_command_is_a_failed_step(environment: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(environment.StepFailed, match='failed') as raised:
        environment.run([str(tmp_path / 'nowhere')], tmp_path / 'log')
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
import sys
sys.path.insert(0, {tools!r})
import environment as e
def compile(log):
    e.run([sys.executable, '-c', {compiling!r}], log)
e.PATIENCE = 0.5 if {stubborn} else 30
e.steps = lambda: [e.Step('mmcv', 'mmcv', (), compile)]
sys.argv = ['environment.py', 'build']
sys.exit(e.main())
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
    environment: ModuleType, tmp_path: Path, number: int, stubborn: bool
) -> None:
    (tmp_path / 'tools').mkdir()
    tools = shutil.copy(SCRIPT, tmp_path / 'tools')
    code = BUILD.format(
        tools=str(Path(tools).parent),
        compiling=COMPILING.format(stubborn=stubborn),
        stubborn=stubborn,
    )
    build = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    log, found = tmp_path / '.venv' / '.vito_mm' / 'build.log', None
    try:
        while not found and build.poll() is None:
            time.sleep(0.05)
            found = log.exists() and re.search(
                r'^c\+\+ (\d+) (\d+)\n', log.read_text(), re.MULTILINE
            )
        command, compiler = map(int, found.groups())
        assert {command, compiler} <= set(environment.members(command))
        build.send_signal(number)
        shown, _ = build.communicate(timeout=60)
        assert environment.members(command) == []
    finally:
        build.kill()
    assert build.returncode == 128 + number
    assert 'interrupted' in shown


def test_changed_file_runs_its_step_and_those_after_it(
    environment: ModuleType, tmp_path: Path
) -> None:
    for name in 'abc':
        (tmp_path / f'{name}.txt').write_text('1')
    plan = [
        python_step(environment, name, f'open("ran", "a").write("{name}")', (f'{name}.txt',))
        for name in 'abc'
    ]
    run_steps(environment, plan)
    run_steps(environment, plan)
    assert (tmp_path / 'ran').read_text() == 'abc'
    (tmp_path / 'b.txt').write_text('2')
    run_steps(environment, plan)
    assert (tmp_path / 'ran').read_text() == 'abcbc'


def test_ready_environment_has_nothing_to_do(
    environment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def make_venv(log: Path) -> None:
        command = [sys.executable, '-m', 'venv', '--without-pip', str(environment.VENV)]
        environment.run(command, log)

    plan = [environment.Step('venv', 'venv', (), make_venv)]
    monkeypatch.setattr(environment, 'steps', lambda: plan)
    checker = tmp_path / 'checker.py'
    monkeypatch.setattr(environment, '__file__', str(checker))

    checker.write_text('import sys; print("table"); sys.exit(1)')
    assert environment.build() == 1, 'a failed check is no ready environment'
    checker.write_text('print("table")')
    assert environment.build() == 0
    assert 'table' in capsys.readouterr().out

    checker.write_text('raise SystemExit("not to be called")')
    assert environment.build() == 0
    shown = capsys.readouterr().out
    assert shown.count('\n') == 1
    assert 'environment is ready' in shown

    (environment.VENV / 'bin' / 'python').unlink()
    checker.write_text('print("table")')
    assert environment.build() == 0
    assert 'table' in capsys.readouterr().out, 'an environment without interpreter is made anew'


def test_wheel_cache_tells_builds_apart(
    environment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    wheel = tmp_path / 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr('mmcv/_ext.cpython-311-x86_64-linux-gnu.so', '')
    cache = environment.wheel_cache()
    target = environment.Target('cp311', '2.11.0+cu130', '2.1.0', '', 'x86_64')
    assert environment.cached_wheel(cache, target) is None
    kept = environment.keep_wheel(wheel, cache, target)
    assert kept.is_relative_to(tmp_path / 'cache' / 'vito_mm' / 'wheels')
    assert environment.cached_wheel(cache, target) == kept
    assert environment.has_ops(kept)
    assert [path.name for path in kept.parent.iterdir()] == [wheel.name], 'nothing half-written'
    for other in (
        environment.Target('cp312', '2.11.0+cu130', '2.1.0', '', 'x86_64'),
        environment.Target('cp311', '2.11.0+cpu', '2.1.0', '', 'x86_64'),
        environment.Target('cp311', '2.11.0+cu130', '2.2.0', '', 'x86_64'),
        environment.Target('cp311', '2.11.0+cu130', '2.1.0', '9.0', 'x86_64'),
        environment.Target('cp311', '2.11.0+cu130', '2.1.0', '', 'aarch64'),
    ):
        assert environment.cached_wheel(cache, other) is None
    monkeypatch.setenv('VITO_MM_WHEEL_CACHE', '0')
    assert environment.wheel_cache() is None


def test_wheel_without_ops_is_noticed(environment: ModuleType, tmp_path: Path) -> None:
    wheel = tmp_path / 'mmcv-2.1.0-py2.py3-none-any.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr('mmcv/__init__.py', '')
    assert not environment.has_ops(wheel)


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
    assert 'remedy: MMCV_WITH_OPS=1 pip install --no-build-isolation' in done.stdout
    assert done.stderr == ''


def test_check_of_this_environment() -> None:
    done = check(sys.executable)
    assert done.returncode == 0, done.stdout
    assert 'WRONG' not in done.stdout
    assert re.search(r'mmcv\._ext +ok', done.stdout)


def test_every_requirement_is_pinned() -> None:
    for path in sorted((REPO / 'requirements').glob('*.txt')):
        for line in path.read_text().splitlines():
            if line and not line.startswith('#'):
                assert re.fullmatch(r'[\w.-]+==[\w.]+', line), f'{path.name}: {line}'
