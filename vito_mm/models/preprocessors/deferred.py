"""Preprocessing when a micro-batch needs it, not before."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from .view_preprocessor import ViewPreprocessor


@dataclass
class DeferredViews:
    """A batch as the data loader made it: a tensor (N, 3, H, W) per view, and a sample per clip.

    Not a list, so that ``DistributedDataParallel`` does not move the complete batch to the device.
    """

    views: list[Tensor]
    data_samples: Sequence | None


class DeferredPreprocessor(BaseDataPreprocessor):
    """Leave a training batch where it is, and let a ``preprocessor`` take slices of it on demand.

    The device's memory for a batch does not depend on the batch size.
    """

    def __init__(self, preprocessor: BaseDataPreprocessor) -> None:
        super().__init__()
        self.preprocessor = preprocessor

    def forward(self, data: dict, training: bool = False) -> dict:
        """Wrap a training batch of the data loader; preprocess any other as usual."""
        if not training:
            return self.preprocessor(data, training)
        samples = data.get('data_samples')
        return dict(inputs=DeferredViews(data['inputs'], samples), data_samples=None)

    def slice_view(self, batch: DeferredViews, view: int, clips: slice) -> Tensor:
        """Normalised images on the device, (N, 3, H, W), of some clips of one view of a batch."""
        samples = None if batch.data_samples is None else batch.data_samples[clips]
        data = dict(inputs=[batch.views[view][clips]], data_samples=samples)
        if isinstance(self.preprocessor, ViewPreprocessor):
            return self.preprocessor.preprocess_view(data, view)
        return self.preprocessor(data, True)['inputs'][0]
