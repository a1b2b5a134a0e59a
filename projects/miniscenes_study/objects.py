"""Features and attention on the objects of the probe images, whose masks are known."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vito_mm.miniscenes import get_preset
from vito_mm.miniscenes.stills import render_probe_still
from vito_mm.probes.encoder import Encoder
from vito_mm.probes.knn import knn_top1
from vito_mm.probes.labelled_images import labelled_frames

from .presets import StudyPreset

ATTENTION = 'attention of '
"""What the names of shares of attention begin with."""


@dataclass(frozen=True)
class ProbeObjects:
    """Probe images with the masks of their objects.

    Attributes:
        images (tuple[Tensor, Tensor]): Of ``train`` and ``val``, uint8, shape (N, S, S, 3).
        labels (tuple[Tensor, Tensor]): Classes, shape (N, ).
        masks (tuple[Tensor, Tensor]): Share of the object in each pixel, shape (N, 1, S, S).
    """

    images: tuple[Tensor, Tensor]
    labels: tuple[Tensor, Tensor]
    masks: tuple[Tensor, Tensor]

    @classmethod
    def read(cls, folder: Path, preset: StudyPreset) -> 'ProbeObjects':
        """Read the images of MiniScenes' part ``probe``, of seed 0, and draw their masks again."""
        world = get_preset(preset.world)
        if preset.classes is not None:
            world = replace(world, classes=preset.classes)
        frames = labelled_frames(folder, preset.image_size)
        images, masks = [], []
        for split, part in (('train', frames.train), ('val', frames.val)):
            images.append(torch.cat([part[index][1] for index in range(len(part))]))
            drawn = [render_probe_still(world, 0, split, int(f.stem)).masks[0] for f in part.files]
            share = torch.from_numpy(np.stack(drawn))[:, None].float()
            masks.append(interpolate(share, (preset.image_size,) * 2, mode='area'))
        return cls(tuple(images), (frames.train_labels, frames.val_labels), tuple(masks))

    def knn(self, encoder: Encoder) -> float:
        """Accuracy of nearest neighbours of features that are pooled over the object, in percent.

        It is what pooling could reach that knew where the object is.
        """
        return self._knn(encoder, self.masks)

    def knn_attended(self, encoder: Encoder) -> float:
        """Accuracy of nearest neighbours of features that are pooled by the encoder's attention.

        In percent, of the last stage: how pre-training saw them.
        """
        stage = [*encoder.scales()][-1]
        masks = (torch.from_numpy(encoder.masks(part)[stage])[:, None] for part in self.images)
        return self._knn(encoder, tuple(masks))

    def _knn(self, encoder: Encoder, masks: tuple[Tensor, Tensor]) -> float:
        pooled = []
        for images, part in zip(self.images, masks, strict=True):
            maps = encoder(images, 'last')
            share = interpolate(part.to(maps.device), maps.shape[2:], mode='area')
            pooled.append((share * maps).sum(dim=(2, 3)) / share.sum(dim=(2, 3)))
        train_labels, val_labels = (part.to(pooled[0].device) for part in self.labels)
        return knn_top1(pooled[0], train_labels, pooled[1], val_labels)

    def attention(self, encoder: Encoder) -> dict[str, float]:
        """Share of the attention on the object, in percent, by ``'attention of stage 5'`` etc.

        ``'attention of stage 5, mean mask'`` is the share of the mean over all images: what a mask
        would have that looks at the same place of every image.
        """
        masks = self.masks[1]
        shares = {}
        for stage, attention in encoder.masks(self.images[1]).items():
            share = interpolate(masks, attention.shape[1:], mode='area')[:, 0].numpy()
            name = ATTENTION + stage
            for key, each in ((name, attention), (f'{name}, mean mask', attention.mean(axis=0))):
                shares[key] = 100 * float((share * each).sum(axis=(1, 2)).mean())
        return shares
