"""A transfer suite whose trainings are small scripts, for its state and not for its results.

Run as a script it is the suite of a folder: ``python fake_suite.py FOLDER NAME=BEHAVIOUR,... ...``.
"""

import json
import os
import sys
from pathlib import Path

from vito_mm.transfer import runner as suite
from vito_mm.transfer.checks import suite_problems
from vito_mm.transfer.options import SuiteOptions
from vito_mm.transfer.plan import Plan, PlanError
from vito_mm.transfer.run import Run
from vito_mm.transfer.tasks import TASKS

TRAIN = """
import json, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index('--work-dir') + 1])
is_test = sys.argv[0].endswith('test.py')
told = [arg for arg in sys.argv if arg.startswith('behaviours=')][0].split('=')[1].split('+')
tries = folder / 'tries'
number = len(tries.read_text()) if tries.exists() else 0
tries.write_text('x' * (number + 1))
what = told[min(number, len(told) - 1)]

def log(*lines):
    file = folder / f'2026010{number + 1}_000000' / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(''.join(json.dumps(line) + chr(10) for line in lines))

print('what:', what, 'resume:', '--resume' in sys.argv, flush=True)
print('device:', os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True)
train = dict(loss=1.0, step=10, iter=10)
if what == 'ok' and is_test:
    (folder / '20260109_000000').mkdir()
    (folder / '20260109_000000' / '20260109_000000.json').write_text('{"mIoU": 44.0}')
elif what == 'ok':
    log(train, dict(mIoU=40.0, aAcc=70.0, step=10, time=0.1))
elif what == 'crash':
    print('Iter(train) [ 3/10]')
    sys.exit('the data worker died')
elif what == 'full':
    sys.exit('OSError: [Errno 28] No space left on device')
elif what == 'memory':
    sys.exit('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB')
elif what == 'diverged':
    log(dict(train, loss=float('nan')))
    sys.exit('cost matrix holds nan')
elif what == 'nan':
    log(dict(train, loss=float('nan')), dict(mIoU=2.0, step=10))
elif what == 'unevaluated':
    log(dict(mIoU=30.0, step=5), train)
    (folder / 'iter_10.pth').write_text('')
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_10.pth'))
elif what == 'boxless':
    log(train)
    print('Iter(train) [10/10]')
    print('The testing results of the whole dataset is empty.')
elif what == 'hang':
    print('Iter(train) [ 5/10]', flush=True)
    (folder / 'iter_5.pth').write_text('')
    (folder / 'hanging').write_text(str(os.getpid()))
    time.sleep(600)
else:
    raise ValueError(what)
"""


def make_plan(root: Path, behaviours: dict[str, str], places: int = 1, **options) -> Plan:
    """A plan of runs that behave as told.

    Args:
        root: Folder of the suite and of its scripts.
        behaviours: What each label does at its starts, parted by ``+``.
        places: Runs side by side.
        **options: Further options of the suite.

    Returns:
        Plan: The plan.
    """
    tools = root / 'repo' / 'tools'
    tools.mkdir(parents=True, exist_ok=True)
    for name in ('train.py', 'test.py'):
        (tools / name).write_text(TRAIN)
    work_dir = root / 'suite'
    options = SuiteOptions(root / 'repo', ['random'], work_dir=work_dir, **options)
    plan = Plan(options, places=[{'CUDA_VISIBLE_DEVICES': str(i)} for i in range(places)])
    plan.run_bytes = dict(pascal=(1, 1))
    for label, behaviour in behaviours.items():
        folder = work_dir / 'runs' / 'pascal' / label / 'default' / 'seed0'
        run = Run(TASKS['pascal'], label, None, (), 0, folder, Path('config.py'))
        run.cfg_options, run.fingerprint = dict(behaviours=behaviour), f'print of {label}'
        plan.runs.append(run)
    return plan


def run_suite(plan: Plan, command: str = 'tools/transfer.py --same') -> int:
    """The suite of a plan, with a report that lists states."""

    def make_plan(options: SuiteOptions) -> Plan:
        if problems := list(suite_problems(options, plan.runs)):
            raise PlanError(problems)
        return plan

    suite.make_plan = make_plan

    def report(work_dir: Path, plan: Plan) -> None:
        states = {o.run.label: o.state for o in suite.outcomes_in(work_dir, plan)}
        (work_dir / 'report.json').write_text(json.dumps(states))

    suite.report = report
    return suite.run_suite(plan.options, command, estimate=False)


if __name__ == '__main__':
    sys.executable = os.environ['PYTHON']  # runs are children, which forked ones would not be
    told = dict(word.split('=') for word in sys.argv[2:])
    sys.exit(run_suite(make_plan(Path(sys.argv[1]), told, int(os.environ.get('PLACES', 1)))))
