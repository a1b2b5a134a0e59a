"""Preprocessing when a micro-batch needs it, not before."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from .view_preprocessor import ViewPreprocessor


@dataclass
class DeferredViews:
    """A batch of views as the data loader made it.

    Not a list, so that ``DistributedDataParallel`` does not move the whole batch to the device.

    Args:
        views (list[Tensor]): One tensor (N, 3, H, W) a view.
        data_samples (Sequence | None): One sample a clip.
    """

    views: list[Tensor]
    data_samples: Sequence | None


class DeferredPreprocessor(BaseDataPreprocessor):
    """Leave a training batch where it is, and preprocess slices of it on demand.

    Keeps what a batch takes on the device independent of the batch size.

    Args:
        preprocessor (BaseDataPreprocessor): What is done to the images in the end.
    """

    def __init__(self, preprocessor: BaseDataPreprocessor) -> None:
        super().__init__()
        self.preprocessor = preprocessor

    def forward(self, data: dict, training: bool = False) -> dict:
        """Wrap a training batch; preprocess any other as usual.

        Args:
            data (dict): What the data loader yields: ``inputs`` and ``data_samples``.
            training (bool): Whether it is a training batch. Defaults to False.

        Returns:
            dict: ``inputs`` and ``data_samples``.
        """
        if not training:
            return self.preprocessor(data, training)
        samples = data.get('data_samples')
        return dict(inputs=DeferredViews(data['inputs'], samples), data_samples=None)

    def slice_view(self, batch: DeferredViews, view: int, clips: slice) -> Tensor:
        """Preprocess some clips of one view.

        Args:
            batch (DeferredViews): What :meth:`forward` returned as ``inputs``.
            view (int): Number of the view.
            clips (slice): Which clips of the batch.

        Returns:
            Tensor: Normalised images on the device, shape (number of clips, 3, H, W).
        """
        samples = None if batch.data_samples is None else batch.data_samples[clips]
        data = dict(inputs=[batch.views[view][clips]], data_samples=samples)
        if isinstance(self.preprocessor, ViewPreprocessor):
            return self.preprocessor.preprocess_view(data, view)
        return self.preprocessor(data, True)['inputs'][0]
