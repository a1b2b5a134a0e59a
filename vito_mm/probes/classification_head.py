"""Linear classifiers of frozen features, in files, and the classifiers that networks come with."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vito_mm.checkpoint import Checkpoint
from vito_mm.utils.atomic import written_aside
from vito_mm.utils.hashing import hash64
from vito_mm.utils.text import first_few

from .image_folders import ProbeError
from .linear_classifier import LinearClassifier

_FORMAT = 'vito_mm classification head 1'
_TENSORS = ('mean', 'std', 'weights')


@dataclass(frozen=True)
class ClassificationHead:
    """A linear classifier of the pooled features of one network.

    Attributes:
        classifier (LinearClassifier): The classifier.
        classes (tuple[str, ...]): Names of the classes: of their folders.
        network (Mapping): What tells the network, as plain values, such as the SHA-256 of its
            checkpoint.
        size (int): Side of the images that it was fitted to, in pixels.
        training (Mapping): What tells how it was fitted, as plain values, such as a digest of the
            data. Defaults to nothing.
    """

    classifier: LinearClassifier
    classes: tuple[str, ...]
    network: Mapping[str, Any]
    size: int
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def training_digest(self) -> str:
        """Digest of how it was fitted: the same for heads of other networks that were, too."""
        return f'{hash64(str(sorted(self.training.items())), str(self.size), *self.classes):016x}'

    def save(self, file: Path) -> None:
        """Write a file that ``torch.load(FILE, weights_only=True)`` reads, atomically.

        It holds ``weights``, shape (K, D + 1), with the bias as last column; ``mean`` and ``std``,
        shape (D, ), by which features are standardised before; ``classes``, ``network``,
        ``size`` and ``training``.
        """
        tensors = {name: getattr(self.classifier, name).cpu() for name in _TENSORS}
        said = dict(classes=list(self.classes), network=dict(self.network), size=self.size)
        said['training'] = dict(self.training)
        content = dict(format=_FORMAT, gradient=self.classifier.gradient, **tensors, **said)
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(file) as unfinished:
            torch.save(content, unfinished)

    def require(self, network: Mapping[str, Any], width: int, file: Path) -> None:
        """Check that the head is of a network and of features of a width.

        Raises:
            ProbeError: If it is of another one.
        """
        if len(self.classifier.mean) != width:
            raise ProbeError(
                f'{file} is a head of features of width {len(self.classifier.mean)}, and the '
                f'network has {width}: name the head that linear --save-head wrote for it'
            )
        if differ := [key for key in network if network[key] != self.network.get(key)]:
            raise ProbeError(
                f'{file} is the head of another network, with another {", ".join(differ)}: name '
                'the one that linear --save-head wrote for this checkpoint'
            )

    def logits(self, features: Tensor) -> Tensor:
        """Score the classes: (N, K) from features (N, D)."""
        return self.classifier.logits(features)

    def to(self, device: torch.device) -> 'ClassificationHead':
        """Put the tensors on a device."""
        tensors = [getattr(self.classifier, name).to(device) for name in _TENSORS]
        classifier = LinearClassifier(*tensors, self.classifier.gradient)
        return replace(self, classifier=classifier)


def load_head(file: str | os.PathLike) -> ClassificationHead:
    """Read a file that :meth:`ClassificationHead.save` wrote; no code in it is run.

    Raises:
        ProbeError: If it is not such a file.
    """
    try:
        content = torch.load(file, map_location='cpu', weights_only=True)
    except Exception as error:  # of pickle, zip files and torch, whatever the content is
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ProbeError(f'{file} cannot be read as a head: {reason}') from None
    if not isinstance(content, dict) or content.get('format') != _FORMAT:
        raise ProbeError(f'{file} is no head that linear --save-head wrote')
    classifier = LinearClassifier(*(content[name] for name in _TENSORS), content['gradient'])
    names = tuple(content['classes'])
    said = (content[name] for name in ('network', 'size'))
    return ClassificationHead(classifier, names, *said, content.get('training', {}))


def find_head(place: Path, network: Mapping[str, Any]) -> tuple[Path, ClassificationHead]:
    """Read a head from a file, or the one of a network from a folder of heads.

    Raises:
        ProbeError: If there is none, or more than one.
    """
    if not place.is_dir():
        if not place.is_file():
            raise ProbeError(f'there is no {place}: linear --save-head writes heads')
        return place, load_head(place)
    heads = [(file, load_head(file)) for file in sorted(place.glob('*.pth'))]
    found = [
        (file, head)
        for file, head in heads
        if all(head.network.get(key) == value for key, value in network.items())
    ]
    if len(found) != 1:
        names = [file.name for file, _ in (found or heads)]
        raise ProbeError(
            f'{place} has {len(found)} heads of this network, of {first_few(names) or "no file"}: '
            'name the file, or run linear --save-head with the checkpoint'
        )
    return found[0]


def imagenet_classes() -> tuple[str, ...]:
    """List ImageNet's 1000 classes by their WordNet numbers, in the order of classifiers.

    Raises:
        ImportError: If timm, which has them, is not installed.
    """
    try:
        from timm.data import ImageNetInfo
    except ImportError:
        raise ImportError(
            'The names of the 1000 classes need timm. Run: pip install "vito_mm[robustness]"'
        ) from None
    return tuple(ImageNetInfo('imagenet1k').label_names())


def own_classes(checkpoint: Checkpoint, count: int, named: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the classes of the classifier that a file brings.

    Args:
        checkpoint (Checkpoint): The file.
        count (int): Number of the classifier's classes.
        named (Sequence[str]): Names that are given. Defaults to none: those of ImageNet for 1000
            classes, else those that mmpretrain stores in the file.

    Raises:
        ProbeError: If the names are unknown, or more or fewer than the classes.
        ImportError: See :func:`imagenet_classes`.
    """
    if not named and count == 1000:
        return imagenet_classes()
    names = tuple(named) or _stored_classes(checkpoint.content.get('meta'))
    if len(names) != count or len(set(names)) != count:
        raise ProbeError(
            f'{checkpoint} has a classifier of {count} classes, and {len(set(names))} names of '
            'classes are known: name a file with the folder name of each class, one per line in '
            'the order of the classifier (--classes)'
        )
    return names


def _stored_classes(meta: Any) -> tuple[str, ...]:
    described = meta.get('dataset_meta') if isinstance(meta, Mapping) else None
    classes = described.get('classes') if isinstance(described, Mapping) else None
    return tuple(map(str, classes or ()))
