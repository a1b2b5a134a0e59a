"""Processes that tests start.

Most of a short process is the import of torch and OpenMMLab. So scripts and ranks are forked from a
process that has imported them, one per session and started when first needed. A stand-in for
``python`` does so for the processes that those start: the trainings of mim, torchrun and suites.
"""

import atexit
import json
import os
import re
import runpy
import select
import shutil
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

STAND_IN = """#!{python} -IS
import json, os, signal, socket, sys
if sys.argv[1].startswith('-') and sys.argv[1] not in ('-u', '-m', '-c'):
    os.execv({python!r}, sys.argv)
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect(os.path.join(os.path.dirname(sys.argv[0]), 'server'))
job = dict(command=sys.argv[1:], environment=dict(os.environ), cwd=os.getcwd())
socket.send_fds(server, [json.dumps(job).encode()], [0, 1, 2])
server.recv(99)  # the number of the process
code = int(server.recv(99))
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
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
def _servers() -> tuple[Path, subprocess.Popen]:
    """Folder and process of :mod:`.fork_server`."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for kind in ('full', 'bare'):
        stand_in = folder / kind / 'python'
        stand_in.parent.mkdir()
        stand_in.write_text(STAND_IN.format(python=sys.executable))
        stand_in.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, '-m', 'tests.helpers.fork_server', folder],
        cwd=REPO,
        env=user_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdout.readline(), process.stdout.readline()
    return folder, process


def python(bare: bool = False) -> Path:
    """An executable that does what this interpreter does, by a fork: it starts in no time.

    Args:
        bare: Fork from a process that knows OpenMMLab, and not vito_mm.
    """
    folder, _ = _servers()
    return folder / ('bare' if bare else 'full') / 'python'


@dataclass
class Forked:
    """A script that runs, and the files of its output."""

    command: list[str]
    pid: int
    out: Path
    err: Path
    server: socket.socket

    def poll(self) -> bool | None:
        """True once it has ended, until then None as of :class:`subprocess.Popen`."""
        return True if select.select([self.server], [], [], 0)[0] else None

    def wait(self) -> subprocess.CompletedProcess:
        """Wait for its end."""
        code = int(self.server.recv(99))
        self.server.close()
        return subprocess.CompletedProcess(
            self.command, code, self.out.read_text(), self.err.read_text()
        )


def start_forked(
    folder: Path, command: Sequence[object], environment: dict[str, str], number: int = 0
) -> Forked:
    """Start a script, ``[FILE, ARGUMENT, ...]``; its output, with a number, goes into a folder."""
    words = [str(word) for word in command]
    out, err = (folder / f'{name}{number}' for name in ('out', 'err'))
    job = dict(command=words, environment=user_environment(**environment), cwd=str(REPO))
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.connect(str(python().with_name('server')))
    with open(os.devnull) as nothing, out.open('w') as output, err.open('w') as errors:
        streams = [stream.fileno() for stream in (nothing, output, errors)]
        socket.send_fds(server, [json.dumps(job).encode()], streams)
    return Forked(words, int(server.recv(99)), out, err, server)


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


def shell(
    *command: object, cwd: Path = REPO, bare: bool = False, **environment: str
) -> subprocess.CompletedProcess:
    """Run a command as a user does, in the checkout; Python is forked, see :func:`python`."""
    words = [str(part) for part in command]
    if words[0] == sys.executable:
        words[0] = str(python(bare))
    elif words[0].endswith('.py'):
        words.insert(0, str(python(bare)))
    env = user_environment(**environment)
    env['PATH'] = f'{python(bare).parent}{os.pathsep}{env["PATH"]}'
    return subprocess.run(
        words, cwd=cwd, env=env, capture_output=True, text=True, timeout=1200, check=False
    )
