"""Accuracy on labelled images during a run."""

import os
from typing import Any

import torch
from mmengine.dist import is_main_process
from torch import Tensor
from torch.utils.data import Dataset

from vito_mm.probes.encoder import Encoder
from vito_mm.probes.frames import collect, summarised
from vito_mm.probes.image_folders import ProbeError
from vito_mm.probes.knn import knn_top1
from vito_mm.probes.labelled_images import labelled_frames
from vito_mm.probes.linear_classifier import linear_accuracy
from vito_mm.registry import HOOKS

from .probe_hook import EncoderProbeHook


@HOOKS.register_module()
class KNNProbeHook(EncoderProbeHook):
    """Classify labelled images by their nearest neighbours among others.

    The figure of ``tools/probe.py knn`` (https://arxiv.org/abs/1805.01978, section 3.4) on
    average-pooled features, without a checkpoint on disk. The result does not depend on the number
    of ranks. Images that cannot be read are skipped and counted.

    Logs ``knn_top1``, and with ``linear`` ``linear_top1``, in percent.

    Args:
        data (str): Folder with ``train/<class>/`` and ``val/<class>/`` images; or a manifest whose
            rows have ``label``, see :func:`vito_mm.probes.labelled_images.labelled_frames`.
        k (int): Number of neighbours. Defaults to 20.
        temperature (float): Of the weights of their votes, exp(cosine / temperature). Defaults to
            0.07.
        linear (bool): Fit a linear classifier, too: that of ``tools/probe.py linear``, on the first
            rank, while the others wait. Defaults to False.
        max_images (int, optional): Images of each part at most, the same ones every time; None for
            all. Defaults to 10,000.
        **kwargs: See :class:`.probe_hook.EncoderProbeHook` and :class:`.probe_hook.ProbeHook`.

    Raises:
        ValueError: If a setting makes no sense, or, before the first step, if there are no such
            data; names the field.
    """

    def __init__(
        self,
        data: str = '',
        k: int = 20,
        temperature: float = 0.07,
        linear: bool = False,
        max_images: int | None = 10_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not data:
            raise ValueError(
                f'{self._field("data")} is empty: give a folder with train/<class>/*.jpg and '
                'val/<class>/*.jpg, or a manifest (.jsonl, .csv) with the column "label"'
            )
        most = 1 if max_images is None else max_images
        self._check_positive(k=k, temperature=temperature, max_images=most)
        self.data, self.max_images = os.fspath(data), max_images
        self.k, self.temperature, self.linear = k, temperature, linear

    def prepare(self, runner) -> None:
        """List the images."""
        self.encoder(runner)  # a network that is not there is named at once
        self.images = labelled_frames(self.data, self.image_size, self.max_images, self.seed)
        runner.logger.info(
            f'{type(self).__name__}: {len(self.images.train)} images to learn from, '
            f'{len(self.images.val)} to classify, {len(self.images.classes)} classes ({self.data})'
        )

    def measure(self, runner, step: int) -> tuple[dict[str, float], dict]:
        """See :meth:`.probe_hook.ProbeHook.measure`."""
        encoder = self.encoder(runner)
        parts = (
            *self._features(runner, encoder, self.images.train, self.images.train_labels),
            *self._features(runner, encoder, self.images.val, self.images.val_labels),
        )
        if not is_main_process():
            return {}, {}
        parts = [part.to(encoder.device) for part in parts]
        numbers = dict(knn_top1=knn_top1(*parts, k=self.k, temperature=self.temperature))
        if self.linear:
            numbers['linear_top1'] = linear_accuracy(*parts, seed=self.seed).top1
        return numbers, {}

    def _features(
        self, runner, encoder: Encoder, images: Dataset, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features and labels of the images that can be read."""
        found = collect(
            images,
            lambda _, frames: encoder(frames[:, 0], batch_size=self.batch_size).cpu(),
            self.batch_size,
            self.num_workers,
        )
        if found.skipped:
            runner.logger.warning(f'{self.data}: skipped {summarised(found.skipped)}')
        if not len(found.indices):
            raise ProbeError(f'none of {len(images)} images of {self.data} can be read')
        if not torch.isfinite(found.features).all():
            raise ProbeError('the features are not finite')
        return found.features, labels[found.indices]
