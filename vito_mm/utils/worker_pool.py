"""The package's pool of processes, which may die or hang without ending the job, and signals."""

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

_AGAIN = 1.0
"""Seconds until a signal that was not heard counts again."""


class WorkError(RuntimeError):
    """Error that a task raised in its process, as text: not all errors can be pickled."""


class WorkerLost(RuntimeError):
    """A task ended with its process; the message says how.

    ``late`` is True if the process was ended for taking too long.
    """

    def __init__(self, how: str, late: bool = False) -> None:
        super().__init__(how)
        self.late = late


@contextmanager
def stopped_by_signals(
    numbers: Iterable[int] = (signal.SIGINT, signal.SIGTERM),
    error: Callable[[int], BaseException] = KeyboardInterrupt,
) -> Iterator[None]:
    """Let signals stop a block, none of them unheard, and let it clean up undisturbed.

    Python drops what a handler raises while a process is forked. So it is raised again every second
    until the block is left, except while it is handled: neither this nor more signals disturb the
    ``finally`` and ``except`` of the block.

    Args:
        numbers: Signals. Defaults to Ctrl-C and SIGTERM, which clusters send.
        error: Called with a signal, returns the exception. Defaults to KeyboardInterrupt.

    Yields:
        None: Handlers and timer are those of before when the block is left.

    Raises:
        ValueError: Outside of the main thread, where Python handles no signal.
    """
    raised: type[BaseException] | tuple[()] = ()

    def stop(number: int, *_: object) -> None:
        nonlocal raised
        if _is_handled(raised):
            return
        stopping = error(number)
        raised = type(stopping)
        signal.signal(signal.SIGALRM, lambda *_: stop(number))
        signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
        raise stopping

    def report_dropped(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, raised):  # it comes again, and is heard then
            report_before(dropped)

    report_before, sys.unraisablehook = sys.unraisablehook, report_dropped
    timer, before = signal.getitimer(signal.ITIMER_REAL), {}
    try:
        for number in (*numbers, signal.SIGALRM):
            before[number] = signal.getsignal(number)
            if number != signal.SIGALRM:
                signal.signal(number, stop)
        yield
    finally:
        sys.unraisablehook = report_before
        signal.setitimer(signal.ITIMER_REAL, *timer)
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_handled(kind: type[BaseException] | tuple[()]) -> bool:
    """True while a ``finally`` or ``except`` is under way because of such an error."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, kind):
        error = error.__context__
    return error is not None


def run_in_workers(
    work: Callable[[Any], Any],
    tasks: Iterable[Any],
    num_workers: int,
    time_limit: float | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Work on tasks in processes, one task in each at a time, and give results as they come.

    A task whose process dies is tried once more when all others are done and no other is in work:
    a lack of memory may have been the fault of others. One that takes too long is not tried again.
    Tasks are taken from the iterable as processes become free.

    Args:
        work: Called with a task in another process; what it returns is pickled.
        tasks: Tasks, any number.
        num_workers: Number of processes, at least 1.
        time_limit: Seconds a task may take. Defaults to None, any.

    Yields:
        tuple: A task and its result. The result is a :class:`WorkError` if the task raised, and a
        :class:`WorkerLost` if its process died or was ended for taking too long.
    """
    lost: list[Any] = []
    for task, result in _run(work, tasks, num_workers, time_limit):
        if isinstance(result, WorkerLost) and not result.late:
            lost.append(task)
        else:
            yield task, result
    yield from _run(work, lost, 1, time_limit)


def map_in_workers(
    work: Callable[[Any], Any],
    tasks: Iterable[Any],
    num_workers: int,
    time_limit: float | None = None,
) -> Iterator[Any]:
    """Give results of :func:`run_in_workers` in the order of the tasks.

    Raises:
        WorkError: If a task raised.
        WorkerLost: If its process died twice, or took too long.
    """
    done: dict[int, Any] = {}
    following = 0
    numbered = partial(_second, work)
    with closing(run_in_workers(numbered, enumerate(tasks), num_workers, time_limit)) as results:
        for (number, task), result in results:
            if isinstance(result, WorkError | WorkerLost):
                raise type(result)(f'{result}, in work on {str(task)[:200]}')
            done[number] = result
            while following in done:
                yield done.pop(following)
                following += 1


def _second(work: Callable[[Any], Any], pair: tuple[int, Any]) -> Any:
    return work(pair[1])


def _run(work, tasks, num_workers, time_limit) -> Iterator[tuple[Any, Any]]:
    tasks = iter(tasks)
    idle: deque[_Worker] = deque()
    busy: dict[Connection, _Worker] = {}
    try:
        while True:
            while len(busy) < num_workers:
                try:
                    task = next(tasks)
                except StopIteration:
                    break
                worker = idle.pop() if idle else _Worker(work)
                while not worker.start(task, time_limit):
                    worker.kill()  # it died while idle
                    worker = _Worker(work)
                busy[worker.connection] = worker
            if not busy:
                return
            deadline = min(worker.deadline for worker in busy.values())
            # A connection is ready when it has a result, and when its process has died.
            ready = wait(list(busy), None if time_limit is None else max(0, deadline - _now()))
            for connection in ready:
                worker = busy.pop(connection)
                try:
                    result = connection.recv()
                    idle.append(worker)
                except (EOFError, OSError):
                    result = WorkerLost(worker.kill(grace=1))
                yield worker.task, result
            for worker in [worker for worker in busy.values() if worker.deadline <= _now()]:
                del busy[worker.connection]
                worker.kill()
                yield worker.task, WorkerLost(f'longer than {time_limit:g} s', late=True)
    finally:
        for worker in (*idle, *busy.values()):
            worker.kill()


_now = time.monotonic
_PR_SET_PDEATHSIG = 1


class _Worker:
    """A process and the pipe to it."""

    def __init__(self, work) -> None:
        # A forked process need not import anything again; elsewhere forking is unsafe.
        context = multiprocessing.get_context('fork' if sys.platform == 'linux' else 'spawn')
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, other, os.getpid()), daemon=True)
        self.process.start()
        other.close()  # so that the pipe ends with the process

    def start(self, task, time_limit) -> bool:
        self.task = task
        self.deadline = float('inf') if time_limit is None else _now() + time_limit
        try:
            self.connection.send(task)
        except OSError:
            return False
        return True

    def kill(self, grace: float = 0) -> str:
        """End the process, after some seconds to end by itself, and say how it ended."""
        self.connection.close()
        if grace:
            self.process.join(grace)
        self.process.kill()
        self.process.join(5)  # not for ever: one that waits for a dead disk cannot be ended
        code = self.process.exitcode or 0
        return f'signal {signal.Signals(-code).name}' if code < 0 else f'exit status {code}'


def _serve(work, connection: Connection, parent: int) -> None:
    """Work until the parent is gone."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # gone before that
            return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            result = work(task)
        except Exception as error:
            result = WorkError(f'{type(error).__name__}: {error}')
        try:
            connection.send(result)
        except OSError:
            return
