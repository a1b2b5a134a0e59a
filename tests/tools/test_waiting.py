"""Threads that wait must not take the cores of a busy machine from those that compute."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPO

LOOK = """
import os, runpy, sys

class Torch(BaseException):
    pass

class Watch:
    def find_spec(self, name, *_):
        if name == 'torch':
            raise Torch(os.environ.get('GOMP_SPINCOUNT'))

sys.meta_path.insert(0, Watch())
given = os.environ.get('GOMP_SPINCOUNT')
for tool in sys.argv[1:]:
    try:
        runpy.run_path(tool)
    except Torch as torch:
        print(tool, *torch.args)
    for name in [*sys.modules]:
        if name.partition('.')[0] in ('vito_mm', 'mmengine', 'mmcv'):
            del sys.modules[name]
    os.environ.pop('GOMP_SPINCOUNT', None)
    if given:
        os.environ['GOMP_SPINCOUNT'] = given
"""


@pytest.mark.skipif(os.path.exists('/dev/nvidiactl'), reason='a GPU computes')
@pytest.mark.parametrize(
    ('given', 'expected'),
    [({}, '10000'), ({'GOMP_SPINCOUNT': '7'}, '7'), ({'OMP_WAIT_POLICY': 'ACTIVE'}, 'None')],
)
def test_every_tool_sets_how_long_threads_spin_before_torch_is_loaded(given, expected):
    """The runtime of the threads reads it once, when it is loaded with torch."""
    tools = sorted(str(tool) for tool in (REPO / 'tools').glob('*.py'))
    env = {
        key: value
        for key, value in os.environ.items()
        if key not in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')
    } | {'PYTHONPATH': str(REPO), **given}
    done = subprocess.run(
        [sys.executable, '-c', LOOK, *tools], capture_output=True, text=True, env=env, check=True
    )
    found = dict(line.rsplit(' ', 1) for line in done.stdout.splitlines())
    assert set(tools) - set(found) <= {str(REPO / 'tools/environment.py')}
    assert set(found.values()) == {expected}
