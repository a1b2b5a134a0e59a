"""What frozen features give without any training, in the demo and the study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from vito_mm.probes import davis, incontext
from vito_mm.probes.encoder import Encoder
from vito_mm.probes.features import labelled_features
from vito_mm.probes.incontext_report import draw_predictions
from vito_mm.probes.knn import knn_top1
from vito_mm.probes.label_propagation import PROPAGATIONS, Propagation
from vito_mm.probes.loading import load_encoder, resnet
from vito_mm.probes.record import Record

IMAGE_SIZE = 64
DEPTH, BASE_CHANNELS = 18, 32
LAYER, OUTPUT_STRIDE = 'res4', 8
"""Layer of the propagated masks and of in-context segmentation, and its pixels per cell."""

PROPAGATION = replace(PROPAGATIONS['vfs'], short_side=120, output_stride=OUTPUT_STRIDE)
"""MiniScenes' frames at their own size, so the radius reaches over nearly all of a frame."""
IN_CONTEXT = incontext.InContext(size=128, memory=20_000, epochs=0)
_SEQUENCES_SHOWN = 2
_DEMO = resnet(DEPTH, BASE_CHANNELS)

Networks = Mapping[str, Path | None]
"""Checkpoint by initialisation, None for random weights."""


@dataclass(frozen=True)
class Frozen:
    """A row of the demo's table from frozen features.

    Attributes:
        task (str): What was done.
        metric (str): Name of the scores.
        scores (list[float]): Percent, in the order of the networks.
        pictures (Sequence[bytes]): PNGs.
        caption (str): What each of them shows.
    """

    task: str
    metric: str
    scores: list[float]
    pictures: Sequence[bytes] = ()
    caption: str = ''

    @property
    def row(self) -> tuple[str, str, float, float]:
        """The row of the table."""
        return (self.task, self.metric, *self.scores)


def classify(probe: Path, networks: Networks, seed: int) -> Frozen:
    """Classify stills by their nearest neighbours.

    Args:
        probe (Path): MiniScenes' part of that name.
        networks (Networks): The networks.
        seed (int): Of random weights.
    """
    encoders = [_encoder(file, seed) for file in networks.values()]
    scores = [knn_top1(*labelled_features(each, probe, IMAGE_SIZE)) for each in encoders]
    return Frozen('kNN, frozen features', 'top-1', scores)


def propagate_masks(
    folder: Path,
    networks: Networks,
    work_dir: Path,
    seed: int,
    settings: Propagation = PROPAGATION,
    network: Mapping[str, Any] = _DEMO,
) -> Frozen:
    """Propagate the masks of the first frames of sequences.

    Args:
        folder (Path): MiniScenes in the layout of DAVIS 2017.
        networks (Networks): The networks.
        work_dir (Path): Gets records and masks.
        seed (int): Of random weights.
        settings (Propagation): Defaults to those of the demo.
        network (Mapping): Config of the backbone. Defaults to that of the demo.
    """
    sequences = davis.find_sequences(folder)
    masks = {init: work_dir / 'masks' / init for init in networks}
    scores = []
    for init, file in networks.items():
        encoder = _encoder(file, seed, OUTPUT_STRIDE, network)
        record = _record(work_dir, init, seed)
        found = davis.evaluate(encoder, sequences, record, LAYER, settings, masks[init])
        scores.append(davis.summary(found)['J&F'])
    pictures = [
        davis.draw_masks(sequence, {init: place / sequence.name for init, place in masks.items()})
        for sequence in sequences[:_SEQUENCES_SHOWN]
    ]
    caption = (
        'From above: frames of a sequence with the given masks, then with those propagated by '
    )
    caption += f'the features of {", of ".join(networks)}.'
    return Frozen('DAVIS layout, propagated masks', 'J&F', scores, pictures, caption)


def segment_in_context(
    cfg: Config,
    networks: Networks,
    work_dir: Path,
    seed: int,
    settings: incontext.InContext = IN_CONTEXT,
    network: Mapping[str, Any] = _DEMO,
) -> Frozen:
    """Segment validation stills by the most similar patches of the training stills.

    Args:
        cfg (Config): Config of mmseg with the data.
        networks (Networks): The networks.
        work_dir (Path): Gets records and predictions.
        seed (int): Of random weights.
        settings (InContext): Defaults to those of the demo.
        network (Mapping): Config of the backbone. Defaults to that of the demo.
    """
    train, val = (cfg[f'{part}_dataloader'].dataset for part in ('train', 'val'))
    predictions = {init: work_dir / 'predictions' / init for init in networks}
    scores = []
    for init, file in networks.items():
        encoder = _encoder(file, seed, OUTPUT_STRIDE, network)
        record = _record(work_dir, init, seed)
        # No worker processes: starting them takes longer than they save.
        place = dict(layer=LAYER, workers=0, predictions=predictions[init])
        found = incontext.evaluate(encoder, train, val, settings, 1, record, **place)
        scores.append(incontext.summary(found)['mIoU'])
    picture = draw_predictions(incontext.LabelledSquares(val, settings), predictions)
    caption = 'From above: validation stills, their ground truth, then the labels of the nearest '
    caption += f'training patches by the features of {", of ".join(networks)}.'
    return Frozen('PASCAL VOC layout, in context', 'mIoU', scores, [picture], caption)


def _encoder(
    file: Path | None,
    seed: int,
    output_stride: int | None = None,
    network: Mapping[str, Any] = _DEMO,
) -> Encoder:
    return load_encoder(file, network=network, output_stride=output_stride, seed=seed)


def _record(work_dir: Path, init: str, seed: int) -> Record:
    return Record(work_dir / f'{init}.json', dict(seed=seed))
