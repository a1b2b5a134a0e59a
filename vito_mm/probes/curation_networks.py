"""Networks with weights, opened once in a process, that give numbers for frames."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from vito_mm.checkpoint.reading import CheckpointError
from vito_mm.curation.stage import StageError
from vito_mm.utils.hashing import sha256_of_file
from vito_mm.utils.quiet import quiet_logger
from vito_mm.videos.frames import View

from .network_sources import CheckpointedResNet, Normalisation, Source, find_source


@dataclass(frozen=True)
class Network:
    """A network in evaluation mode and what is done to its input.

    Attributes:
        module (nn.Module): The network, in single precision.
        view (View): What it gets of a frame.
        normalisation (Normalisation): What is done to pixels.
        device (str): Where it is.
    """

    module: nn.Module
    view: View
    normalisation: Normalisation
    device: str

    def __call__(self, frames: np.ndarray, batch_size: int = 100) -> Tensor:
        """What the network makes of frames: in single precision, always the same on a machine.

        Args:
            frames (np.ndarray): RGB, uint8, shape (N, crop, crop, 3).
            batch_size (int): Frames at a time. Defaults to 100.

        Returns:
            Tensor: On the CPU, float32, shape (N, C). Maps are averaged over their positions; of
            several scales the last is taken.
        """
        mean, std = (
            torch.tensor(values, device=self.device).view(3, 1, 1)
            for values in (self.normalisation.mean, self.normalisation.std)
        )
        outputs = []
        # A GPU would otherwise round to TF32, and choose its algorithm by a race.
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        with torch.inference_mode(), exact:
            for start in range(0, len(frames), batch_size):
                batch = torch.from_numpy(frames[start : start + batch_size]).to(self.device)
                images = batch.permute(0, 3, 1, 2)  # channels last in memory, as they come
                if self.normalisation.channel_order == 'bgr':
                    images = images.flip(1)
                outputs.append(_pooled(self.module((images.float() - mean) / std)).cpu())
        return torch.cat(outputs)

    def width(self) -> int:
        """Number of outputs for a frame, told by a black one.

        Raises:
            StageError: If they are no vector, or not finite.
        """
        found = self(np.zeros((1, self.view.crop, self.view.crop, 3), np.uint8))
        if found.ndim != 2:
            raise StageError(f'the network gives {tuple(found.shape)} numbers for one frame')
        if not found.isfinite().all():
            raise StageError('the network gives numbers that are not finite: training diverged')
        return found.shape[1]


def open_classifier(name: str, checkpoint: str | None, device: str) -> Network:
    """A classifier with its weights.

    Args:
        name (str): See :func:`.network_sources.find_source`.
        checkpoint (str, optional): File with the weights; without one it is told how to get it.
        device (str): Where it runs.

    Returns:
        Network: Gives one number a class, before the softmax.

    Raises:
        StageError: If the checkpoint is missing or does not fit; missing, unexpected and misshaped
            keys are listed.
        ValueError: If there is no such network.
        ImportError: If its library is not installed.
    """
    source = find_source(name)
    view = source.view()
    digest = _digest_of_weights(source, checkpoint)
    return _open_classifier(source, str(checkpoint), digest, view, device)


@cache
def _open_classifier(
    source: Source, checkpoint: str, digest: str, view: View, device: str
) -> Network:
    with _one_kind_of_error():
        return _ready(source, source.classifier(checkpoint), view, device)


def open_backbone(name: str, checkpoint: str | None, which: str, size: int, device: str) -> Network:
    """A network without its classifier.

    Args:
        name (str): See :func:`.network_sources.find_source`; or the path of a checkpoint with a
            ResNet, see :func:`vito_mm.transfer.load_backbone`.
        checkpoint (str, optional): File with the weights; None if ``name`` is one.
        which (str): ``'online'`` or ``'target'`` network of a checkpoint of pre-training.
        size (int): Side in pixels of the square that is cut from frames, which are scaled to a
            short side of 8/7 of that before: 256 for 224.
        device (str): Where it runs.

    Returns:
        Network: Gives one vector a frame.

    Raises:
        StageError: If a checkpoint is missing or does not fit.
        ValueError: If there is no such network, or there are two checkpoints.
        ImportError: If its library is not installed.
    """
    source = backbone_source(name)
    view = backbone_view(size)
    if isinstance(source, CheckpointedResNet):
        if checkpoint:
            raise ValueError(
                f'the backbone {name} is a checkpoint itself: leave {checkpoint} out, or name a '
                'config, torchvision:NAME or timm:NAME as the backbone'
            )
        checkpoint = name
    digest = _digest_of_weights(source, checkpoint)
    return _open_backbone(source, str(checkpoint), digest, which, view, device)


@cache
def _open_backbone(
    source: Source, checkpoint: str, digest: str, which: str, view: View, device: str
) -> Network:
    with _one_kind_of_error():
        return _ready(source, source.backbone(checkpoint, which), view, device)


@cache
def backbone_source(name: str) -> Source:
    """The network that the name of a backbone stands for.

    Args:
        name (str): See :func:`open_backbone`.

    Returns:
        Source: The network.

    Raises:
        ValueError: If there is no such network.
        ImportError: If its library is not installed.
    """
    is_file = name and not name.startswith(('torchvision:', 'timm:')) and not name.endswith('.py')
    return CheckpointedResNet(name) if is_file else find_source(name)


def backbone_view(size: int) -> View:
    """What a backbone gets of a frame.

    Args:
        size (int): Side of the square in pixels.

    Returns:
        View: The square, from a frame whose short side is 8/7 of it.
    """
    return View(round(size * 256 / 224), size)


def sha256_of(file: str | os.PathLike) -> str:
    """SHA-256 of a file.

    Args:
        file (str | os.PathLike): The file.

    Returns:
        str: Hexadecimal.

    Raises:
        StageError: If it cannot be read.
    """
    try:
        status = os.stat(file)
        return _sha256(os.fspath(file), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise StageError(f'{file} cannot be read: {error.strerror}') from None


@cache
def _sha256(file: str, size: int, changed: int) -> str:
    return sha256_of_file(file)


def choose_device(device: str | None) -> str:
    """Where networks run.

    Args:
        device (str, optional): PyTorch's name; None for a GPU where there is one.

    Returns:
        str: PyTorch's name.

    Raises:
        ValueError: If it cannot be used here.
    """
    if device is None:
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'device {device!r} cannot be used here: {reason}') from None
    return device


def _digest_of_weights(source: Source, checkpoint: str | None) -> str:
    if not checkpoint:
        raise StageError(
            f'{source.name} needs a checkpoint, as nothing is downloaded: {source.how_to_get()} '
            'and give its path as --checkpoint. Only a state dict is read from it, alone or as '
            '"state_dict", and no other Python objects'
        )
    return sha256_of(checkpoint)


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    """Weights that do not fit end a stage as anything else that keeps it from going on."""
    try:
        with quiet_logger('WARNING'):
            yield
    except CheckpointError as error:
        raise StageError(str(error)) from None


def _ready(source: Source, module: nn.Module, view: View, device: str) -> Network:
    module.eval()  # not chained: train() of OpenMMLab's backbones returns None
    module.requires_grad_(False).to(device, memory_format=torch.channels_last)
    return Network(module, view, source.normalisation(), device)


def _pooled(outputs: Tensor | tuple | list) -> Tensor:
    last = outputs[-1] if isinstance(outputs, (tuple, list)) else outputs
    if last.ndim == 4:
        last = last.mean(dim=(2, 3))
    elif last.ndim == 3:
        last = last.mean(dim=1)
    return last.float()
