"""Estimates of earlier calls, and the changes that make them outdated."""

import copy
from pathlib import Path

from mmengine.config import Config

from vito_mm.transfer import estimate
from vito_mm.transfer.plan import make_plan
from vito_mm.utils.atomic import write_json


def test_steps_are_timed_again_where_the_loader_or_the_batch_is_another(options, monkeypatch):
    started: list[str] = []

    def run_jobs(jobs, *args) -> None:
        for job in jobs:
            started.append(job.name.removeprefix('timing of '))
            config = Config.fromfile(Path(job.work_dir) / 'config.py')
            assert config.model.backbone.checkpoint is None  # the config's own may not exist
            write_json(job.work_dir / 'result.json', dict(seconds=float(len(started))))

    monkeypatch.setattr(estimate, 'run_jobs', run_jobs)
    plan = make_plan(options())
    swept = make_plan(options(seeds=2, sweep=['lr=0.1,0.2']))
    on_two = make_plan(options(gpus_per_run=2))

    def timed(plan, task: str = 'coco', **settings: int) -> list[str]:
        """Tasks that are timed again, with other settings of a task."""
        changed = copy.deepcopy(plan)
        changed.configs[task].merge_from_dict(settings)
        started.clear()
        assert set(estimate.estimates(changed)) == {'pascal', 'coco'}
        return list(started)

    both = ['pascal', 'coco']
    assert timed(plan) == both
    assert timed(plan) == timed(swept) == []
    for _ in range(2):
        assert timed(plan, 'pascal', **{'train_dataloader.num_workers': 1}) == both[:1]
        assert timed(plan, **{'val_dataloader.num_workers': 1}) == both[1:]
        assert timed(plan, **{'val_dataloader.batch_size': 2}) == both[1:]
        assert timed(on_two) == both
        both = []
    assert timed(plan) == []  # the first measurement is still known
