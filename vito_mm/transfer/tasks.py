"""The four tasks of the paper's transfer table, and one fine-tuning run of a comparison."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RANDOM = 'random'
"""What stands for random weights on command lines and in tables."""

PROTOCOLS = ('paper', 'stock', 'miniscenes')
"""The paper's schedules, the libraries' usual ones, and the demo's on the embedded data."""


@dataclass(frozen=True)
class Task:
    """A task of the table.

    Attributes:
        name (str): What the command line calls it.
        title (str): What tables call it.
        package (str): OpenMMLab package that trains it, ``'mmseg'`` or ``'mmdet'``.
        metric (str): Name under which the package logs the metric.
        label (str): What tables call the metric.
        scale (float): Factor from the logged value to percent.
        configs (Mapping[str, str]): Config of each of :data:`PROTOCOLS`, relative to ``configs``.
    """

    name: str
    title: str
    package: str
    metric: str
    label: str
    scale: float
    configs: Mapping[str, str]


TASKS = {
    task.name: task
    for task in (
        Task(
            'pascal',
            'PASCAL VOC',
            'mmseg',
            'mIoU',
            'mIoU',
            1.0,
            dict(
                paper='seg/vito_pascal.py',
                stock='seg/vito_pascal_stock.py',
                miniscenes='miniscenes/seg_pascal.py',
            ),
        ),
        Task(
            'ade20k',
            'ADE20K',
            'mmseg',
            'mIoU',
            'mIoU',
            1.0,
            dict(
                paper='seg/vito_ade20k.py',
                stock='seg/vito_ade20k_stock.py',
                miniscenes='miniscenes/seg_ade20k.py',
            ),
        ),
        Task(
            'coco',
            'COCO',
            'mmdet',
            'coco/bbox_mAP',
            'box mAP',
            100.0,
            dict(
                paper='det/vito_coco.py',
                stock='det/vito_coco_stock.py',
                miniscenes='miniscenes/det_coco.py',
            ),
        ),
        Task(
            'lvis',
            'LVIS',
            'mmdet',
            'lvis/bbox_AP',
            'box mAP',
            100.0,
            dict(
                paper='det/vito_lvis.py',
                stock='det/vito_lvis_stock.py',
                miniscenes='miniscenes/det_lvis.py',
            ),
        ),
    )
}
"""Tasks by name, in the order of the paper's table."""


@dataclass(frozen=True)
class Run:
    """One fine-tuning of a comparison.

    Attributes:
        task (Task): What is learnt.
        label (str): What tables call the checkpoint; ``'random'`` for random weights.
        checkpoint (Path, optional): File to start from, None for random weights.
        settings (tuple[tuple[str, float | int | str], ...]): Point of the sweep, as pairs of name
            and value, such as ``(('lr', 0.01), ('wd', 0.0005))``. Empty without a sweep.
        seed (int): Seed of the run.
        work_dir (Path): Folder of its logs and checkpoints.
    """

    task: Task
    label: str
    checkpoint: Path | None
    settings: tuple[tuple[str, float | int | str], ...]
    seed: int
    work_dir: Path


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        run (Run): The run.
        state (str): ``'finished'``, ``'failed'``, or ``'waiting'`` where it has not ended yet.
        score (float, optional): The task's metric in percent, None unless finished.
        metrics (dict[str, float]): Everything that the last evaluation logged.
        seconds (float): How long the run took.
        message (str): Why it failed.
        conditions (dict): What :func:`vito_mm.utils.provenance.conditions` returned when it
            ended; what was not recorded is not in it.
    """

    run: Run
    state: str
    score: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    message: str = ''
    conditions: dict[str, Any] = field(default_factory=dict)
