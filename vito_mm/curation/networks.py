"""Networks of stages, opened once per process, whose numbers are always the same on a machine."""

import os
from functools import cache

import numpy as np

from vito_mm.checkpoint import CheckpointError
from vito_mm.probes.encoder import Encoder
from vito_mm.probes.loading import load_encoder
from vito_mm.probes.sources import find_source
from vito_mm.utils.hashing import sha256_of_file
from vito_mm.videos.frames import View

from .stage import StageError


def open_network(
    name: str,
    checkpoint: str | None,
    device: str,
    size: int | None = None,
    which: str = 'online',
) -> Encoder:
    """Open a classifier, or a network without its classifier.

    Args:
        name (str): ``torchvision:NAME``, ``timm:NAME`` or a config of mmpretrain, see
            :func:`vito_mm.probes.sources.find_source`; or, without its classifier, the path of a
            checkpoint of pre-training, or of any file with a ResNet.
        checkpoint (str, optional): File with the weights; None if ``name`` is one.
        device (str): PyTorch's name.
        size (int, optional): Side in pixels of the square that is cut from frames, see
            :func:`backbone_view`. Defaults to None: a classifier.
        which (str): ``'online'`` or ``'target'`` network of a checkpoint of pre-training. Defaults
            to 'online'.

    Returns:
        Encoder: Gives one vector per frame; a classifier's are the numbers before the softmax.

    Raises:
        StageError: If a checkpoint is missing or does not fit.
        ValueError: If there is no such network, or there are two checkpoints.
        ImportError: If its library is not installed.
    """
    if size is None:
        find_source(name).view()  # a config without a size is refused before its weights are read
    elif not is_checkpoint(name):
        find_source(name)
    elif checkpoint:
        raise ValueError(
            f'the backbone {name} is a checkpoint itself: leave {checkpoint} out, or name a '
            'config, torchvision:NAME or timm:NAME as the backbone'
        )
    else:
        name, checkpoint = '', name
    if not checkpoint:
        raise StageError(
            f'{name} needs a checkpoint, as nothing is downloaded: {find_source(name).remedy()} '
            'and give its path as --checkpoint. Only a state dict is read from it, alone or as '
            '"state_dict", and no other Python objects'
        )
    return _opened(name, checkpoint, sha256_of(checkpoint), which, size, device)


@cache
def _opened(
    name: str, checkpoint: str, digest: str, which: str, size: int | None, device: str
) -> Encoder:
    try:
        return load_encoder(
            checkpoint,
            which,
            name or None,
            classifier=size is None,
            view=None if size is None else backbone_view(size),
            device=device,
            exact=True,
        )
    except CheckpointError as error:
        raise StageError(str(error)) from None


def is_checkpoint(name: str) -> bool:
    """Tell a checkpoint from the name of a network."""
    return bool(name) and not name.startswith(('torchvision:', 'timm:')) and name[-3:] != '.py'


def backbone_view(size: int) -> View:
    """Square of ``size`` pixels from a frame whose short side is 8/7 of it: 256 for 224."""
    return View(round(size * 256 / 224), size)


def width_of(encoder: Encoder) -> int:
    """Count the outputs for a frame, a black one; a StageError if they are not finite."""
    side = encoder.view.crop
    found = encoder(np.zeros((1, side, side, 3), np.uint8))
    if not found.isfinite().all():
        raise StageError('the network gives numbers that are not finite: training diverged')
    return found.shape[1]


def sha256_of(file: str | os.PathLike) -> str:
    """SHA-256 of a file, hexadecimal; a StageError if it cannot be read."""
    try:
        status = os.stat(file)
        return _sha256(os.fspath(file), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise StageError(f'{file} cannot be read: {error.strerror}') from None


@cache
def _sha256(file: str, size: int, changed: int) -> str:
    return sha256_of_file(file)
