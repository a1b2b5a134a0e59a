"""Duration of runs, estimated from a few real steps of each task."""

import hashlib
import math
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from vito_mm.launch import build_runner
from vito_mm.transfer.jobs import Job, run_jobs, say
from vito_mm.transfer.plan import Plan
from vito_mm.transfer.run_folder import read_json
from vito_mm.utils.atomic import write_json

_STEPS, _EVALUATED, _PATIENCE = 12, 6, 120.0  # after so many seconds fewer steps will do


class _Enough(Exception):
    """Ends a loop when enough steps were timed."""


class _Limit(Hook):
    def before_train(self, runner: Runner) -> None:
        self.began = time.time()

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        late = time.time() - self.began > _PATIENCE
        if runner.iter + 1 >= (3 if late else _STEPS):
            raise _Enough

    def after_val_iter(self, runner: Runner, batch_idx: int, *_: Any, **__: Any) -> None:
        if batch_idx + 1 >= _EVALUATED:
            raise _Enough


def time_run(runner: Runner, started: float, gpus: int = 1) -> dict[str, float]:
    """Time some steps of a runner on one GPU.

    Args:
        runner (Runner): Runner with the batch of one GPU.
        started (float): When its process was started, in seconds since 1970.
        gpus (int): GPUs of a run, which share the images of an epoch and of an evaluation.
            Defaults to 1.

    Returns:
        dict[str, float]: Steps of a run and of an evaluation, and seconds of each and of all.
    """
    limit, loop, times = _Limit(), runner.train_loop, runner.message_hub
    runner.register_hook(limit, 'LOWEST')
    begin, loop.val_begin = loop.val_begin, sys.maxsize  # training alone, also where it is short
    for run in (runner.train, runner.val_loop.run):
        with suppress(_Enough):
            run()
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    steps = loop.max_iters
    if by_epoch:
        steps = loop.max_epochs * math.ceil(len(loop.dataloader) / gpus)
    found = dict(start=limit.began - started, steps=steps)
    found['step'] = times.get_scalar('train/time').mean(_STEPS - 4)  # the first ones are slower
    found['evaluation_step'] = times.get_scalar('val/time').mean(_EVALUATED - 1)
    found['evaluation_steps'] = math.ceil(len(runner.val_loop.dataloader) / gpus)
    total = loop.max_epochs if by_epoch else loop.max_iters
    ends = range(max(begin, 1), total + 1)
    found['evaluations'] = sum(i % loop.val_interval == 0 or i == total for i in ends)
    evaluation = found['evaluation_steps'] * found['evaluation_step']
    training = found['steps'] * found['step']
    return found | dict(seconds=found['start'] + training + found['evaluations'] * evaluation)


def estimates(plan: Plan) -> dict[str, dict[str, float]]:
    """Time each task that has runs to do, unless an earlier call timed the same.

    Returns:
        dict[str, dict[str, float]]: By task the result of :func:`time_run`; ``seconds`` is the
        duration of a run without saving checkpoints and computing metrics.
    """
    file = plan.options.work_dir / 'estimates.json'
    known, found = read_json(file) or {}, {}
    gpus = plan.options.gpus_per_run
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'
    todo = {run.task.name: run for run in plan.runs if not run.is_finished}
    for name in (name for name in plan.configs if name in todo):
        cfg = Config(plan.configs[name].to_dict())
        cfg.model.backbone.checkpoint = None  # the weights do not change how long a step takes
        cfg.train_dataloader.batch_size = int(todo[name].cfg_options['train_dataloader.batch_size'])
        facts = f'{cfg.to_dict()}\n{device}\n{plan.threads}\n{gpus}'
        base = name.partition('@')[0]  # parts of the labels take as long
        key = f'{base}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}'
        if key not in known:
            say(f'Timing some steps of {name} ...')
            folder = plan.options.work_dir.absolute() / 'estimates' / name
            folder.mkdir(parents=True, exist_ok=True)
            cfg.dump(folder / 'config.py')
            words = ['-m', 'vito_mm.transfer.estimate', str(folder), str(time.time()), str(gpus)]
            job = Job(f'timing of {name}', [*plan.options.srun(), sys.executable, *words], folder)
            run_jobs([job], 1, plan.threads, plan.places[:1])
            known[key] = read_json(folder / 'result.json')
            write_json(file, known)
        found[name] = known[key]
    return found


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as _folder:
        _cfg = Config.fromfile(Path(sys.argv[1]) / 'config.py')
        _cfg.update(work_dir=_folder, launcher='none')
        _result = time_run(build_runner(_cfg), float(sys.argv[2]), int(sys.argv[3]))
    write_json(Path(sys.argv[1]) / 'result.json', _result)
