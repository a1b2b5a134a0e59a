"""Scores of the paper for the four tasks, and of others, for comparison with own runs."""

from collections.abc import Mapping
from dataclasses import dataclass

from vito_mm.transfer.tasks import TASKS

SOURCE = 'arXiv:2210.06433'
"""Parthasarathy et al., Self-supervised video pretraining yields strong image representations."""


@dataclass(frozen=True)
class PublishedRow:
    """Pre-training, with scores in percent by the name of the task."""

    method: str
    data: str
    epochs: int | None
    scores: Mapping[str, float]
    network: str = ''  # empty for that of the table
    source: str = SOURCE


def _row(method: str, data: str, epochs: int | None, *scores: float) -> PublishedRow:
    return PublishedRow(method, data, epochs, dict(zip(TASKS, scores, strict=True)))


PUBLISHED = dict(
    r50=(
        _row('random init', '', None, 53.0, 27.9, 39.0, 21.1),
        _row('VFS', 'K400', 100, 63.9, 31.4, 41.6, 23.2),
        _row('VIVI', 'YT8M', 192, 65.8, 34.2, 41.3, 23.2),
        _row('VINCE', 'R2V2', 200, 69.0, 35.7, 42.4, 24.4),
        _row('CycleContrast', 'R2V2', 200, 69.2, 35.6, 42.8, 24.5),
        _row('MMV', 'AudioSet + HowTo', 1600, 70.6, 32.5, 41.3, 24.2),
        _row('MoCLR', 'VideoNet', 200, 72.8, 37.5, 42.6, 24.6),
        _row('VITO', 'YT8M', 200, 71.8, 37.8, 42.7, 24.6),
        _row('VITO', 'AudioSet', 200, 73.6, 38.5, 43.2, 25.0),
        _row('VITO', 'VideoNet', 200, 75.5, 39.2, 43.6, 25.6),
        _row('supervised', 'ImageNet', 200, 71.3, 33.5, 44.2, 25.2),
        _row('BYOL', 'ImageNet', 300, 76.1, 38.8, 43.7, 25.5),
        _row('MoCLR', 'ImageNet', 300, 76.4, 39.2, 43.9, 25.8),
        _row('DINO', 'ImageNet', 300, 76.1, 39.0, 44.3, 26.4),
        _row('VITO', 'VideoNet', 300, 76.3, 39.4, 44.0, 25.7),
    ),
    swin_s=(
        _row('VITO', 'VideoNet', None, 81.3, 46.1, 49.8, 33.5),
        _row('MoCLR', 'ImageNet', None, 78.6, 43.7, 48.4, 32.7),
        _row('DetCon', 'ImageNet', None, 81.4, 46.1, 50.4, 33.1),
    ),
)
"""All rows by architecture, in the paper's order. Those of the ResNet-50 are means of five runs."""

_POODLE = 'arXiv:2408.11208'


def _ade20k(method: str, data: str, network: str, upernet: float, linear: float) -> PublishedRow:
    scores = dict(upernet_ade20k=upernet, linear_ade20k=linear)
    return PublishedRow(method, data, None, scores, network, _POODLE)


PROTOCOL_PUBLISHED = (
    _ade20k('PooDLe', 'Walking Tours, one', 'ResNet-50', 36.6, 14.6),
    _ade20k('PooDLe', 'Walking Tours, all', 'ResNet-50', 41.0, 16.5),
    _ade20k('DoRA', 'Walking Tours, one', 'ViT-S', 35.2, 14.1),
    _ade20k('DoRA', 'Walking Tours, all', 'ViT-S', 38.3, 13.9),
    _ade20k('DINO', 'ImageNet', 'ResNet-50', 43.0, 15.7),
    PublishedRow(
        *('Midway', 'Walking Tours, one', None, dict(upernet_ade20k=36.9)),
        *('ViT-S', 'arXiv:2510.05558'),
    ),
    PublishedRow(
        *('supervised', 'ImageNet', None, dict(faster_rcnn_bdd100k=31.0)),
        *('ResNet-50', 'github.com/SysCV/bdd100k-models'),
    ),
)
"""Rows for :data:`.tasks.PROTOCOL_TASKS`. A score is for the task of that name. PooDLe's linear
ones are read from the decoder that it is trained with, and not from the last stage of the
backbone."""
