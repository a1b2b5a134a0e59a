"""The check for GPU machines: its driver on parts of any kind, and its parts small, on a CPU."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import REPO
from vito_mm.probes.record import Record
from vito_mm.transfer.run_folder import scalars

SMALL = (
    *('tests', 'step', 'pretrain', 'processes', 'batches', 'micro', 'probes', 'loading'),
    *('formats', 'adapt'),
)
"""All parts but the compiler's, which takes minutes."""
ORIGIN = dict(facts='One GPU.', revision='0123abcd')


@pytest.fixture
def gpu_check(monkeypatch):
    """The script as a module; what it sets for its process is undone."""
    monkeypatch.syspath_prepend(str(REPO / 'benchmarks'))
    monkeypatch.setenv('PYTHONPATH', os.environ.get('PYTHONPATH', ''))
    handler = signal.getsignal(signal.SIGTERM)
    yield importlib.import_module('gpu_check')
    signal.signal(signal.SIGTERM, handler)


def parts_of(gpu_check, seconds=20.0, **least):
    return {name: gpu_check.Part(name, None, seconds, need) for name, need in least.items()}


def record_in(folder):
    return Record(folder / 'gpu_check.json', dict(gpu=True))


def python(code):
    return [sys.executable, '-c', code]


def is_running(pid):
    """Whether a process runs, once who inherits it has had a moment."""
    for _ in range(50):
        try:
            state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
        except FileNotFoundError:
            return False
        if state == 'Z':
            return False
        time.sleep(0.1)
    return True


def test_a_part_that_fails_or_hangs_ends_alone_and_keeps_what_it_found(gpu_check, tmp_path):
    pid = tmp_path / 'pid'
    codes = dict(
        fails='print("| a | 1 |"); raise ValueError("broken here")',
        hangs='import subprocess, time; print("| b | 2 |", flush=True)\n'
        'child = subprocess.Popen(["sleep", "60"])\n'
        f'open({str(pid)!r}, "w").write(str(child.pid))\ntime.sleep(60)',
        works='print("| c | 3 |")',
    )
    parts = parts_of(gpu_check, seconds=2.0, fails=0, hangs=0, works=0)
    record = record_in(tmp_path)
    deadline = time.monotonic() + 60
    gpu_check.run_parts(parts, record, deadline, lambda name, _: python(codes[name]), ORIGIN)
    kept = record_in(tmp_path).parts
    assert {name: each['status'] for name, each in kept.items()} == dict(
        fails='failed', hangs='stopped', works='done'
    )
    assert [kept[name]['text'] for name in codes] == ['| a | 1 |', '| b | 2 |', '| c | 3 |']
    assert 'broken here' in kept['fails']['log'][-1]
    assert not is_running(int(pid.read_text()))
    text = gpu_check.section(parts, record, {}, 'make gpu-check')
    assert '| works | done |' in text
    assert '| hangs | stopped |' in text
    assert 'broken here' in text
    assert text.count('One GPU.') == 1


def test_the_same_call_goes_on_with_what_is_missing_and_then_with_what_failed(gpu_check, tmp_path):
    record, asked = record_in(tmp_path), []
    record.put('first', dict(status='failed', seconds=1.0, text='', log=[]) | ORIGIN)
    record.put('second', dict(status='done', seconds=1.0, text='kept') | ORIGIN)

    def command_of(name, seconds):
        asked.append((name, seconds))
        return python('print("new")')

    parts = parts_of(gpu_check, seconds=30.0, first=0, second=0, third=0, fourth=9000)
    written = []
    left_out = gpu_check.run_parts(
        parts, record, time.monotonic() + 25, command_of, ORIGIN, written.append
    )
    assert len(written) == 2  # after each part, as the machine may be gone at the end
    assert [name for name, _ in asked] == ['third', 'first']
    assert all(10 < seconds < 25 for _, seconds in asked)  # what is left, not all of the 30
    assert {name: each['text'] for name, each in record.parts.items()} == dict(
        first='new', second='kept', third='new'
    )
    assert list(left_out) == ['fourth']
    assert 'not run: ' in gpu_check.section(parts, record, left_out, 'make gpu-check')


def test_another_try_that_finds_less_keeps_what_was_found(gpu_check, tmp_path):
    record = record_in(tmp_path)
    record.put('slow', dict(status='stopped', seconds=9.0, text='| VITO | 95 % |', log=[]) | ORIGIN)
    parts, command = parts_of(gpu_check, slow=0), python('raise SystemExit(1)')
    gpu_check.run_parts(parts, record, time.monotonic() + 30, lambda *_: command, ORIGIN)
    assert record_in(tmp_path).parts['slow']['text'] == '| VITO | 95 % |'


