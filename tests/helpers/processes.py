"""Processes that tests start.

Most of a short process is the import of torch and OpenMMLab. So tools and ranks are forked from a
process that has imported them, one per session and started when first needed. They end without
destroying their process group: a DistributedDataParallel that is freed after its Gloo group waits
for a thread that waits for the GIL.
"""

import json
import os
import re
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

SERVER = """
import atexit, faulthandler, json, os, runpy, sys, threading, traceback
import mmengine.runner, mmpretrain.models, vito_mm.models.selfsup.vito
from tests.helpers.quick_mmengine import quicken

quicken()

def run(job):
    os.setsid()
    for number, name in ((0, os.devnull), (1, job['out']), (2, job['err'])):
        os.dup2(os.open(name, os.O_RDWR), number)
    faulthandler.dump_traceback_later(600, exit=True)  # a dead-lock ends with its stacks
    os.environ.update(job['environment'])
    script, *_ = sys.argv = job['command']
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    code = 0
    try:
        runpy.run_path(script, run_name='__main__')
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)

for line in sys.stdin:
    job = json.loads(line)
    if isinstance(job, int):
        answer = os.waitstatus_to_exitcode(os.waitpid(job, 0)[1])
    else:
        answer = os.fork()
        if answer == 0:
            run(job)
    print(answer, flush=True)
"""


def user_environment(**changes: str) -> dict[str, str]:
    """This interpreter's environment, activated, with one thread."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    env = {**os.environ, 'PATH': path, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(REPO)}
    return {**env, **changes}


def free_port() -> str:
    """Number of a port that is free on this machine."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


@cache
def _server() -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, '-c', SERVER],
        cwd=REPO,
        env=user_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _ask(what: object) -> int:
    server = _server()
    server.stdin.write(json.dumps(what) + '\n')
    server.stdin.flush()
    return int(server.stdout.readline())


@dataclass
class Forked:
    """A script that runs, and the files of its output."""

    command: list[str]
    pid: int
    out: Path
    err: Path

    def poll(self) -> bool | None:
        """True once it has ended, until then None as of :class:`subprocess.Popen`."""
        state = Path(f'/proc/{self.pid}/stat').read_text().rsplit(')', 1)[1].split()[0]
        return True if state == 'Z' else None

    def wait(self) -> subprocess.CompletedProcess:
        """Wait for its end."""
        code = _ask(self.pid)
        return subprocess.CompletedProcess(
            self.command, code, self.out.read_text(), self.err.read_text()
        )


def start_forked(
    folder: Path, command: Sequence[object], environment: dict[str, str], number: int = 0
) -> Forked:
    """Start a script, ``[FILE, ARGUMENT, ...]``; its output, with a number, goes into a folder."""
    words = [str(word) for word in command]
    out, err = (folder / f'{name}{number}' for name in ('out', 'err'))
    out.write_text('')
    err.write_text('')
    job = dict(command=words, environment=environment, out=str(out), err=str(err))
    return Forked(words, _ask(job), out, err)


def forked(
    folder: Path, *commands: Sequence[object], environments: Sequence[dict[str, str]] = ({},)
) -> list[subprocess.CompletedProcess]:
    """Run scripts at the same time, each with its environment, see :func:`start_forked`."""
    pairs = zip(commands, environments, strict=True)
    jobs = [start_forked(folder, *pair, number) for number, pair in enumerate(pairs)]
    return [job.wait() for job in jobs]


def run_tool(patch: pytest.MonkeyPatch, tool: str, *arguments: object) -> None:
    """Run a tool in this process, as most of another one would be imports.

    Args:
        patch: Undoes afterwards what is set for the tool.
        tool: Name of the file in ``tools``.
        *arguments: Words of the command line.
    """
    patch.syspath_prepend(str(REPO / 'tools'))
    patch.setattr(sys, 'argv', [f'tools/{tool}', *map(str, arguments)])
    for stream in (sys.stdout, sys.stderr):  # those of pytest cannot be reconfigured
        patch.setattr(stream, 'reconfigure', lambda **_: None, raising=False)
    runpy.run_path(str(REPO / 'tools' / tool), run_name='__main__')


def status_of_tool(tool: str, *arguments: object) -> int | str | None:
    """Run a tool in this process, see :func:`run_tool`; returns its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        try:
            run_tool(patch, tool, *arguments)
        except SystemExit as error:
            return error.code
    return 0


def without_deprecations(stderr: str) -> str:
    """Remove the deprecations that torch 2.4 tells MMEngine of."""
    return re.sub(r'^.*DeprecationWarning: .*\n(  .*\n)?', '', stderr, flags=re.MULTILINE)


def run_ranks(code: str, folder: Path, ranks: int, *arguments: object) -> list[str]:
    """Run Python code once per rank of a process group; returns what each rank printed."""
    script = folder / 'worker.py'
    script.write_text(code)
    place = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port(), WORLD_SIZE=str(ranks))
    done = forked(
        folder,
        *[[script, *arguments]] * ranks,
        environments=[place | dict(RANK=str(r), LOCAL_RANK=str(r)) for r in range(ranks)],
    )
    assert [one.returncode for one in done] == [0] * ranks, done[-1].stderr[-3000:]
    return [one.stdout for one in done]


def shell(*command: object, **environment: str) -> subprocess.CompletedProcess:
    """Run a command in the checkout as a user does; a tool in Python is forked."""
    words = [str(part) for part in command]
    if words[0] == sys.executable and words[1].startswith('tools/') and not environment:
        with tempfile.TemporaryDirectory() as folder:
            return forked(Path(folder), words[1:])[0]
    return subprocess.run(
        words,
        cwd=REPO,
        env=user_environment(**environment),
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
