"""Views on their way into the network, augmented on the device if that was left to it."""

from collections.abc import Sequence

import numpy as np
import torch
from mmpretrain.models import SelfSupDataPreprocessor
from torch import Tensor

from .batch_augmentation import augment_batch


class ViewPreprocessor(SelfSupDataPreprocessor):
    """mmpretrain's ``SelfSupDataPreprocessor``, and what the data workers left to the device.

    Where samples carry ``augmentations`` (:class:`vito_mm.datasets.AugmentViews` with
    ``on_device=True``), each view of the batch is augmented so, in float32, before it is
    normalised. The data workers draw them with each sample: they do not depend on the batch.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Augment and normalise ``inputs``, a list of uint8 tensors (N, 3, H, W), one per view."""
        samples = data.get('data_samples')
        if not _are_augmented(samples):
            return super().forward(data, training)
        views = [
            self.preprocess_view(dict(inputs=[view], data_samples=samples), number)
            for number, view in enumerate(data['inputs'])
        ]
        return dict(inputs=views, data_samples=samples)

    def preprocess_view(self, data: dict, number: int) -> Tensor:
        """Augment and normalise the view of a number, whose images alone are in ``inputs``."""
        samples = data.get('data_samples')
        if not _are_augmented(samples):
            return super().forward(dict(data), True)['inputs'][0]
        (images,) = self.cast_data(data['inputs'])
        drawn = np.array([sample.augmentations[number] for sample in samples], np.float32)
        if self._channel_conversion:
            images = images[:, [2, 1, 0]]
        # Under autocast the blur would be computed in half precision.
        with torch.autocast(images.device.type, enabled=False):
            images = augment_batch(images, drawn, is_rgb=self._channel_conversion)
            return (images - self.mean) / self.std if self._enable_normalize else images


def _are_augmented(samples: Sequence | None) -> bool:
    return bool(samples) and 'augmentations' in samples[0]