def test_what_is_missing_is_named_with_the_wheels_to_carry(gpu_check, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_check, 'NEEDED', ('torch', 'nowhere_to_be_found'))
    with pytest.raises(SystemExit, match=r'nowhere_to_be_found(.|\n)*requirements/gpu_check\.txt'):
        gpu_check.check_machine()
    with pytest.raises(SystemExit, match='no wheel'):
        gpu_check.unpack(tmp_path, tmp_path / 'site')


def test_wheels_are_unpacked_once(gpu_check, tmp_path):
    info = 'carried-1.0.dist-info'
    with zipfile.ZipFile(tmp_path / 'carried-1.0-py3-none-any.whl', 'w') as wheel:
        wheel.writestr('carried.py', 'VALUE = 3\n')
        wheel.writestr(f'{info}/METADATA', 'Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n')
        tag = 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n'
        wheel.writestr(f'{info}/WHEEL', tag)
        wheel.writestr(f'{info}/RECORD', f'carried.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n')
    site = tmp_path / 'site'
    gpu_check.unpack(tmp_path, site)
    written = (site / 'carried.py').stat()
    gpu_check.unpack(tmp_path, site)
    assert (site / 'carried.py').stat() == written


def test_carried_versions_are_those_of_the_environment():
    """As they are for the Python of GPU machines."""
    python = dict(python_version='3.12', python_full_version='3.12.3')

    def pins(name):
        lines = (REPO / 'requirements' / name).read_text().splitlines()
        found = [Requirement(line) for line in lines if '==' in line]
        return {
            each.name: str(each.specifier)
            for each in found
            if not each.marker or each.marker.evaluate(python)
        }

    environment, carried = pins('environment.txt'), pins('gpu_check.txt')
    common = carried.keys() & environment.keys()
    assert len(common) > 10
    assert {name: carried[name] for name in common} == {name: environment[name] for name in common}


def test_without_a_gpu_it_says_so(gpu_check, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, 'argv', ['gpu_check.py', '--work-dir', str(tmp_path)])
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(SystemExit, match='--tiny'):
        gpu_check.main()


def test_a_batch_that_does_not_fit_is_a_row(gpu_check, monkeypatch, tmp_path):
    """A small step on a CPU, and one for which there is no memory."""
    import torch
    import train_step

    build_step, lines = train_step.build_step, []

    def build(name, args):
        if args.micro_batch_size:
            raise torch.cuda.OutOfMemoryError
        return build_step(name, args)

    monkeypatch.setattr(train_step, 'build_step', build)
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    gpu_check.check_micro_batches(gpu_check.Place(tmp_path, True, 60.0, lines.append))
    _, _, whole, cut = (line.strip('| ').split(' | ') for line in lines)
    assert whole[0] == '4 clips at once'
    assert float(whole[2]) > 0
    assert cut[1] == 'out of memory'


def test_losses_and_times_are_read_from_the_log_of_a_run(gpu_check, tmp_path):
    folder = tmp_path / '20260101_000000/vis_data'
    folder.mkdir(parents=True)
    rows = [dict(time=9.0), dict(time=1.0), dict(time=3.0), dict(time=2.0, memory=1234)]
    rows = [row | dict(loss=1.0, step=step) for step, row in enumerate(rows)]
    rows.insert(3, dict(knn_top1=50.0, step=3))
    (folder / 'scalars.json').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    found = scalars(tmp_path)
    assert gpu_check.median_of(found, 'time') == 2.0  # without the first
    assert gpu_check.peak_mib(found) == '1,234'


@pytest.mark.slow
def test_every_part_runs_small(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, 'benchmarks/gpu_check.py', '--tiny', '--minutes', '40'),
            *('--work-dir', str(tmp_path), '--parts', *SMALL),
        ],
        cwd=REPO,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''},
        capture_output=True,
        text=True,
        check=False,
    )
    text = (tmp_path / 'gpu_check.md').read_text()
    assert done.returncode == 0, text
    assert done.stdout.endswith(f'{text}\n')
    for row in ('VITO', 'steps 1 to 4', '4 clips by 2', 'vito_mm', 'on the device'):
        assert re.search(rf'^\| (.* \| )?{row} \| ', text, re.MULTILINE), row
    (difference,) = re.findall(
        r'^\| relative, in the Euclidean norm \| (\S+) \|$', text, re.MULTILINE
    )
    assert float(difference) < 1e-4
