"""Estimates of earlier calls, and the changes that make them outdated."""

from pathlib import Path

import pytest
from mmengine.config import Config

from vito_mm.transfer import estimate
from vito_mm.transfer.plan import make_plan
from vito_mm.utils.atomic import write_json


@pytest.fixture
def timed(options, monkeypatch):
    """Returns the tasks that are timed again; no steps are taken."""
    started: list[str] = []

    def run_jobs(jobs, *args) -> None:
        for job in jobs:
            started.append(job.name.removeprefix('timing of '))
            config = Config.fromfile(Path(job.work_dir) / 'config.py')
            assert config.model.backbone.checkpoint is None  # the config's own may not exist
            write_json(job.work_dir / 'result.json', dict(seconds=float(len(started))))

    monkeypatch.setattr(estimate, 'run_jobs', run_jobs)

    def timed(*cfg_options: str, **changes) -> list[str]:
        started.clear()
        found = estimate.estimates(make_plan(options(cfg_options=cfg_options, **changes)))
        assert set(found) == {'pascal', 'coco'}
        return list(started)

    return timed


def test_steps_are_timed_again_where_the_loader_or_the_batch_is_another(timed):
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
    assert timed() == []  # the first measurement is still known
