#!/usr/bin/env python
"""Time a training step on a CPU with nothing else to do and with other work on all cores.

    python benchmarks/busy_machine.py [--repeats 5] [--steps 3] [--loops 2]

The step is that of configs/miniscenes/pretrain_r18.py, the demo's. Each measurement is a process of
its own, since the runtime of the threads reads its settings once; the settings take turns, so that
what else the machine does meets them alike. The other work is endless loops, one for each core.
"""

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

REPO = Path(__file__).resolve().parents[1]
SETTINGS = {
    "libgomp's default (before)": {},
    'OMP_WAIT_POLICY=PASSIVE': {'OMP_WAIT_POLICY': 'PASSIVE'},
    'GOMP_SPINCOUNT=10000 (now)': {'GOMP_SPINCOUNT': '10000'},
}


def measure(steps: int) -> None:
    """Print the seconds of some steps, one a line; the first two are left out.

    Args:
        steps (int): Steps to time.
    """
    import torch
    from mmengine.config import Config
    from mmengine.logging import MMLogger
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner
    from mmpretrain.structures import DataSample

    from vito_mm.registry import MODELS

    MMLogger.get_instance('busy_machine', log_level='ERROR')
    cfg = Config.fromfile(REPO / 'configs/miniscenes/pretrain_r18.py')
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model = revert_sync_batchnorm(model)
    model.start_target()
    # Runner.build_optim_wrapper reads nothing of a runner but its model.
    optim_wrapper = Runner.build_optim_wrapper(SimpleNamespace(model=model), cfg.optim_wrapper)
    size, count = cfg.crop.scale, cfg.train_dataloader.batch_size
    views = [torch.randint(256, (count, 3, size, size), dtype=torch.uint8) for _ in range(3)]
    batch = dict(inputs=views, data_samples=[DataSample() for _ in range(count)])
    for step in range(-2, steps):
        start = time.perf_counter()
        model.train_step(batch, optim_wrapper=optim_wrapper)
        model.update_target(0.0)
        if step >= 0:
            print(time.perf_counter() - start, flush=True)


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Other work, as long as the context lasts.

    Args:
        loops (int): Processes that never rest.
    """
    # They end with this process, however it ends.
    code = 'import os; parent = os.getppid()\nwhile os.getppid() == parent: pass'
    processes = [subprocess.Popen([sys.executable, '-c', code]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measured(settings: dict[str, str], steps: int) -> list[float]:
    """Seconds of steps in a process with the given settings of the OpenMP runtime and no others."""
    own = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')
    env = {key: value for key, value in os.environ.items() if key not in own} | settings
    # Importing vito_mm would set what is to be compared.
    code = f'import sys, torch; sys.path[:0] = {[str(REPO), str(REPO / "benchmarks")]!r}; '
    code += f'import busy_machine; busy_machine.measure({steps})'
    done = subprocess.run(
        [sys.executable, '-c', code], env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    return [float(line) for line in done.stdout.splitlines()]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=5, help='processes of each setting')
    parser.add_argument('--steps', type=int, default=3, help='steps timed in each')
    cores = len(os.sched_getaffinity(0))
    parser.add_argument('--loops', type=int, default=cores, help='loops of the busy machine')
    args = parser.parse_args()
    print(f'command   {shlex.join(["python", "benchmarks/busy_machine.py", *sys.argv[1:]])}')
    print(f'machine   {cores} cores, load before: {os.getloadavg()[0]:.1f}')
    print(f'times     seconds a step, of {args.repeats} processes of {args.steps} steps each')
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(args.repeats):
        for loops in sorted({0, args.loops}):
            with busy(loops):
                for name, settings in SETTINGS.items():
                    times.setdefault((name, loops), []).extend(measured(settings, args.steps))
    print(f'\n{"threads that wait":36}{"other loops":>12}{"median":>10}{"least":>10}{"most":>10}')
    for (name, loops), values in sorted(times.items(), key=lambda item: item[0][1]):
        shown = (statistics.median(values), min(values), max(values))
        print(f'{name:36}{loops:>12}' + ''.join(f'{value:>10.3f}' for value in shown))


if __name__ == '__main__':
    main()
