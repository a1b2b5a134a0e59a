"""The benchmark of a busy machine runs and prints its table; no figure is checked."""

import re
import subprocess
import sys

import pytest

from tests.conftest import REPO


@pytest.mark.slow
def test_table_appears():
    command = [sys.executable, 'benchmarks/busy_machine.py', '--repeats', '1', '--steps', '1']
    run = subprocess.run([*command, '--loops', '1'], cwd=REPO, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    rows = re.findall(r'^(.*\S) +(\d) +([\d.]+) +[\d.]+ +[\d.]+$', run.stdout, re.MULTILINE)
    assert [int(loops) for _, loops, _ in rows] == [0, 0, 0, 1, 1, 1]
    assert {name for name, _, _ in rows} > {'OMP_WAIT_POLICY=PASSIVE'}
    assert all(float(seconds) > 0 for _, _, seconds in rows)
