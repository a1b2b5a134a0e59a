"""Runs long commands of a build: progress on the screen, cause and remedy of a failure.

Needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals to end: Ctrl-C, a kill, a terminal that is closed."""
PATIENCE = 5.0
"""Seconds that what a stopped command has started gets to end, before it is told more firmly."""

CAUSES = (
    (
        r'No space left on device|Errno 28|os error 28|Disk quota exceeded',
        'The disk is full.',
        'Free about 8 GB where the checkout, the temporary folder (TMPDIR) and the user cache '
        'are, then run again.',
    ),
    (
        r'Killed signal terminated program|fatal error: Killed|out of memory|\(exit status -9\)',
        'The compiler was killed, most likely because memory ran out.',
        'Run again with fewer jobs: set MAX_JOBS=1.',
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
        r'CERTIFICATE_VERIFY_FAILED|SSLError|UnknownIssuer|invalid peer certificate',
        'The package registry was reached, but its certificate is not trusted here.',
        'Name the certificate of your network: set SSL_CERT_FILE and PIP_CERT to its file.',
    ),
    (
        r'Temporary failure in name resolution|Name or service not known|Network is unreachable'
        r'|NewConnectionError|ConnectTimeout|ReadTimeout|[Cc]onnection refused'
        r'|Max retries exceeded|ProxyError|Read timed out|IncompleteRead|RemoteDisconnected'
        r'|client error \(Connect\)|dns error|Failed to fetch',
        'The package registry cannot be reached.',
        'Check the network and the proxy (HTTPS_PROXY, and PIP_INDEX_URL or UV_INDEX_URL), '
        'then run again.',
    ),
    (
        r'(?i)detected CUDA version.*mismatches|nvcc fatal|unsupported gpu architecture'
        r'|CUDA_HOME environment variable is not set',
        'The CUDA compiler (nvcc) does not fit the installed torch.',
        'Point CUDA_HOME to a toolkit with the major version of torch.version.cuda, or build ops '
        'for the CPU only: set CUDA_VISIBLE_DEVICES to nothing.',
    ),
    (
        r'No matching distribution found for|Could not find a version that satisfies'
        r'|No solution found when resolving',
        'The registry has no such version for this Python and this machine.',
        'The pinned versions were tried with Python 3.10 to 3.13 on 64-bit Linux.',
    ),
    (
        r'Permission denied|Errno 13|os error 13',
        'A file or folder cannot be written.',
        'See which one in the output, and whose it is.',
    ),
)


class BuildFailed(Exception):
    """A command of a build failed; holds its last lines of output, the cause and the remedy."""

    def __init__(self, cause: str, remedy: str, output: str = '') -> None:
        super().__init__(cause)
        self.cause, self.remedy, self.output = cause, remedy, output

    @classmethod
    def diagnosed(cls, output: str) -> BuildFailed:
        """The failure with the likely cause, from what the command printed."""
        known = ((cause, remedy) for text, cause, remedy in CAUSES if re.search(text, output))
        unknown = 'The command failed.', 'The log has everything that it printed.'
        return cls(*next(known, unknown), ''.join(output.splitlines(keepends=True)[-20:]))

    def report(self, log: Path) -> None:
        """Print what happened and what helps."""
        if self.output:
            print('\n' + '\n'.join(f'    {line}' for line in self.output.splitlines()) + '\n')
        print(f'  cause:  {self.cause}\n  remedy: {self.remedy}\n  log:    {log}', flush=True)


