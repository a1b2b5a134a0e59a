"""A fine-tuning run and its folder: how it starts, what it logged, what became of it.

MMEngine leaves its logs, config and checkpoints in the folder. The suite adds ``run.json``, written
at every start, and ``result.json``, written once, when the run has finished or failed.
"""

import math
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vito_mm.transfer.options import SuiteOptions, setting_words
from vito_mm.transfer.run_folder import dumped_config, last_checkpoint, read_json, scalars
from vito_mm.transfer.tasks import RANDOM, Task
from vito_mm.utils.atomic import write_json

if TYPE_CHECKING:
    from mmengine.config import Config

_NO_BOX = 'The testing results of the whole dataset is empty'
"""Log line of mmdet in the place of a metric when not a single box was found."""

_NO_METRICS = {'step', 'iter', 'epoch', 'time', 'data_time', 'memory', 'lr', 'base_lr'}


@dataclass
class Outcome:
    """State of a run.

    Attributes:
        run (Run): The run.
        state (str): ``'finished'``, ``'failed'``, or ``'waiting'`` where it has not ended yet.
        score (float, optional): The task's metric in percent, None unless finished.
        metrics (dict[str, float]): Everything that the last evaluation logged.
        seconds (float): Duration of all starts.
        message (str): Reason of a failure, or a note on the score.
        conditions (dict): :func:`vito_mm.utils.provenance.conditions` of its end, where recorded.
        data (dict, optional): Identity of its data at its end, where recorded.
    """

    run: 'Run'
    state: str
    score: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    message: str = ''
    conditions: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] | None = None


