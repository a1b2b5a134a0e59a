"""Training commands side by side."""

import sys

import pytest

from vito_mm.transfer.jobs import Job, JobError, run_jobs


def job(tmp_path, name: str, code: str) -> Job:
    return Job(name, [sys.executable, '-c', code], tmp_path / name)


def test_jobs_run_at_the_same_time_with_the_given_threads(tmp_path):
    """Each waits for the other, so one after the other would not end."""
    code = (
        'import os, pathlib, time\n'
        'root = pathlib.Path({root!r})\n'
        '(root / "{me}.started").touch()\n'
        'while not (root / "{other}.started").exists(): time.sleep(0.01)\n'
        'print("threads", os.environ["OMP_NUM_THREADS"])'
    )
    jobs = [
        job(tmp_path, me, code.format(root=str(tmp_path), me=me, other=other))
        for me, other in ('ab', 'ba')
    ]
    run_jobs(jobs, at_once=2, threads=3)
    assert all(job.log.read_text() == 'threads 3\n' for job in jobs)
    assert all(job.seconds > 0 for job in jobs)


def test_a_failure_shows_the_end_of_the_log_and_ends_the_others(tmp_path):
    bad = job(tmp_path, 'bad', 'raise SystemExit("no such data")')
    long = job(tmp_path, 'long', 'import time; time.sleep(600)')
    with pytest.raises(JobError, match='bad failed with status 1') as caught:
        run_jobs([bad, long], at_once=2, threads=1)
    assert 'no such data' in str(caught.value)
    assert str(bad.log) in str(caught.value)


@pytest.mark.parametrize(
    ('text', 'epochs', 'progress'),
    [
        ('', 1, 'starting'),
        ('... Iter(train) [ 30/120]  lr: 1', 1, '25 %'),
        ('Iter(train) [120/120]', 1, 'evaluating'),
        ('Epoch(train)  [3][ 5/10]  lr: 1', 5, '50 %'),
    ],
)
def test_progress_is_read_from_the_log(tmp_path, text, epochs, progress):
    run = Job('run', [], tmp_path, max_epochs=epochs)
    run.log.write_text(text)
    assert run.progress() == progress


def test_a_metric_that_was_not_logged_is_named(tmp_path):
    run = Job('run', [], tmp_path)
    with pytest.raises(JobError, match=r'scalars\.json'):
        run.last('mIoU')
    (tmp_path / 'x' / 'vis_data').mkdir(parents=True)
    (tmp_path / 'x' / 'vis_data' / 'scalars.json').write_text(
        '{"loss": 1, "step": 1}\n{"loss": 2, "step": 2}\n'
    )
    assert run.last('loss') == 2
    with pytest.raises(JobError, match='mIoU'):
        run.last('mIoU')
