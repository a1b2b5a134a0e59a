"""Tests that make up an evaluation, each with its section, its figures and what is published.

Published figures are data of the module that computes the test; here they get their place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vito_mm.probes import davis, incontext, segmentation, video_classifier
from vito_mm.transfer.report.results import Result
from vito_mm.transfer.tasks import ARCHITECTURES, PROTOCOL_TASKS, TASKS

from . import published as fine_tuned

SECTIONS = (
    'Fine-tuned',
    'Frozen features, dense',
    'Frozen features, global',
    'Robustness',
    'Video',
    'Others',
)
"""In the order of the report."""

CEILING = 'DINOv3'
"""Begins the names of networks that are the ceiling: larger data, or networks, than any other's."""


@dataclass(frozen=True)
class Published:
    """Published figures of a metric.

    Attributes:
        title (str): Heading of their table; those with the same one share it.
        data (str): Data set, as :class:`.data_identity.DataIdentity` names it.
        metric (str): Column of the test.
        rows (Mapping[str, float]): Figures by method.
        source (str): Where they are published, and by which protocol.
        settings (Mapping): Settings of results that they can stand next to. Defaults to none.
        network (str): Begins the names of networks that they can stand next to. Defaults to any.
    """

    title: str
    data: str
    metric: str
    rows: Mapping[str, float]
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    network: str = ''

    def mismatch(self, result: Result) -> str:
        """Say why a result is not of this protocol; empty where it is."""
        if result.data.name != self.data:
            return 'other data'
        chosen = {name: value for name, value in result.settings.items() if name != 'config'}
        if chosen != dict(self.settings):  # of a config the data count
            return 'other settings'
        return '' if result.network.name.startswith(self.network) else 'other network'


@dataclass(frozen=True)
class KnownTest:
    """A test of an evaluation.

    Attributes:
        name (str): Sub-command of ``tools/probe.py``, or task of ``tools/transfer.py``.
        title (str): In tables.
        section (str): One of :data:`SECTIONS`.
        command (str): Words that run it, ``CHECKPOINTS`` for the weights.
        metrics (tuple[str, ...]): Columns that the report shows; all if empty.
        published (tuple[Published, ...]): Published figures.
        for_random (bool): Random weights can be tested. Defaults to True.
        is_trained (bool): The size of a batch decides the figures. Defaults to False.
    """

    name: str
    title: str
    section: str
    command: str
    metrics: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    for_random: bool = True
    is_trained: bool = False


def _of_task(name: str) -> KnownTest:
    task, paper = TASKS[name], []
    for architecture, network in ARCHITECTURES.items():
        rows = {}
        for row in fine_tuned.PUBLISHED[architecture]:
            epochs = row.epochs and f'{row.epochs} epochs'
            rows[', '.join(filter(None, (row.method, row.data, epochs)))] = row.scores[name]
        source = f'{fine_tuned.SOURCE}, --protocol paper'
        title = f'Fine-tuned, {network}'
        paper.append(
            Published(
                *(title, task.title, task.label, rows, source, dict(protocol='paper'), network)
            )
        )
    command = f'tools/transfer.py --checkpoints CHECKPOINTS --tasks {name}'
    return KnownTest(
        name, task.title, SECTIONS[0], command, (task.label,), tuple(paper), is_trained=True
    )


def _of_protocol(name: str) -> KnownTest:
    title = PROTOCOL_TASKS[name]
    data, section = title.partition(',')[0], SECTIONS[name.startswith('linear_')]
    metric = 'box mAP' if name.startswith('faster_rcnn_') else 'mIoU'
    rows = [row for row in fine_tuned.PROTOCOL_PUBLISHED if name in row.scores]
    published = []
    for network in dict.fromkeys(row.network for row in rows):
        of_network = [row for row in rows if row.network == network]
        scores = {f'{row.method}, {row.data}': row.scores[name] for row in of_network}
        source = '; '.join(dict.fromkeys(row.source for row in of_network))
        heading = f'{title}, {network}'
        published.append(Published(heading, data, metric, scores, source, network=network))
    command = f'tools/transfer.py --checkpoints CHECKPOINTS --tasks {name}'
    return KnownTest(name, title, section, command, (metric,), tuple(published), is_trained=True)


