"""What the estimates of an earlier call are taken for."""

from pathlib import Path

import pytest

from tests.conftest import REPO
from vito_mm.miniscenes import make_miniscenes
from vito_mm.transfer import estimate
from vito_mm.transfer.options import SuiteOptions
from vito_mm.transfer.plan import make_plan
from vito_mm.transfer.state import write_json


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('miniscenes')
    tasks = ('voc', 'coco')
    return make_miniscenes(root, preset='tiny', workers=0, tasks=tasks, progress=False)


@pytest.fixture
def timed(data, tmp_path, monkeypatch):
    """Which tasks are timed anew; what it would take is told without taking any steps."""
    started: list[str] = []

    def run_jobs(jobs, *args) -> None:
        for job in jobs:
            started.append(job.name.removeprefix('timing of '))
            result = Path(job.command[job.command.index('--result') + 1])
            write_json(result, dict(seconds=float(len(started))))

    monkeypatch.setattr(estimate, 'run_jobs', run_jobs)

    def timed(*cfg_options: str, **changes) -> list[str]:
        known = dict(
            checkpoints=['random'],
            tasks=['pascal', 'coco'],
            seeds=1,
            protocol='miniscenes',
            work_dir=tmp_path / 'suite',
            data=[f'pascal={data["voc"]}', f'coco={data["coco"]}'],
            cfg_options=cfg_options,
        )
        for name in ('pascal', 'coco'):
            (tmp_path / 'suite' / 'estimates' / name).mkdir(parents=True, exist_ok=True)
        plan = make_plan(SuiteOptions(REPO, **(known | changes)))
        started.clear()
        estimate.estimates(plan)
        assert set(plan.seconds) == {'pascal', 'coco'}
        return list(started)

    return timed


def test_steps_are_timed_anew_where_the_loader_or_the_batch_is_another(timed):
    both = ['pascal', 'coco']
    assert timed() == both
    assert timed() == []
    assert timed(seeds=2, sweep=['lr=0.1,0.2']) == []
    assert timed('pascal:train_dataloader.num_workers=1') == ['pascal']
    assert timed('pascal:train_dataloader.num_workers=1') == []
    assert timed('coco:val_dataloader.num_workers=1') == ['coco']
    assert timed('coco:val_dataloader.batch_size=2') == ['coco']
    assert timed(gpus_per_run=2) == both
    assert timed(gpus_per_run=2) == []
    assert timed('coco:auto_scale_lr.base_batch_size=4') == ['coco']
    assert timed() == []  # what was measured first is still known
