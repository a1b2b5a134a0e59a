"""Tasks of fine-tuning: the four of the paper's transfer table, their variants, and users' own."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

RANDOM = 'random'
"""Name of random weights on command lines and in tables."""

PROTOCOLS = ('paper', 'stock', 'miniscenes')
"""The paper's schedules, the libraries' usual ones, and the demo's on the embedded data."""

PROTOCOL_TASKS = dict(
    upernet_ade20k='ADE20K, UperNet',
    linear_ade20k='ADE20K, linear',
    upernet_cityscapes='Cityscapes, UperNet',
    linear_cityscapes='Cityscapes, linear',
    upernet_bdd100k='BDD100K, UperNet',
    linear_bdd100k='BDD100K, linear',
    faster_rcnn_bdd100k='BDD100K, Faster R-CNN',
)
"""Titles of further tasks, which are the configs of their names in ``configs/protocols``. They run
where they are named, and not by default."""

ARCHITECTURES = dict(r50='ResNet-50', swin_s='Swin-S')
"""Networks of the paper, for which there are configs, by the name in these. The second has those of
the paper's protocol only."""


@dataclass(frozen=True)
class Task:
    """A task of the table: one of :data:`TASKS`, a config of the user, or a variant of either."""

    name: str  # on the command line
    title: str  # in tables
    package: str  # of OpenMMLab that trains it, 'mmseg' or 'mmdet'
    metric: str  # as the package logs it
    label: str  # of the metric in tables
    scale: float  # from the logged value to percent
    config: str = ''  # the user's; empty for a task of the paper
    also: tuple[str, ...] = ()  # further metrics for the table, as logged
    labels: float = 100.0  # percent of the labelled training images
    frozen: bool = False  # the backbone is not trained

    @property
    def configs(self) -> dict[str, str]:
        """Config of each of :data:`PROTOCOLS` with a ResNet, relative to ``configs``."""
        kind = self.package.removeprefix('mm')
        return dict(
            paper=f'{kind}/vito_{self.name}.py',
            stock=f'{kind}/vito_{self.name}_stock.py',
            miniscenes=f'miniscenes/{kind}_{self.name}.py',
        )

    def config_for(self, protocol: str, architecture: str) -> str:
        """Config of a protocol for one of :data:`ARCHITECTURES`; empty where there is none."""
        if architecture == 'r50':
            return self.configs[protocol]
        kind = self.package.removeprefix('mm')
        return f'{kind}/vito_{architecture}_{self.name}.py' if protocol == 'paper' else ''

    @property
    def base(self) -> str:
        """Name without a variant's addition."""
        return self.name.partition('@')[0]

    def variant(self, labels: float = 100.0, frozen: bool = False) -> 'Task':
        """The task with a frozen backbone, a part of the labels (in percent), or both."""
        name, title = self.name, self.title
        if frozen:
            name, title = f'{name}@frozen', f'{title}, frozen backbone'
        if labels != 100:
            name, title = f'{name}@{labels:g}%', f'{title}, {labels:g} % of labels'
        return replace(self, name=name, title=title, labels=labels, frozen=frozen)

    def record(self) -> str | dict[str, Any]:
        """Description for JSON, of which :meth:`from_record` makes the task again."""
        return self.name if TASKS.get(self.name) == self else asdict(self)

    @classmethod
    def from_record(cls, record: str | Mapping[str, Any]) -> 'Task | None':
        """Read a description; None for a name that is none of :data:`TASKS`."""
        if isinstance(record, Mapping):
            return cls(**dict(record, also=tuple(record.get('also', ()))))
        return TASKS.get(record)


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
