"""Stages: the same table from every engine, after every kill, and errors that say what to do."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import REPO
from tests.helpers.toy_stages import AboveMean, Double, make_table, run_stage_of
from vito_mm.curation.engines import local, ray_data
from vito_mm.curation.running import Running, import_table, run_stage
from vito_mm.curation.stage import StageError
from vito_mm.curation.stage_folder import clear, open_stage, read_record
from vito_mm.curation.tables import TableError, find_files, read_table
from vito_mm.videos.manifest import write_manifest

LOCAL = Running(workers=2)
RAY = Running(engine='ray', workers=1)
REDO = Running(workers=2, redo=True)
ODD = dict(x3='dies', x4='fails', x6='hangs')


def run_toy(folder: Path, stage=None, running: Running = LOCAL, **odd: str) -> list[dict]:
    stage = stage or Double()
    run_stage(stage, make_table(folder, running, **odd), folder / stage.name, running)
    return list(read_table(folder / stage.name))


@pytest.fixture(scope='module')
def ray_cluster():
    ray = pytest.importorskip('ray')
    before = signal.getsignal(signal.SIGTERM)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    signal.signal(signal.SIGTERM, before)  # Ray's would stay for all tests that follow
    yield ray
    ray.shutdown()


def wait_for(file: Path, is_alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not file.exists():
        assert is_alive()
        assert time.monotonic() < deadline, f'no {file}'
        time.sleep(0.01)


def test_every_row_ends_kept_or_with_a_reason(tmp_path):
    rows = run_toy(tmp_path, **ODD)
    assert [row['number'] for row in rows] == list(range(40))
    kept = [row['double'] for row in rows if 'dropped' not in row]
    assert kept == [2 * i for i in range(0, 40, 2) if i not in (4, 6)]
    assert [rows[i]['dropped'] for i in (1, 3, 4, 6)] == [
        'odd: 1',
        'ends the process that reads it: exit status 3, twice',
        'cannot be understood: ValueError: no such thing',
        'over the time limit: longer than 1 s',
    ]
    record = read_record(tmp_path / 'double')
    assert record['finished']
    assert record['kept'] == 18
    assert Counter(record['dropped']).total() == 22


@pytest.mark.slow
@pytest.mark.parametrize('stage', [Double(), AboveMean()], ids=lambda stage: stage.name)
def test_ray_gives_the_same_table(tmp_path, ray_cluster, stage):
    odd = ODD if stage.name == 'double' else {}
    here = run_toy(tmp_path / 'here', stage, LOCAL, **odd)
    there = run_toy(tmp_path / 'there', stage, RAY, **odd)
    assert here == there
    records = [read_record(tmp_path / place / stage.name) for place in ('here', 'there')]
    assert records[0]['dropped'] == records[1]['dropped']
    assert records[1]['finished']


@pytest.mark.slow
def test_actors_that_fit_on_no_machine_are_refused(tmp_path, ray_cluster):
    with pytest.raises(ValueError, match=r'no machine .* has 3 cores \(--workers\).*have: 2 and 0'):
        run_toy(tmp_path, Double(), Running(engine='ray', workers=3))


def test_a_cluster_that_does_not_answer_is_named_and_actors_fit_on_machines():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
        with pytest.raises(ConnectionError, match=f'no Ray cluster answers at {address}'):
            ray_data.check_address(address)
    for other in (None, 'auto', 'local'):
        ray_data.check_address(other)
    assert [ray_data._actors_on(dict(CPU=5, GPU=1), 2, gpus) for gpus in (0, 1, 0.5)] == [2, 1, 2]


@pytest.mark.slow
def test_a_lost_actor_is_started_again(tmp_path, ray_cluster):
    """The process of an actor is killed while it works on a shard, as when its machine dies."""
    words = ['-m', 'tests.helpers.toy_stages', str(tmp_path), 'double', '0.1', 'ray']
    environment = os.environ | dict(RAY_ADDRESS=ray_cluster.get_runtime_context().gcs_address)
    process = subprocess.Popen(
        [sys.executable, *words], cwd=REPO, env=environment, stdout=subprocess.PIPE, text=True
    )
    wait_for(tmp_path / 'double/part-000000.parquet', lambda: process.poll() is None)
    # Those of this test alone: there may be other Ray jobs on the machine.
    started_here = psutil.Process().children(recursive=True)
    actors = [child for child in started_here if 'MapWorker' in ' '.join(child.cmdline())]
    for actor in actors:
        actor.kill()
    assert actors
    assert 'Counts(kept=20' in process.communicate(timeout=120)[0]
    assert process.returncode == 0
    assert list(read_table(tmp_path / 'double')) == run_toy(tmp_path / 'complete')


@pytest.mark.parametrize('stage', [Double(), AboveMean()], ids=lambda stage: stage.name)
def test_a_killed_stage_goes_on_to_the_same_table(tmp_path, stage):
    # Forked, which imports nothing again.
    words = tmp_path, stage.name, 0.05, 'local'
    process = multiprocessing.get_context('fork').Process(target=run_stage_of, args=words)
    process.start()
    wait_for(tmp_path / stage.name / 'part-000000.parquet', process.is_alive)
    with pytest.raises(StageError, match='another job writes'):
        run_toy(tmp_path, stage)
    workers = psutil.Process(process.pid).children()
    process.kill()
    process.join()
    psutil.wait_procs(workers, 10)  # which hold the lock until they have ended too
    first = tmp_path / stage.name / 'part-000000.parquet'
    assert not read_record(tmp_path / stage.name)['finished']
    assert len(find_files(tmp_path / stage.name)) < 6
    before = first.stat().st_mtime_ns
    rows = run_toy(tmp_path, stage)
    assert first.stat().st_mtime_ns == before, 'a finished shard was made again'
    assert rows == run_toy(tmp_path / 'undisturbed', stage)
    assert read_record(tmp_path / stage.name)['finished']


def test_other_settings_and_tables_are_refused_and_redo_makes_them(tmp_path):
    run_toy(tmp_path)
    with pytest.raises(StageError, match=r'factor was 2, is 3. Take another folder, or --redo'):
        run_toy(tmp_path, Double(factor=3))
    other = make_table(tmp_path / 'other', LOCAL, count=8)
    with pytest.raises(StageError, match='from another table'):
        run_stage(Double(), other, tmp_path / 'double', LOCAL)
    assert run_toy(tmp_path, Double(factor=3), REDO)[2]['double'] == 6


def test_settings_may_be_corrected_where_nothing_was_made(tmp_path):
    class Refused(Double):
        def survey(self, shards, workers):
            raise ValueError('no')

    with pytest.raises(ValueError, match='no'):
        run_toy(tmp_path, Refused(factor=3))
    run_toy(tmp_path, Double(factor=4))


def test_a_kill_while_it_is_made_again_leaves_no_complete_table(tmp_path, monkeypatch):
    run_toy(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, 'unlink', lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            clear(tmp_path / 'double')
    assert not read_record(tmp_path / 'double')['finished']
    with pytest.raises(StageError, match='about to be made again'):
        run_toy(tmp_path, Double(factor=3))
    (tmp_path / 'double/part-000001.parquet.77.tmp').write_bytes(b'of a kill')
    assert run_toy(tmp_path, Double(factor=3), REDO)[2]['double'] == 6
    assert not list((tmp_path / 'double').glob('*.tmp'))


def test_columns_of_the_user_give_way_to_those_of_the_stage(tmp_path):
    """Rows that get none would have the user's, of another type, in the same shard."""

    class Makes(Double):
        makes = ('double',)

    rows = [dict(path=f'/{i}.mp4', number=i, double='twin', what=w) for i, w in enumerate('xyz')]
    rows += [
        dict(path='/3.mp4', number=4, double='twin', what='fails'),
        dict(path='/4.mp4', double=''),
    ]
    write_manifest(tmp_path / 'in.jsonl', rows)
    import_table(tmp_path / 'in.jsonl', tmp_path / 'table', LOCAL, 10)
    run_stage(Makes(), tmp_path / 'table', tmp_path / 'double', LOCAL)
    found = list(read_table(tmp_path / 'double'))
    assert [row.get('double') for row in found] == [0, 2, 4, None, None]
    assert found[4]['dropped'] == 'has no number'


