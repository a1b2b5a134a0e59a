#!/usr/bin/env python
"""Fine-tune checkpoints on the tasks of the paper's transfer table, or yours, and compare them.

tools/transfer.py --checkpoints a.pth b.pth random --tasks pascal ade20k coco lvis --seeds 5
tools/transfer.py --checkpoints a.pth random --tasks cells=my/config.py --labels 1% 10% 100%

Each combination of checkpoint, task, point of the sweep and seed is a run of tools/train.py. Giving
the same command again goes on where it ended; more checkpoints, tasks, values or seeds are added.
"""

import argparse
import shlex
import sys
from pathlib import Path

# Those of vito_mm.transfer.tasks, which takes seconds to import.
PROTOCOLS = ('paper', 'stock', 'miniscenes')
TASKS = ('pascal', 'ade20k', 'coco', 'lvis')


def main() -> int:
    """Parse the command line and run the suite with the configs and tools next to this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        *('--checkpoints', '-c'),
        nargs='+',
        default=[],
        help="files to start from, 'label=file' to name them in tables, 'random' for none",
    )
    add(
        '--tasks',
        nargs='+',
        default=[*TASKS],
        help='of the paper, or name=config for any config of mmseg or mmdet, a file or '
        f'PACKAGE::FILE (default: {" ".join(TASKS)})',
    )
    add('--seeds', type=int, default=5, help='runs of each, with seeds 0, 1, ... (default: 5)')
    add('--first-seed', type=int, default=0, help='where the seeds begin (default: 0)')
    add(
        '--sweep',
        nargs='+',
        action='extend',
        default=[],
        help='values to try in all combinations: lr=0.01,0.02 wd=0.0005,0.005, or any config key',
    )
    add(
        '--labels',
        nargs='+',
        default=['100%'],
        metavar='PERCENT',
        help='parts of the labelled training images, such as 1%% 10%% 100%%: drawn at random by '
        'each seed, smaller ones within larger ones. A part is repeated until an epoch is as long '
        'as with all images, so that all runs take the same number of steps (default: 100%%)',
    )
    add(
        '--frozen-backbone',
        action='store_true',
        help='train only what is around the backbone, which stays in evaluation mode',
    )
    add(
        '--layer-decay',
        nargs='+',
        default=[],
        metavar='FACTOR',
        help='learning rate falls by this factor with each layer towards the stem, such as 0.8; '
        'several values are a sweep',
    )
    add('--protocol', choices=PROTOCOLS, default='paper', help='schedules (default: paper)')
    add('--work-dir', type=Path, default=Path('work_dirs/transfer'), help='default: %(default)s')
    add(
        '--cfg-options',
        nargs='+',
        action='extend',
        default=[],
        help='config settings, key=value for all tasks or task:key=value for one',
    )
    add(
        '--data',
        nargs='+',
        action='extend',
        default=[],
        help='task=folder where a data set is not where the config says',
    )
    add('--gpus', nargs='+', type=int, help='visible GPUs to use, from 0 (default: all)')
    add('--gpus-per-run', type=int, default=1, help='GPUs of a run; the total batch stays the same')
    add('--jobs', type=int, help='runs side by side (default: as the GPUs allow; Slurm, CPU: 1)')
    add('--launcher', choices=['none', 'slurm'], default='none')
    add('--partition', default='', help="Slurm's partition")
    add('--srun-args', default='', help='further arguments of srun, in one text')
    add('--dry-run', action='store_true', help='print the plan and the estimate, start nothing')
    add('--no-estimate', action='store_true', help='do not time any steps beforehand')
    add(
        '--redo',
        action='store_true',
        help='start again the runs that belong to another config or checkpoint content',
    )
    add('--report-only', action='store_true', help='write the report again from what is there')
    add('--yes', '-y', action='store_true', help='accepted for scripts: nothing is ever asked')
    args = parser.parse_args()

    from vito_mm.transfer.options import SuiteOptions
    from vito_mm.transfer.runner import JobError, PlanError, SuiteError, report, run_suite

    command = shlex.join(sys.argv)
    chosen = dict(vars(args), repo=Path(__file__).resolve().parents[1])
    dry_run, no_estimate, report_only = (
        chosen.pop(name) for name in ('dry_run', 'no_estimate', 'report_only')
    )
    del chosen['yes']
    try:
        if report_only:
            report(args.work_dir)
            return 0
        return run_suite(SuiteOptions(**chosen), command, dry_run, not no_estimate)
    except (PlanError, SuiteError, JobError) as error:
        print(f'tools/transfer.py: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == '__main__':
    sys.exit(main())
