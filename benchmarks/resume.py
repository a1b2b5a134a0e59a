#!/usr/bin/env python
"""How long a resumed run takes to its first new step, beside MMEngine's own loop.

    python benchmarks/resume.py [--step 50000]

A short run on generated videos leaves a checkpoint, which is then dated forward. Each loop resumes
from it in a process of its own; times count from the start of that process. MMEngine's loop decodes
every batch that was trained on before, so it is measured at ``--stock-step`` and multiplied.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STARTED = time.time()
REPO = Path(__file__).resolve().parents[1]

LOOPS = {
    'vito_mm': dict(train_cfg=dict(type='ClipTrainLoop', max_iters=93_750)),
    'MMEngine': dict(
        train_cfg=dict(_delete_=True, type='IterBasedTrainLoop', max_iters=93_750),
        train_dataloader=dict(sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True)),
    ),
}


def build(folder: Path, work_dir: Path, batch_size: int, workers: int, changes: dict):
    """The shipped recipe with ResNet-18, at its own image size."""
    from mmengine.config import Config

    from vito_mm.launch import build_runner

    cfg = Config.fromfile(REPO / 'configs/vito/pretrain_r50.py')
    cfg.work_dir, cfg.launcher, cfg.log_level = str(work_dir), 'none', 'ERROR'
    cfg.merge_from_dict(
        {
            'train_dataloader.dataset.data_root': str(folder),
            'train_dataloader.batch_size': batch_size,
            'train_dataloader.num_workers': workers,
            'train_dataloader.persistent_workers': workers > 0,
            'model.backbone.depth': 18,
            'model.neck.in_channels': (256, 512),
            'model.projector.in_channels': 768,
            'auto_scale_lr.base_batch_size': batch_size,
        }
    )
    cfg.merge_from_dict(changes)
    return build_runner(cfg)


def make_checkpoint(folder: Path, work_dir: Path, args: argparse.Namespace) -> Path:
    """Train for two steps."""
    runner = build(folder, work_dir, args.batch_size, 0, {'train_cfg': dict(max_iters=2)})
    runner.train()
    return work_dir / 'iter_2.pth'


def date_forward(checkpoint: Path, step: int, batch_size: int) -> Path:
    """The same checkpoint as one of a later step."""
    import torch

    import vito_mm  # noqa: F401  lets torch load MMEngine's checkpoints

    state = torch.load(checkpoint, weights_only=True)
    state['meta']['iter'] = step
    state['message_hub']['runtime_info'].update(iter=step, clips_drawn=step * batch_size)
    for scheduler in state['param_schedulers']:
        scheduler['last_step'] = scheduler['_global_step'] = step
    target = checkpoint.with_name(f'iter_{step}.pth')
    torch.save(state, target)
    return target


def resume(args: argparse.Namespace) -> None:
    """In a process of its own: resume, stop after one step, print the times."""
    from mmengine.hooks import Hook

    class Stopwatch(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            self.batch = time.time() - STARTED

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            runner.train_loop.stop_training = True
            print(json.dumps(dict(batch=self.batch, step=time.time() - STARTED)))

    folder = Path(args.folder)
    runner = build(
        folder / 'videos', folder / args.loop, args.batch_size, args.workers, LOOPS[args.loop]
    )
    imported = time.time() - STARTED
    runner.register_hook(Stopwatch())
    runner._resume, runner._load_from = True, args.checkpoint
    runner.train()
    print(json.dumps(dict(built=imported)))


def main() -> None:
    """Parse the command line, run both loops, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--step', type=int, default=50_000, help='step to resume from')
    parser.add_argument('--stock-step', type=int, default=100, help="step for MMEngine's loop")
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--loop', choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument('--folder', help=argparse.SUPPRESS)
    parser.add_argument('--checkpoint', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.loop:
        resume(args)
        return

    from vito_mm.miniscenes import make_miniscenes

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_miniscenes(folder, preset='tiny', tasks=('videos',), progress=False)
        checkpoint = make_checkpoint(folder / 'videos', folder / 'first', args)
        rows = []
        for loop, step in (('vito_mm', args.step), ('MMEngine', args.stock_step)):
            dated = date_forward(checkpoint, step, args.batch_size)
            command = [*(sys.executable, __file__, '--loop', loop, '--folder', name)]
            command += ['--checkpoint', dated, '--batch-size', args.batch_size]
            command += ['--workers', args.workers]
            run = subprocess.run(
                [str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True
            )
            times = {}
            for line in run.stdout.splitlines():
                if line.startswith('{'):
                    times |= json.loads(line)
            rows.append((loop, step, times))

    print(f'batch {args.batch_size} clips of 3 views, {args.workers} workers, ResNet-18, seconds')
    print(f'{"loop":10}{"from step":>10}{"runner built":>14}{"first batch":>13}{"first step":>12}')
    for loop, step, times in rows:
        print(
            f'{loop:10}{step:>10,}{times["built"]:>14.1f}{times["batch"]:>13.1f}'
            f'{times["step"]:>12.1f}'
        )
    skipped = rows[1][2]['batch'] - rows[1][2]['built']
    print(
        f"MMEngine's loop takes {skipped / args.stock_step:.3f} s for each step before: "
        f'{skipped / args.stock_step * args.step / 3600:.1f} hours from step {args.step:,} '
        '(multiplied, not run)'
    )


if __name__ == '__main__':
    main()