def test_rows_whose_process_died_do_not_hold_all_shards_until_the_end(tmp_path, monkeypatch):
    """Every third shard has one; at most a few shards may wait for it."""
    monkeypatch.setattr('vito_mm.curation.engines.local._OPEN', 2)
    odd = {f'x{i}': 'dies' for i in range(0, 84, 21)}
    table, open_shards, written = make_table(tmp_path, LOCAL, count=84, **odd), [], 0
    shards = open_stage(Double(), table, tmp_path / 'double', False)
    for done, _ in enumerate(local.run_shards(Double(), shards, 1), start=1):
        written = sum(shard.target.exists() for shard in shards)
        open_shards.append(done // 7 - written)
    assert written == 12
    assert max(open_shards) <= 2


def test_errors_come_before_anything_is_done_and_say_what_to_do(tmp_path):
    class Needy(Double):
        needs = ('path', 'title')

    table = make_table(tmp_path, LOCAL, count=4, x0='fails', x2='fails')
    with pytest.raises(TableError, match="needs the column 'title', and there are only 'path'"):
        run_stage(Needy(), table, tmp_path / 'needy', LOCAL)
    with pytest.raises(StageError, match=r'keeps none of 4 videos \(2 \w.*, 2 \w.*\); the table'):
        run_stage(Double(), table, tmp_path / 'double', LOCAL)
    record = tmp_path / 'double/stage.json'
    record.write_text(record.read_text().replace('"finished": true', '"finished": false'))
    with pytest.raises(TableError, match=r"run stage 'double' to its end first"):
        run_stage(AboveMean(), tmp_path / 'double', tmp_path / 'above_mean', LOCAL)
