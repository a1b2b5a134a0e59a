"""The four tasks of the paper's transfer table."""

from dataclasses import dataclass

RANDOM = 'random'
"""Name of random weights on command lines and in tables."""

PROTOCOLS = ('paper', 'stock', 'miniscenes')
"""The paper's schedules, the libraries' usual ones, and the demo's on the embedded data."""


@dataclass(frozen=True)
class Task:
    """A task of the table.

    Attributes:
        name (str): Name on the command line.
        title (str): Name in tables.
        package (str): OpenMMLab package that trains it, ``'mmseg'`` or ``'mmdet'``.
        metric (str): Name under which the package logs the metric.
        label (str): Name of the metric in tables.
        scale (float): Factor from the logged value to percent.
    """

    name: str
    title: str
    package: str
    metric: str
    label: str
    scale: float

    @property
    def configs(self) -> dict[str, str]:
        """Config of each of :data:`PROTOCOLS`, relative to ``configs``."""
        kind = self.package.removeprefix('mm')
        return dict(
            paper=f'{kind}/vito_{self.name}.py',
            stock=f'{kind}/vito_{self.name}_stock.py',
            miniscenes=f'miniscenes/{kind}_{self.name}.py',
        )


TASKS = {
    task.name: task
    for task in (
        Task('pascal', 'PASCAL VOC', 'mmseg', 'mIoU', 'mIoU', 1.0),
        Task('ade20k', 'ADE20K', 'mmseg', 'mIoU', 'mIoU', 1.0),
        Task('coco', 'COCO', 'mmdet', 'coco/bbox_mAP', 'box mAP', 100.0),
        Task('lvis', 'LVIS', 'mmdet', 'lvis/bbox_AP', 'box mAP', 100.0),
    )
}
"""Tasks by name, in the order of the paper's table."""
