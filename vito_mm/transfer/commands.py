"""The commands of a transfer suite's runs, as a user would type them."""

import os
import shlex
import sys
from pathlib import Path

from .options import SuiteOptions
from .plan import PlannedRun


def training_command(options: SuiteOptions, planned: PlannedRun) -> list[str]:
    """The command of a run, as a user would type it.

    Args:
        options (SuiteOptions): Launcher, GPUs and where the tools are.
        planned (PlannedRun): The run.

    Returns:
        list[str]: Command and arguments.
    """
    tools, folder = options.repo / 'tools', str(planned.run.work_dir)
    config, rest = str(planned.config), planned.arguments()
    if options.launcher == 'slurm':
        words = [options.partition, 'vito_transfer', config, folder]
        return ['bash', str(tools / 'slurm_train.sh'), *words, *rest]
    rest = ['--work-dir', folder, *rest]
    if options.gpus_per_run > 1:
        script = str(tools / 'dist_train.sh')
        return ['bash', script, config, str(options.gpus_per_run), *rest]
    return [sys.executable, str(tools / 'train.py'), config, *rest]


def evaluation_command(options: SuiteOptions, planned: PlannedRun, checkpoint: Path) -> list[str]:
    """The command that evaluates the last checkpoint of a run.

    Args:
        options (SuiteOptions): Launcher, GPUs and where the tools are.
        planned (PlannedRun): The run.
        checkpoint (Path): Its last checkpoint.

    Returns:
        list[str]: Command and arguments.
    """
    tools = options.repo / 'tools'
    words = [str(planned.config), str(checkpoint)]
    rest = ['--work-dir', str(planned.run.work_dir), *planned.arguments()[1:]]  # no --resume
    if options.launcher != 'slurm' and options.gpus_per_run > 1:
        script = str(tools / 'dist_test.sh')
        return ['bash', script, *words, str(options.gpus_per_run), *rest]
    return [*srun_prefix(options), sys.executable, str(tools / 'test.py'), *words, *rest]


def srun_prefix(options: SuiteOptions) -> list[str]:
    """What stands before a command on one GPU under Slurm.

    Args:
        options (SuiteOptions): Launcher and partition.

    Returns:
        list[str]: Words; none without Slurm.
    """
    if options.launcher != 'slurm':
        return []
    words = [f'--partition={options.partition}', '--gres=gpu:1', '--ntasks=1']
    return ['srun', *words, *shlex.split(options.srun_args)]


def environment(options: SuiteOptions) -> dict[str, str]:
    """Variables that the shell scripts of ``tools`` read.

    Args:
        options (SuiteOptions): Launcher and GPUs.

    Returns:
        dict[str, str]: Values by name.
    """
    if options.launcher == 'slurm':
        gpus = options.gpus_per_run
        return {
            'PYTHON': sys.executable,
            'GPUS': str(gpus),
            'GPUS_PER_NODE': os.environ.get('GPUS_PER_NODE', str(min(8, gpus))),
            'SRUN_ARGS': options.srun_args,
        }
    return {'PYTHON': sys.executable} if options.gpus_per_run > 1 else {}
