"""A lock between processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO
from vito_mm.utils.file_lock import file_lock


def test_one_process_at_a_time_until_it_ends_however_that_is(tmp_path: Path):
    file = tmp_path / 'lock'
    code = (
        'import sys; from pathlib import Path; from vito_mm.utils.file_lock import file_lock\n'
        'with file_lock(Path(sys.argv[1]), ValueError): print("in", flush=True); input()'
    )
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    environment = {**os.environ, 'PYTHONPATH': str(REPO)}
    with subprocess.Popen([sys.executable, '-c', code, file], env=environment, **pipes) as process:
        assert process.stdout.readline() == 'in\n'
        with pytest.raises(KeyError, match=str(process.pid)), file_lock(file, KeyError):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with file_lock(file, KeyError), pytest.raises(KeyError), file_lock(file, KeyError):
            pass
    with file_lock(file, KeyError):
        assert file.read_text() == str(os.getpid())
