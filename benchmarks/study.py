#!/usr/bin/env python
"""Which part of VITO does what, on MiniScenes: one table, plots, and the configs behind them.

    python benchmarks/study.py --preset cpu

Each row is pre-trained with several seeds, its frozen features are probed, and the main rows go
through the stock fine-tuning of mmsegmentation and mmdetection, with the backbone trained and
frozen. The same command again goes on where it ended; --report-only writes the report of what is
there. The preset cpu takes an hour to an hour and a half on two cores; gpu is ResNet-50, for a GPU;
adaptation goes on from weights that were trained on other classes; attention is a world of small
objects, for hours, which may be spent in parts: seed by seed.
"""

import argparse
import shlex
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from projects.miniscenes_study.presets import PRESETS  # noqa: E402
from projects.miniscenes_study.report import read_scores, write_report  # noqa: E402
from projects.miniscenes_study.rows import ROWS  # noqa: E402
from projects.miniscenes_study.runs import Study, StudyError, jobs_of_machine, run_study  # noqa: E402
from vito_mm.transfer.jobs import JobError  # noqa: E402
from vito_mm.transfer.runner import PlanError, SuiteError  # noqa: E402
from vito_mm.transfer.tasks import TASKS  # noqa: E402

OTHERS = 'report.csv of other seeds of the same study, from another machine, for the report'


def main() -> int:
    """Parse the command line, run the study and write its report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--preset', choices=PRESETS, default='cpu', help='how large (default: cpu)')
    add('--work-dir', type=Path, help='folder of the study (work_dirs/study_PRESET)')
    add('--data', type=Path, help='folder of MiniScenes, made if need be (data/WORLD)')
    add('--rows', nargs='*', help=f"rows to pre-train (default: the preset's): {' '.join(ROWS)}")
    add('--transfer-rows', nargs='*', help="rows to transfer as well (default: the preset's)")
    add('--tasks', nargs='+', choices=[*TASKS], help="default: the preset's")
    add('--seeds', type=int, help="number of seeds of each row (default: the preset's)")
    add('--first-seed', type=int, default=0, help='the first of them (default: 0)')
    add('--others', nargs='*', type=Path, default=[], metavar='CSV', help=OTHERS)
    add('--amp', action='store_true', help='pre-train in bfloat16 on a CPU too, for those with AMX')
    add('--jobs', type=int, help='parallel runs (default: one per GPU, or per core without any)')
    add('--report-only', action='store_true', help='write the report of what is there')
    args = parser.parse_args()

    preset = PRESETS[args.preset]
    study = Study(
        repo=REPO,
        work_dir=args.work_dir or Path('work_dirs') / f'study_{args.preset}',
        data=args.data or Path('data') / preset.folder,
        preset=preset,
        rows=preset.rows if args.rows is None else args.rows,
        transfer_rows=preset.transfer_rows if args.transfer_rows is None else args.transfer_rows,
        tasks=args.tasks or preset.tasks,
        seeds=args.seeds or preset.seeds,
        jobs=args.jobs or jobs_of_machine(),
        first_seed=args.first_seed,
        amp=args.amp,
    )
    try:
        others = read_scores(args.others)
        if not args.report_only:
            run_study(study, shlex.join(['benchmarks/study.py', *sys.argv[1:]]))
        print(f'Report: {write_report(study, others)}')
    except (StudyError, JobError, PlanError, SuiteError) as error:
        print(f'benchmarks/study.py: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('Stopped; the same command goes on from here.', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
