"""Data sets and a checkpoint of the embedded world, made once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import REPO
from tests.helpers.demo_network import demo_checkpoint
from vito_mm.transfer.options import SuiteOptions
from vito_mm.transfer.plan import PlanError, make_plan


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory) -> Path:
    """A checkpoint of the network of these tasks; not to be changed."""
    torch.manual_seed(0)
    return Path(demo_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'vito.pth'))


@pytest.fixture
def options(miniscenes, tmp_path) -> Callable[..., SuiteOptions]:
    """Options that work, to be changed."""

    def make(**changes) -> SuiteOptions:
        known = dict(
            repo=REPO,
            checkpoints=['random'],
            tasks=['pascal', 'coco'],
            seeds=1,
            protocol='miniscenes',
            work_dir=tmp_path / 'suite',
            data=[f'{task}={folder}' for task, folder in miniscenes.items()],
        )
        return SuiteOptions(**(known | changes))

    return make


def problems(options: SuiteOptions) -> list[str]:
    """Problems of a plan that cannot be made."""
    with pytest.raises(PlanError) as caught:
        make_plan(options)
    return caught.value.problems
