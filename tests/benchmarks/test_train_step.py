"""The benchmark of the training step runs and prints its tables; no figure is checked."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPO


@pytest.mark.slow
def test_tables_appear():
    run = subprocess.run(
        [
            *(sys.executable, 'benchmarks/train_step.py', '--depth', '18', '--size', '32'),
            *('--batch-size', '2', '--repeats', '1', '--no-peer'),
        ],
        cwd=REPO,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    rows = [line.split('  ')[0] for line in run.stdout.splitlines()]
    variants = ['backbone', 'backbone, one pass', 'networks', 'VITO']
    parts = ['backbone, forward', 'attention, forward', 'target, forward', 'backward', 'optimizer']
    assert [row for row in rows if row in variants] == variants
    assert [row for row in rows if row in parts] == parts
