"""Check of titles by an image classifier on the first frames."""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from vito_mm.probes.encoder import choose_device
from vito_mm.probes.sources import find_source
from vito_mm.videos import frames
from vito_mm.videos.tables import shortened

from .networks import open_network, sha256_of, width_of
from .stage import Stage, StageError
from .tables import DROPPED, Row, TableError
from .taxonomy import load_taxonomy


@dataclass
class Classify(Stage):
    """Drops videos on whose first frames no class that they were retrieved for is top-1.

    As in section 3.3 of https://arxiv.org/abs/2210.06433, where an ImageNet ResNet-50 looks at the
    first 100 frames. Videos with fewer frames are judged by those that they have.

    Columns of videos that stay: ``labels`` (list[int]), those of ``classes`` that are top-1 on
    enough frames, ascending; ``label_frames`` (list[int]), on how many; ``label_scores``
    (list[float]), the highest softmax probability there. Of all videos that could be decoded:
    ``top1`` (int), the class that is top-1 most often, the first of several; ``frames_seen`` (int).

    The network runs in single precision: a frame near the border between two classes may fall on
    either side on another kind of processor, or with another ``batch_size``.

    Attributes:
        classifier (str): See :func:`vito_mm.probes.sources.find_source`. Normalisation and size of
            images are those of its library or config.
        checkpoint (str, optional): File with its weights. Defaults to None, which is an error that
            says where to get it.
        taxonomy (str): Names of its outputs, see :func:`.taxonomy.load_taxonomy`.
        frames (int): Number of frames, from the first. Defaults to 100.
        min_frames (int): On how many of them a class must be top-1. Defaults to 1.
        batch_size (int): Frames at a time. Defaults to 100.
        device (str, optional): PyTorch's name. Defaults to None, a GPU where there is one.
    """

    classifier: str
    checkpoint: str | None = None
    taxonomy: str = 'imagenet'
    frames: int = 100
    min_frames: int = 1
    batch_size: int = 100
    device: str | None = None
    name: ClassVar[str] = 'classify'
    needs: ClassVar[tuple[str, ...]] = ('path', 'classes')
    makes: ClassVar[tuple[str, ...]] = (
        *('labels', 'label_frames', 'label_scores', 'top1', 'frames_seen'),
    )

    def identity(self) -> dict:
        """See :meth:`.stage.Stage.identity`."""
        return dict(
            classifier=find_source(self.classifier).identity,
            checkpoint=sha256_of(self.checkpoint) if self.checkpoint else None,
            taxonomy=_read_taxonomy(self.taxonomy).fingerprint,
            frames=self.frames,
            min_frames=self.min_frames,
        )

    def check_settings(self) -> None:
        """Open the classifier on the CPU and compare the number of its outputs with the classes."""
        if not 1 <= self.min_frames <= self.frames:
            raise ValueError(f'--min-frames {self.min_frames}: give 1 to {self.frames} (--frames)')
        classes = len(_read_taxonomy(self.taxonomy).names)
        try:
            outputs = width_of(open_network(self.classifier, self.checkpoint, 'cpu'))
        except StageError as error:
            raise StageError(f'{self.classifier}: {error}') from None
        if outputs != classes:
            raise StageError(
                f'{self.classifier} with {self.checkpoint} has {outputs} outputs, and the taxonomy '
                f'{self.taxonomy} {classes} classes: name the one that it was trained for '
                '(--taxonomy)'
            )

    def prepare(self, row: Row) -> np.ndarray:
        """Decode the first frames. Uses no network."""
        return frames.first(row, self.frames, find_source(self.classifier).view())

    def finish(self, row: Row, prepared: np.ndarray) -> Row:
        """Classify the frames."""
        names = _read_taxonomy(self.taxonomy).names
        classes = row['classes']
        if not isinstance(classes, list) or not all(type(index) is int for index in classes):
            raise TableError(
                f'{row["path"]}: the column "classes" has {shortened(classes)}; a list of '
                'indices is wanted, as the stage "retrieve" writes it'
            )
        if beyond := [index for index in classes if not 0 <= index < len(names)]:
            raise StageError(
                f'{row["path"]} was retrieved for class {beyond[0]}, and the taxonomy '
                f'{self.taxonomy} has {len(names)} classes: retrieve with the same taxonomy'
            )
        network = open_network(self.classifier, self.checkpoint, choose_device(self.device))
        scores = network(prepared, batch_size=self.batch_size).cpu()
        probabilities = scores.softmax(1).numpy()
        winners = probabilities.argmax(1)
        counts = np.bincount(winners, minlength=len(names))
        top1 = int(counts.argmax())
        row = {**row, 'top1': top1, 'frames_seen': len(prepared)}
        wanted = sorted(set(classes))
        labels = [index for index in wanted if counts[index] >= self.min_frames]
        if not labels:
            number = 'too few frames' if counts[wanted].any() else 'no frame'
            reason = f'queried class is top-1 on {number}: top-1 is {names[top1]}'
            return {**row, DROPPED: reason}
        return row | dict(
            labels=labels,
            label_frames=[int(counts[index]) for index in labels],
            label_scores=[
                round(float(probabilities[winners == index, index].max()), 4) for index in labels
            ],
        )


_read_taxonomy = cache(load_taxonomy)
