"""Estimates of earlier calls, and the changes that make them outdated."""

import copy
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from vito_mm.launch import build_runner
from vito_mm.transfer import estimate
from vito_mm.transfer.plan import make_plan
from vito_mm.utils.atomic import write_json


@MODELS.register_module()
class ToyModel(BaseModel):
    """A single weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, inputs, mode: str):
        return dict(loss=self.weight * 0) if mode == 'loss' else inputs


@DATASETS.register_module()
class ToyNumbers(Dataset):
    """Numbers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=index)


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """Computes nothing."""

    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results) -> dict:
        return dict(x=0)


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


@pytest.mark.parametrize('by_epoch', [True, False])
def test_gpus_share_the_images_of_an_epoch_and_of_an_evaluation(tmp_path, by_epoch):
    """Expected counts are those of PyTorch's sampler for several processes."""
    loop = dict(max_epochs=3) if by_epoch else dict(max_iters=20)
    loader = dict(batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False))

    def timed(gpus: int) -> dict[str, float]:
        runner = build_runner(
            Config(
                dict(
                    model=dict(type='ToyModel'),
                    work_dir=str(tmp_path),
                    launcher='none',
                    train_dataloader=dict(loader, dataset=dict(type='ToyNumbers', count=27)),
                    val_dataloader=dict(loader, dataset=dict(type='ToyNumbers', count=11)),
                    train_cfg=dict(loop, by_epoch=by_epoch, val_interval=1000),
                    val_cfg=dict(),
                    val_evaluator=dict(type='ToyMetric'),
                    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
                )
            )
        )
        return estimate.time_run(runner, time.time(), gpus)

    for gpus in (1, 3):
        found = timed(gpus)

        def batches(count: int, gpus: int = gpus) -> int:
            sampler = DistributedSampler(range(count), gpus, 0)
            return len(DataLoader(range(count), batch_size=2, sampler=sampler))

        assert found['steps'] == (3 * batches(27) if by_epoch else 20)
        assert found['evaluation_steps'] == batches(11)
        evaluation = found['evaluation_steps'] * found['evaluation_step']
        expected = found['start'] + found['steps'] * found['step'] + evaluation
        assert found['seconds'] == pytest.approx(expected)
