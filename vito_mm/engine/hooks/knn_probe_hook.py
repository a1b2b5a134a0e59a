"""Accuracy on labelled images during a run."""

import os

import torch
from mmengine.dist import is_main_process
from torch import Tensor
from torch.utils.data import Dataset

from vito_mm.checkpoint import NETWORKS
from vito_mm.probes.encoder import Encoder
from vito_mm.probes.frames import collect, summarised
from vito_mm.probes.image_folders import ProbeError
from vito_mm.probes.knn import knn_top1
from vito_mm.probes.labelled_images import labelled_frames
from vito_mm.probes.linear_classifier import linear_accuracy
from vito_mm.registry import HOOKS
from vito_mm.utils.unwrap import unwrap

from .probe_hook import ProbeHook


@HOOKS.register_module()
class KNNProbeHook(ProbeHook):
    """Classify labelled images by their nearest neighbours among others.

    The figure of ``tools/probe.py knn`` (https://arxiv.org/abs/1805.01978, section 3.4) on
    average-pooled features, without a checkpoint on disk. The ranks share the images, and the
    result does not depend on their number. Images that cannot be read are skipped and counted.

    Logs ``knn_top1``, and with ``linear`` ``linear_top1``, in percent.

    Args:
        data (str): Folder with ``train/<class>/`` and ``val/<class>/`` images; or a manifest whose
            rows have ``label``, see :func:`vito_mm.probes.labelled_images.labelled_frames`.
        interval (int): Iterations between measurements. Defaults to 1000.
        k (int): Number of neighbours. Defaults to 20.
        temperature (float): Of the weights of their votes, exp(cosine / temperature). Defaults to
            0.07.
        image_size (int): Side of the images in pixels; the shorter side is resized to it and the
            centre is taken. Defaults to 224.
        linear (bool): Fit a linear classifier, too: that of ``tools/probe.py linear``, on the first
            rank, while the others wait. Defaults to False.
        network (str): 'online', or 'target' for the slowly moving copy. Defaults to 'online'.
        batch_size (int): Images at a time on each rank. Defaults to 128.
        num_workers (int): Processes of each rank that read images, started for each measurement; 0
            reads in the training process. Defaults to 4.
        max_images (int, optional): Images of each part at most, the same ones every time; None for
            all. Defaults to 10,000.
        begin (bool): Measure before the first step, too. Defaults to True.
        seed (int): Seed of the choice of images and of the two parts of a manifest. Defaults to 0.
        prefix (str): Put before the names of the numbers. Defaults to ''.

    Raises:
        ValueError: If a setting makes no sense, or, before the first step, if there are no such
            data; names the field.
    """

    def __init__(
        self,
        data: str = '',
        interval: int = 1000,
        k: int = 20,
        temperature: float = 0.07,
        image_size: int = 224,
        linear: bool = False,
        network: str = 'online',
        batch_size: int = 128,
        num_workers: int = 4,
        max_images: int | None = 10_000,
        begin: bool = True,
        seed: int = 0,
        prefix: str = '',
    ) -> None:
        super().__init__(interval, begin, prefix)
        if not data:
            raise ValueError(
                f'{self._field("data")} is empty: give a folder with train/<class>/*.jpg and '
                'val/<class>/*.jpg, or a manifest (.jsonl, .csv) with the column "label"'
            )
        self._check_positive(
            k=k,
            temperature=temperature,
            image_size=image_size,
            batch_size=batch_size,
            max_images=1 if max_images is None else max_images,
        )
        self._check_choice('network', network, NETWORKS)
        self.data = os.fspath(data)
        self.k, self.temperature, self.image_size, self.linear = k, temperature, image_size, linear
        self.network, self.batch_size, self.num_workers = network, batch_size, num_workers
        self.max_images, self.seed = max_images, seed

    def prepare(self, runner) -> None:
        """List the images."""
        Encoder.of_model(unwrap(runner.model), self.network)
        self.images = labelled_frames(self.data, self.image_size, self.max_images, self.seed)
        runner.logger.info(
            f'{type(self).__name__}: {len(self.images.train)} images to learn from, '
            f'{len(self.images.val)} to classify, {len(self.images.classes)} classes ({self.data})'
        )

    def measure(self, runner, step: int) -> tuple[dict[str, float], dict]:
        """See :meth:`.probe_hook.ProbeHook.measure`."""
        encoder = Encoder.of_model(unwrap(runner.model), self.network)
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
