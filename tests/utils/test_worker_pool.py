"""Processes that die or hang on a task, and signals that end the job."""

import os
import signal
import sys
import threading
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import signal_while_forking
from vito_mm.utils import worker_pool
from vito_mm.utils.worker_pool import (
    WorkerLost,
    WorkError,
    map_in_workers,
    run_in_workers,
    stopped_by_signals,
)


def square(number: int) -> int:
    return number**2


def work_by_name(task: str, folder: Path) -> str:
    if task == 'dies':
        os.kill(os.getpid(), signal.SIGTERM)
    if task == 'dies once' and not (folder / 'died').exists():
        (folder / 'died').touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if task == 'leaves':
        os._exit(3)
    if task == 'hangs':
        time.sleep(600)
    if task == 'raises':
        raise LookupError('not here')
    return task.upper()


def test_all_tasks_in_processes():
    assert sorted(run_in_workers(square, range(100), 3)) == [(n, n**2) for n in range(100)]
    assert list(run_in_workers(square, [], 3)) == []


def test_tasks_are_taken_as_processes_become_free():
    taken = []

    def tasks():
        for number in range(100):
            taken.append(number)
            yield number

    results = run_in_workers(square, tasks(), 2)
    next(results)
    assert len(taken) <= 4
    results.close()


def test_a_task_that_ends_its_process_ends_nothing_else(tmp_path: Path):
    tasks = ['a', 'dies', 'b', 'dies once', 'leaves', 'raises', 'c']
    results = dict(run_in_workers(partial(work_by_name, folder=tmp_path), tasks, 2))
    lost = {name: str(results.pop(name)) for name in ('dies', 'leaves')}
    assert lost == {'dies': 'signal SIGTERM', 'leaves': 'exit status 3'}
    error = results.pop('raises')
    assert (type(error), str(error)) == (WorkError, 'LookupError: not here')
    assert results == {'a': 'A', 'b': 'B', 'c': 'C', 'dies once': 'DIES ONCE'}


def test_a_task_that_hangs_is_ended(tmp_path: Path):
    tasks = ['a', 'hangs', 'b']
    work = partial(work_by_name, folder=tmp_path)
    results = dict(run_in_workers(work, tasks, 2, time_limit=1.5))
    assert isinstance(results['hangs'], WorkerLost)
    assert results['hangs'].late
    assert str(results['hangs']) == 'longer than 1.5 s'
    assert (results['a'], results['b']) == ('A', 'B')


def test_results_in_order_or_the_first_failure(tmp_path: Path):
    work = partial(work_by_name, folder=tmp_path)
    names = [*'abc', 'dies once', *'defgh']
    assert list(map_in_workers(work, names, 3)) == [name.upper() for name in names]
    with pytest.raises(WorkError, match='LookupError: not here, in work on raises'):
        list(map_in_workers(work, ['a', 'raises', 'b'], 2))
    with pytest.raises(WorkerLost, match='signal SIGTERM, in work on dies'):
        list(map_in_workers(work, ['a', 'dies', 'b'], 2))


@pytest.fixture
def soon(monkeypatch):
    """Lost signals count again at once, and all that a block changed is as before."""
    monkeypatch.setattr(worker_pool, '_AGAIN', 0.05)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    hook = sys.unraisablehook
    yield
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert sys.unraisablehook is hook


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_process_is_forked_is_not_lost(soon, capfd, number):
    signal_while_forking(number)
    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        list(run_in_workers(time.sleep, [60], 1))
    assert capfd.readouterr().err == ''


def test_a_signal_that_is_swallowed_counts_until_it_is_heard(soon):
    lost = []

    def work() -> None:
        while len(lost) < 3:
            try:
                if not lost:
                    signal.raise_signal(signal.SIGTERM)
                time.sleep(60)
            except KeyboardInterrupt as error:
                lost.append(error)
        time.sleep(60)

    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        work()
    assert len(lost) == 3


def test_cleaning_up_is_not_disturbed(soon):
    """Not by the timer and not by more signals, in whatever block."""
    cleaned = []

    def clean_up() -> None:
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.02)
        cleaned.append(True)

    def rows():
        try:
            yield 1
        finally:
            clean_up()

    def work() -> None:
        try:
            with closing(rows()) as values:
                for _ in values:
                    signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            try:
                raise OSError('the disk is full')
            except OSError:
                clean_up()
            raise
        finally:
            clean_up()

    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        work()
    assert len(cleaned) == 3


class Ended(BaseException):
    """What a caller may choose to raise."""


def test_blocks_may_be_in_each_other(soon):
    """What the inner one has ended with does not come again; what the outer one lost does."""
    done = []

    def work() -> None:
        with pytest.raises(Ended), stopped_by_signals([signal.SIGHUP], Ended):
            signal.raise_signal(signal.SIGHUP)
        time.sleep(0.2)
        done.append(True)
        signal_while_forking(signal.SIGTERM)
        os.waitpid(os.fork() or os._exit(0), 0)
        with stopped_by_signals([signal.SIGHUP], Ended):
            time.sleep(60)

    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        work()
    assert done


def test_other_errors_that_are_dropped_are_told(monkeypatch, capfd):
    monkeypatch.setattr(sys, 'unraisablehook', sys.__unraisablehook__)

    class Careless:
        def __del__(self):
            raise LookupError('not here')

    with stopped_by_signals():
        Careless()
    assert 'LookupError: not here' in capfd.readouterr().err


def test_signals_are_of_the_main_thread(soon):
    errors = []

    def work() -> None:
        try:
            with stopped_by_signals():
                pass
        except ValueError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert 'main thread' in errors[0]