@dataclass
class Run:
    """One fine-tuning of a comparison.

    Attributes:
        task (Task): Task that is learnt.
        label (str): Name of the checkpoint in tables; ``'random'`` for random weights.
        checkpoint (Path, optional): File to start from, None for random weights.
        settings (tuple[tuple[str, float | int | str], ...]): Point of the sweep, as pairs of name
            and value, such as ``(('lr', 0.01), ('wd', 0.0005))``. Empty without a sweep.
        seed (int): Seed of the run.
        work_dir (Path): Folder of its logs and checkpoints.
        config_file (Path): Config; like the following only known while the run is planned.
        cfg_options (dict[str, str]): Settings for ``--cfg-options``, as text by key.
        fingerprint (str): Hash of the resolved config, the checkpoint's content and the seed.
        checkpoint_sha256 (str): Hash of the checkpoint's content alone.
        identity (dict): Part of the resolved config that goes into the fingerprint.
        max_epochs (int): Epochs of an epoch-based config, else 1.
        chosen (dict[str, str], optional): Settings of the user in ``--cfg-options``, as text by
            key; None for a run of a version that did not record them.
    """

    task: Task
    label: str
    checkpoint: Path | None
    settings: tuple[tuple[str, float | int | str], ...]
    seed: int
    work_dir: Path
    config_file: Path = field(default=Path(), repr=False)
    cfg_options: dict[str, str] = field(default_factory=dict, repr=False)
    fingerprint: str = field(default='', repr=False)
    checkpoint_sha256: str = field(default=RANDOM, repr=False)
    identity: dict = field(default_factory=dict, repr=False)
    max_epochs: int = 1
    chosen: dict[str, str] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Name in messages, such as ``pascal/vito/lr0.01/seed0``."""
        return '/'.join(self.work_dir.parts[-4:])

    @property
    def is_finished(self) -> bool:
        """Whether it has its result. A run that failed has not."""
        return self._result().get('state') == 'finished'

    def command(self, options: SuiteOptions, evaluate: Path | None = None) -> list[str]:
        """Command that trains it, or evaluates a checkpoint of it, as a user would type it."""
        tools, gpus = options.repo / 'tools', options.gpus_per_run
        words = [str(self.config_file), *([str(evaluate)] if evaluate else [])]
        rest = ['--validation' if evaluate else '--resume']
        rest += ['--cfg-options', *setting_words(self.cfg_options)]
        if options.launcher == 'slurm' and not evaluate:
            script = str(tools / 'slurm_train.sh')
            place = [options.partition, 'vito_transfer', *words, str(self.work_dir)]
            return ['bash', script, *place, *rest]
        rest = ['--work-dir', str(self.work_dir), *rest]
        name = 'test' if evaluate else 'train'
        if options.launcher != 'slurm' and gpus > 1:
            return ['bash', str(tools / f'dist_{name}.sh'), *words, str(gpus), *rest]
        return [*options.srun(), sys.executable, str(tools / f'{name}.py'), *words, *rest]

    def record(self) -> dict[str, Any]:
        """Description for JSON; :meth:`from_record` reads it."""
        return dict(
            task=self.task.record(),
            label=self.label,
            checkpoint=self.checkpoint and str(self.checkpoint.absolute()),
            settings=self.settings,
            seed=self.seed,
            chosen=self.chosen,
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any], folder: Path) -> 'Run | None':
        """Read a description; None if it is of a task that does not exist (any more)."""
        if (task := Task.from_record(record.get('task'))) is None:
            return None
        checkpoint = record['checkpoint'] and Path(record['checkpoint'])
        settings = tuple((name, value) for name, value in record['settings'])
        known = task, record['label'], checkpoint, settings, record['seed'], folder
        return cls(*known, chosen=record.get('chosen'))

    def status(self) -> Outcome:
        """State of the run, read from its folder."""
        result = self._result()
        known = {
            key: result[key]
            for key in ('score', 'metrics', 'seconds', 'message', 'data')
            if key in result
        }
        facts = {key: result[key] for key in ('machine', 'versions', 'git') if key in result}
        outcome = Outcome(self, result.get('state', 'waiting'), **known, conditions=facts)
        # The metric of a config of a user is that of `save_best`, which changes no run.
        if outcome.state == 'finished' and outcome.metrics:
            metric = self.task.metric
            if metric in outcome.metrics:
                outcome.score = outcome.metrics[metric] * self.task.scale
            else:
                outcome.state, outcome.score = 'failed', None
                outcome.message = f'its evaluation logged no {metric}'
        return outcome

    def config(self) -> 'Config':
        """The config with which it was started; see :func:`dumped_config`."""
        return dumped_config(self.work_dir)

    def scores(self, output: str, tested: bool = False) -> tuple[dict[str, float], str] | None:
        """Metrics, and a note, of the evaluation after the last step or of ``tools/test.py``.

        Args:
            output (str): End of what the command printed.
            tested (bool): The command was ``tools/test.py``. Defaults to False.

        Returns:
            tuple[dict[str, float], str], optional: None for a run that was killed while it
            evaluated: resumed from its last checkpoint it does not evaluate.
        """
        metric, found = self.task.metric, None
        if tested:
            files = [f for f in self.work_dir.glob('*/*.json') if f.stem == f.parent.name]
            found = read_json(max(files, default=Path()))
            position = -1
        else:
            lines = scalars(self.work_dir)
            later = lines[max((i for i, line in enumerate(lines) if 'loss' in line), default=0) :]
            found = next((line for line in reversed(later) if metric in line), None)
            position = max(output.rfind('Iter(train)'), output.rfind('Epoch(train)'))
        if found and metric in found:
            numbers = (item for item in found.items() if isinstance(item[1], (int, float)))
            return {key: value for key, value in numbers if key not in _NO_METRICS}, ''
        if output.rfind(_NO_BOX) > position:
            return {metric: 0.0}, 'not a single box was found, which counts as 0'
        return None

    def diverged_at(self) -> int | None:
        """The first logged step from which on no loss was finite; None if the last one was."""
        step = None
        for line in reversed(scalars(self.work_dir)):
            if 'loss' in line:
                if math.isfinite(line['loss']):
                    break
                step = line['step']
        return step

    def seconds(self) -> float:
        """Duration of all starts, including those that were killed."""
        record, log = self.started(), self.work_dir / 'console.log'
        if record.get('fingerprint') != self.fingerprint or not log.exists():
            return 0.0
        return record['seconds'] + max(0.0, log.stat().st_mtime - record['started'])

    def belongs_elsewhere(self) -> bool:
        """Whether its folder holds results of another config or checkpoint.

        A folder without a checkpoint has nothing to lose.
        """
        worth_keeping = self.is_finished or any(self.work_dir.glob('*.pth'))
        return worth_keeping and self.started().get('fingerprint') != self.fingerprint

    def saved_bytes(self) -> int:
        """Size of the checkpoints that it has on the disk."""
        return sum(file.stat().st_size for file in self.work_dir.glob('*.pth'))

    def note_start(self, options: SuiteOptions, command: Sequence[str]) -> None:
        """Write ``run.json`` and ``command.sh``, the command as a user would type it."""
        seconds = self.seconds()
        (self.work_dir / 'result.json').unlink(missing_ok=True)  # a failure that is tried again
        text, folder = shlex.join(command), os.getcwd()
        content = dict(
            **self.record(),
            protocol=options.protocol,
            fingerprint=self.fingerprint,
            checkpoint_sha256=self.checkpoint_sha256,
            command=text,
            folder=folder,
            seconds=seconds,
            started=time.time(),
        )
        write_json(self.work_dir / 'run.json', content, default=str)
        variables = [f'{key}={shlex.quote(v)}' for key, v in options.environment().items()]
        script = f'cd {shlex.quote(folder)}\n{" ".join([*variables, text])}\n'
        (self.work_dir / 'command.sh').write_text(script)

    def note_end(self, outcome: Outcome, command: Sequence[str], **more: Any) -> None:
        """Write ``result.json``, with further entries."""
        content = dict(
            state=outcome.state,
            score=outcome.score,
            metrics=outcome.metrics,
            seconds=round(outcome.seconds, 1),
            message=outcome.message,
            data=outcome.data,
            fingerprint=self.fingerprint,
            command=shlex.join(command),
            folder=os.getcwd(),
            **outcome.conditions,
        )
        write_json(self.work_dir / 'result.json', content | more, default=str)

    def write_without_optimizer(self) -> Path | None:
        """Write the last checkpoint, if any, without what only resuming needs, next to it.

        :meth:`finish_shrinking` puts it in the place of the complete one.
        """
        import torch

        if (file := last_checkpoint(self.work_dir)) is None:
            return None
        # Written by this run itself; MMEngine's history of the losses is no plain tensor.
        content = torch.load(str(file), map_location='cpu', weights_only=False, mmap=True)
        small = file.with_name(f'{file.name}.small')
        try:
            torch.save({key: content[key] for key in ('meta', 'state_dict')}, small)
        except BaseException:
            small.unlink(missing_ok=True)
            raise
        return small

    def finish_shrinking(self) -> None:
        """Replace the complete checkpoint, also where a kill came in between."""
        for small in self.work_dir.glob('*.pth.small'):
            os.replace(small, small.with_suffix(''))

    def started(self) -> dict[str, Any]:
        """Content of ``run.json``, empty before the first start."""
        return read_json(self.work_dir / 'run.json') or {}

    def _result(self) -> dict[str, Any]:
        return read_json(self.work_dir / 'result.json') or {}


def runs_in(work_dir: Path, first: Sequence[Run] = ()) -> list[Run]:
    """List the runs of a suite: the given ones, then all others that were planned in the folder."""
    runs = {run.work_dir: run for run in first}
    for entry in (read_json(work_dir / 'suite.json') or {}).get('runs', []):
        folder = work_dir / entry['folder']
        if folder not in runs and (run := Run.from_record(entry, folder)):
            runs[folder] = run
    return list(runs.values())