_DAVIS = ('J&F', 'J mean', 'F mean')
_SEGMENTATION = 'tools/probe.py {} CHECKPOINTS --config configs/seg/vito_{}_stock.py'
_IMAGES = 'tools/probe.py {} CHECKPOINTS --data /data/images'

PROBES = (
    KnownTest(
        *('segment', 'Linear segmentation', SECTIONS[1]),
        _SEGMENTATION.format('segment', 'pascal'),
        ('mIoU',),
        is_trained=True,
    ),
    KnownTest(
        *('linear-segmentation', "Linear segmentation, DINOv3's recipe", SECTIONS[1]),
        _SEGMENTATION.format('linear-segmentation', 'ade20k'),
        ('mIoU',),
        (
            Published(
                *("Linear segmentation, DINOv3's recipe", 'ADE20K', 'mIoU'),
                segmentation.PUBLISHED,
                "https://arxiv.org/abs/2508.10104; ResNet-50, by PooDLe's own schedule: "
                'https://arxiv.org/abs/2408.11208',
            ),
        ),
        is_trained=True,
    ),
    KnownTest(
        *('incontext', 'In-context segmentation', SECTIONS[1]),
        _SEGMENTATION.format('incontext', 'pascal'),
        ('mIoU',),
        (
            Published(
                *('In-context segmentation', 'PASCAL VOC', 'mIoU', incontext.PUBLISHED),
                'https://github.com/vpariza/open-hummingbird-eval',
            ),
        ),
    ),
    KnownTest('knn', 'Nearest neighbours', SECTIONS[2], _IMAGES.format('knn'), ('top-1',)),
    KnownTest(
        *('linear', 'Linear classifier', SECTIONS[2], _IMAGES.format('linear')),
        ('top-1', 'top-5'),
    ),
    KnownTest(
        *('classify', 'Classifier of the file', SECTIONS[2], _IMAGES.format('classify')),
        ('top-1', 'top-5'),
        for_random=False,
    ),
    KnownTest(
        *('robustness', 'Robustness of a classifier', SECTIONS[3]),
        'tools/probe.py robustness CHECKPOINTS --imagenet-a /data/imagenet-a --head HEADS',
    ),
    KnownTest(
        *('davis', 'Video object segmentation', SECTIONS[4]),
        'tools/probe.py davis CHECKPOINTS --data /data/DAVIS',
        _DAVIS,
        tuple(
            Published(
                *('Video object segmentation', 'DAVIS 2017', metric, rows),
                'https://arxiv.org/abs/2210.06433; VFS: https://arxiv.org/abs/2103.17263; DINOv3, '
                'by the protocol of its authors: https://arxiv.org/abs/2508.10104',
            )
            for metric, rows in (
                (
                    'J&F',
                    {name: (j + f) / 2 for name, (j, f) in davis.PUBLISHED.items()} | davis.CEILING,
                ),
                ('J mean', {name: j for name, (j, _) in davis.PUBLISHED.items()}),
                ('F mean', {name: f for name, (_, f) in davis.PUBLISHED.items()}),
            )
        ),
    ),
    KnownTest(
        *('ucf101', 'Action recognition, fine-tuned', SECTIONS[4]),
        'tools/probe.py ucf101 CHECKPOINTS --data /data/ucf101',
        ('top-1',),
        (
            Published(
                *('Action recognition, fine-tuned', 'UCF101', 'top-1'),
                video_classifier.PUBLISHED,
                'https://arxiv.org/abs/2210.06433, table 3, split 1',
            ),
        ),
        is_trained=True,
    ),
)

KNOWN: dict[tuple[str, str], KnownTest] = {
    **{('transfer', name): _of_task(name) for name in TASKS},
    **{('transfer', name): _of_protocol(name) for name in PROTOCOL_TASKS},
    **{('probe', test.name): test for test in PROBES},
}
"""Tests by tool and name, in the order of the report."""


def known_test(result: Result) -> KnownTest:
    """The test of a result; one that is not known shows all of its figures."""
    section = SECTIONS[0] if result.tool == 'transfer' else SECTIONS[-1]
    other = KnownTest(result.test, result.title, section, '')
    return KNOWN.get((result.tool, result.test), other)