def duration(seconds: float) -> str:
    """Seconds in words: ``48 s`` or ``12 min 5 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes} min {rest} s' if minutes else f'{rest} s'


class Progress:
    """Says how far a compilation is, from ninja's lines (``[12/77]``).

    On a terminal it is one changing line, elsewhere a line for every tenth of the files and every
    half minute before the first.
    """

    NINJA = re.compile(r'^\s*\[(\d+)/(\d+)\]')
    QUIET_SECONDS = 30

    def __init__(self, now: float) -> None:
        self.begin = self.shown = now
        self.first: tuple[float, int] | None = None
        self.done = self.total = self.tenth = 0

    def feed(self, line: str, now: float) -> None:
        """Take a line of output."""
        if match := self.NINJA.match(line):
            self.done, self.total = map(int, match.groups())
            self.first = self.first or (now, self.done)

    def describe(self, now: float) -> str:
        """Where the command is, in a few words."""
        elapsed = f'{(now - self.begin) / 60:.1f} min'
        if not self.total:
            return elapsed
        text = f'{self.done} of {self.total} files compiled, {elapsed}'
        begin, before = self.first
        if self.done - before >= 3:
            left = (now - begin) / (self.done - before) * (self.total - self.done)
            text += f', about {left / 60:.1f} min left'
        return text

    def show(self, now: float) -> None:
        """Show it if it is time to."""
        if sys.stdout.isatty():
            width = shutil.get_terminal_size().columns - 7
            print(f'\r\033[K      {self.describe(now)[:width]}', end='', flush=True)
            return
        tenth = 10 * self.done // self.total if self.total else 0
        if tenth > self.tenth or (not self.total and now - self.shown >= self.QUIET_SECONDS):
            print(f'      {self.describe(now)}', flush=True)
            self.shown, self.tenth = now, tenth

    def clear(self) -> None:
        """Remove the changing line."""
        if sys.stdout.isatty():
            print('\r\033[K', end='', flush=True)


class Stopped(BaseException):
    """A signal to end; its only argument is the signal's number."""


def _stop(number: int, frame: object) -> None:
    raise Stopped(number)


def run_tool(main: Callable[[], int]) -> int:
    """Exit status of a tool that ends, with all that it started, when it is told to."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _stop)
    try:
        return main()
    except Stopped as stopped:
        with contextlib.suppress(OSError):  # the terminal may be gone
            print('\ninterrupted; the next call goes on')
        return 128 + stopped.args[0]


def _members(session: int) -> list[int]:
    """Living processes of a session; on a system without /proc none is found."""
    found = []
    for file in Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):  # it has ended in between
            # Behind the name, which may hold anything: state, parent, group, session.
            state, _, _, its_session = file.read_text().rpartition(')')[2].split()[:4]
            if int(its_session) == session and state != 'Z':
                found.append(int(file.parent.name))
    return found


def _end_session(process: subprocess.Popen) -> None:
    """End a command and everything that it has started.

    ninja puts each compiler into a process group of its own, so the command's group is not all;
    the session is.
    """
    handled = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        # pip and ninja tidy up after the first of these.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            for pid in _members(process.pid) or [process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            patience = time.monotonic() + PATIENCE
            while time.monotonic() < patience:
                if process.poll() is not None and not _members(process.pid):
                    return
                time.sleep(0.05)
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)


def run(command: list[str], log: Path, folder: Path | None = None, **environment: str) -> None:
    """Run a command; its output goes to the log, its progress to the screen.

    It runs in a session of its own, all of which ends with this call, however it ends.

    Args:
        command (list[str]): Program and arguments.
        log (Path): File to append the output to.
        folder (Path, optional): Where to run it. Defaults to the present folder.
        **environment (str): Environment variables on top of the present ones.

    Raises:
        BuildFailed: If the command does not exist or returns an error.
    """
    progress = Progress(time.monotonic())
    tail: deque[str] = deque(maxlen=400)
    lines: queue.Queue[str | None] = queue.Queue()
    with log.open('a', encoding='utf-8') as file:
        file.write(f'\n$ {" ".join(command)}\n')
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, 'PYTHONNOUSERSITE': '1', **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors='replace',
                start_new_session=True,
            )
        except OSError as error:
            raise BuildFailed.diagnosed(str(error)) from None

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
                    progress.show(time.monotonic())
                    continue
                if line is None:
                    break
                progress.feed(line, time.monotonic())
                tail.append(line)
                file.write(line)
                file.flush()
                progress.show(time.monotonic())
            status = process.wait()
        except BaseException:
            _end_session(process)
            raise
        finally:
            progress.clear()
    if status:
        tail.append(f'(exit status {status})\n')
        raise BuildFailed.diagnosed(''.join(tail))
