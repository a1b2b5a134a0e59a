"""Processes that die or hang on a task."""

import os
import signal
import time
from functools import partial
from pathlib import Path

from vito_mm.videos.worker_pool import WorkerLost, WorkError, run_in_workers


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
