"""How long a fine-tuning run will take, from a few of its real steps.

python -m vito_mm.transfer.timing CONFIG --result FILE [--cfg-options KEY=VALUE ...]
"""

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from vito_mm.utils.atomic import written_aside

STEPS = 12
"""Training steps that are taken; the first ``WARM_UP`` are left out."""

WARM_UP = 4
EVALUATED = 6
"""Batches that are evaluated; the first, which starts the workers, is left out."""

PATIENCE = 120.0
"""Seconds after which fewer steps will do."""


class _Enough(Exception):
    """Ends the training loop when enough steps were timed."""


class _Stopwatch(Hook):
    """Notes when each step has ended."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def before_train(self, runner: Runner) -> None:
        self.times = [time.perf_counter()]

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        _wait_for_device()
        self.times.append(time.perf_counter())
        taken = len(self.times) - 1
        late = self.times[-1] - self.times[0] > PATIENCE
        if taken >= STEPS or (late and taken > 2):
            raise _Enough


def time_run(runner: Runner, started: float) -> dict[str, float]:
    """Take some training and evaluation steps.

    Args:
        runner (Runner): The real runner of the run, from random weights.
        started (float): When the process was started, in seconds since 1970.

    Returns:
        dict[str, float]: ``start``, ``step`` and ``evaluation_step`` in seconds; ``steps``,
        ``evaluations`` and ``evaluation_steps`` of the whole run; and ``seconds``, what it will
        take, without saving checkpoints and computing metrics.
    """
    watch = _Stopwatch()
    runner.register_hook(watch)
    with suppress(_Enough):
        runner.train()
    times = watch.times
    start = time.time() - started - (time.perf_counter() - times[0])
    step = _mean_step(times, WARM_UP)

    loop = runner.val_loop
    runner.call_hook('before_val')
    runner.call_hook('before_val_epoch')
    runner.model.eval()
    times = [time.perf_counter()]
    for index, batch in enumerate(loop.dataloader):
        loop.run_iter(index, batch)
        _wait_for_device()
        times.append(time.perf_counter())
        if index + 1 >= EVALUATED:
            break
    evaluation_step = _mean_step(times, 1)

    steps, evaluations = _count(runner)
    batches = len(loop.dataloader)
    return dict(
        start=start,
        step=step,
        steps=steps,
        evaluation_step=evaluation_step,
        evaluation_steps=batches,
        evaluations=evaluations,
        seconds=start + steps * step + evaluations * batches * evaluation_step,
    )


def _mean_step(times: Sequence[float], warm_up: int) -> float:
    warm_up = min(warm_up, len(times) - 2)
    return (times[-1] - times[warm_up]) / (len(times) - 1 - warm_up)


def _wait_for_device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _count(runner: Runner) -> tuple[int, int]:
    """Training steps and evaluations of the whole run."""
    loop, settings = runner.train_loop, runner.cfg.train_cfg
    epochs = settings.get('by_epoch', False) or 'max_epochs' in settings
    total = loop.max_epochs if epochs else loop.max_iters
    interval, begin = loop.val_interval, loop.val_begin
    numbers = range(max(begin, 1), total + 1)
    return loop.max_iters, sum(i % interval == 0 or i == total for i in numbers)


def main() -> None:
    """Time the run of a config."""
    import tempfile

    from vito_mm.launch import build_runner, load_config

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('--result', type=Path, required=True)
    parser.add_argument('--started', type=float, default=time.time())
    parser.add_argument('--cfg-options', nargs='+')
    parser.add_argument('--launcher', default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        args.work_dir = folder
        result = time_run(build_runner(load_config(args)), args.started)
    with written_aside(args.result) as unfinished:
        unfinished.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
