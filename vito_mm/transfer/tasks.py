"""The four tasks of the paper's transfer table."""

from dataclasses import dataclass

RANDOM = 'random'
"""Name of random weights on command lines and in tables."""

PROTOCOLS = ('paper', 'stock', 'miniscenes')
"""The paper's schedules, the libraries' usual ones, and the demo's on the embedded data."""


@dataclass(frozen=True)
class Task:
    """A task of the table."""

    name: str  # on the command line
    title: str  # in tables
    package: str  # of OpenMMLab that trains it, 'mmseg' or 'mmdet'
    metric: str  # as the package logs it
    label: str  # of the metric in tables
    scale: float  # from the logged value to percent

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
