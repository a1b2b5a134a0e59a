"""The benchmark of the probes runs and prints its table; no figure is checked."""

import re
import subprocess
import sys

import pytest

from tests.conftest import REPO
from vito_mm.miniscenes import make_miniscenes


@pytest.mark.slow
def test_table_appears(tmp_path):
    make_miniscenes(tmp_path, 'tiny', workers=0, tasks=('davis', 'probe'), progress=False)
    command = [sys.executable, 'benchmarks/probes.py', '--repeats', '1', '--memory', '1000']
    command += ['--data', str(tmp_path)]
    run = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    rows = re.findall(r'^(demo|paper) +(\S.*\S) +([\d.]+) +([\d.]+)$', run.stdout, re.MULTILINE)
    assert [row[0] for row in rows] == ['demo'] * 6 + ['paper'] * 6
    assert {'linear probe, all stills', 'in context, 256 patches in 1,000'} <= {r[1] for r in rows}
    assert all(float(row[2]) >= 0 for row in rows)
