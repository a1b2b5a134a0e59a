#!/usr/bin/env python
"""Fine-tune checkpoints on the tasks of the paper's transfer table, or yours, and compare them.

tools/transfer.py --checkpoints a.pth b.pth random --tasks pascal ade20k coco lvis --seeds 5
tools/transfer.py --checkpoints a.pth random --tasks cells=my/config.py --labels 1% 10% 100%

Each combination of checkpoint, task, point of the sweep and seed is a run of tools/train.py. Giving
the same command again goes on where it ended; more checkpoints, tasks, values or seeds are added.
"""

import shlex
import sys
from pathlib import Path

from _arguments import Extend, Parser, add_shared, natural
from _evaluation import add_suite, suite_words

# Those of vito_mm.transfer.tasks, which takes seconds to import.
PROTOCOLS = ('paper', 'stock', 'miniscenes')
TASKS = ('pascal', 'ade20k', 'coco', 'lvis')


def main() -> int:
    """Parse the command line and run the suite with the configs and tools next to this file."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add(
        *('--checkpoints', '-c'),
        nargs='+',
        action='extend',
        default=[],
        metavar='CHECKPOINT',
        help="files to start from, 'label=file' to name them in tables, 'random' for none",
    )
    add(
        '--tasks',
        nargs='+',
        action=Extend,
        default=[*TASKS],
        metavar='TASK',
        help='of the paper; the name of a config of segmentation or detection in '
        'configs/protocols, such as upernet_ade20k; or name=CONFIG for any config of mmseg or '
        'mmdet, a file or PACKAGE::FILE',
    )
    add('--seeds', type=int, default=5, metavar='N', help='runs of each, with seeds 0, 1, ...')
    add('--first-seed', type=natural, default=0, metavar='N', help='where the seeds begin')
    add(
        '--sweep',
        nargs='+',
        action='extend',
        default=[],
        metavar='KEY=VALUES',
        help='values to try in all combinations: lr=0.01,0.02 wd=0.0005,0.005, or any config key',
    )
    add(
        '--labels',
        nargs='+',
        action=Extend,
        default=['100%'],
        metavar='PERCENT',
        help='parts of the labelled training images, such as 1%% 10%% 100%%: drawn at random by '
        'each seed, smaller ones within larger ones. A part is repeated until an epoch is as long '
        'as with all images, so that all runs take the same number of steps',
    )
    add(
        '--frozen-backbone',
        action='store_true',
        help='train only what is around the backbone, which stays in evaluation mode',
    )
    add(
        '--layer-decay',
        nargs='+',
        action='extend',
        default=[],
        metavar='FACTOR',
        help='learning rate falls by this factor with each layer towards the stem, such as 0.8; '
        'several values are a sweep',
    )
    add('--protocol', choices=PROTOCOLS, default='paper', help='schedules')
    add_shared(parser, '--work-dir', type=Path, default=Path('work_dirs/transfer'))
    add_shared(
        parser,
        '--cfg-options',
        action='extend',
        default=[],
        help='settings that override the configs, for all tasks, or for one as TASK:KEY=VALUE',
    )
    add_shared(
        parser,
        '--data',
        nargs='+',
        action='extend',
        default=[],
        metavar='TASK=PLACE',
        help='folder of a data set that is not where the config says',
    )
    add(
        '--gpus',
        nargs='+',
        action='extend',
        type=int,
        metavar='N',
        help='visible GPUs, from 0 (default: all)',
    )
    add(
        '--gpus-per-run',
        type=int,
        default=1,
        metavar='N',
        help='GPUs of a run; the total batch stays the same',
    )
    add(
        '--jobs',
        type=int,
        metavar='N',
        help='runs side by side (default: as the GPUs allow; Slurm, CPU: 1)',
    )
    add('--launcher', choices=['none', 'slurm'], default='none', help='what starts the runs')
    add('--partition', default='', metavar='NAME', help="Slurm's partition")
    add('--srun-args', default='', metavar='WORDS', help='further arguments of srun, in one text')
    add('--dry-run', action='store_true', help='print the plan and the estimate, start nothing')
    add('--no-estimate', action='store_true', help='do not time any steps beforehand')
    add(
        '--redo',
        action='store_true',
        help='start again the runs that belong to another config or checkpoint content',
    )
    add_shared(parser, '--evaluation')
    add('--report-only', action='store_true', help='write the report again from what is there')
    add('--yes', '-y', action='store_true', help='accepted for scripts: nothing is ever asked')
    args = parser.parse_args()

    from vito_mm.transfer.options import SuiteOptions
    from vito_mm.transfer.report.results import ResultsError, read_results
    from vito_mm.transfer.runner import JobError, PlanError, SuiteError, report, run_suite

    command = shlex.join(sys.argv)
    chosen = dict(vars(args), repo=Path(__file__).resolve().parents[1])
    dry_run, no_estimate, report_only, folder = (
        chosen.pop(name) for name in ('dry_run', 'no_estimate', 'report_only', 'evaluation')
    )
    del chosen['yes']
    try:
        if folder:
            read_results(folder)  # fail before the first run
        if report_only:
            report(args.work_dir)
            status = 0
        else:
            status = run_suite(SuiteOptions(**chosen), command, dry_run, not no_estimate)
        if folder and not dry_run:
            add_suite(folder, args.work_dir, suite_words(parser, args))
        return status
    except (PlanError, SuiteError, JobError, ResultsError) as error:
        print(f'tools/transfer.py: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == '__main__':
    sys.exit(main())
