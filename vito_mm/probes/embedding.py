"""Embeddings of a model in training, which does not notice."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

NETWORKS = ('online', 'target')
"""Known values of ``network``."""
LAYERS = ('backbone', 'neck')
"""Known values of ``layer``."""

_COPIES = ('target_net', 'momentum_encoder')  # of VITO and BYOL, and of MoCo v3


class Embedder:
    """A part of a self-supervised model as a function of images.

    Args:
        model (nn.Module): Model with ``data_preprocessor``, ``backbone`` and perhaps ``neck``, such
            as :class:`vito_mm.models.selfsup.vito.VITO` or mmpretrain's BYOL.
        network (str): 'online', or 'target' for its slowly moving copy. Defaults to 'online'.
        layer (str): 'backbone' average-pools the last feature map, as :mod:`vito_mm.transfer` does.
            'neck' takes what the model's neck makes of the feature maps: for VITO the attention
            pooling. Defaults to 'backbone'.

    Raises:
        ValueError: If the model has no such part.
    """

    def __init__(self, model: nn.Module, network: str = 'online', layer: str = 'backbone') -> None:
        self.model = model
        parts = _parts(model, network)
        if layer not in LAYERS:
            raise ValueError(f'layer must be one of {LAYERS}, got {layer!r}')
        if layer == 'neck' and (len(parts) < 2 or parts[1] is None):
            raise ValueError(f"layer='neck': {type(model).__name__} has no neck; take 'backbone'")
        self.backbone = parts[0]
        self.neck = parts[1] if layer == 'neck' else None
        self.memory_format = getattr(model, 'memory_format', torch.contiguous_format)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Embed images.

        Args:
            images (Tensor): BGR, uint8, shape (N, 3, H, W).

        Returns:
            Tensor: Shape (N, C), float32, on the device of the model.
        """
        data = self.model.data_preprocessor(dict(inputs=images, data_samples=None), False)
        maps = self.backbone(data['inputs'].contiguous(memory_format=self.memory_format))
        if self.neck is not None:
            pooled = self.neck(maps)
            return (pooled[0] if isinstance(pooled, (tuple, list)) else pooled).float()
        last = maps[-1] if isinstance(maps, (tuple, list)) else maps
        return last.mean(dim=(2, 3)).float()


def _parts(model: nn.Module, network: str) -> Sequence[nn.Module | None]:
    if network not in NETWORKS:
        raise ValueError(f'network must be one of {NETWORKS}, got {network!r}')
    if network == 'online':
        return model.backbone, getattr(model, 'neck', None)
    for name in _COPIES:
        if hasattr(model, name):
            return tuple(getattr(model, name).module)
    raise ValueError(f"network='target': {type(model).__name__} has none; take 'online'")


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards modes and random numbers are as if nothing had been.

    Args:
        model (nn.Module): The model.
    """
    modes = [(module, module.training) for module in model.modules()]
    states = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        try:
            model.eval()  # batch norm keeps its running statistics
            yield
        finally:
            # Not train(), whose overrides decide for themselves what is trained.
            for module, training in modes:
                module.training = training
            random.setstate(states[0])
            np.random.set_state(states[1])
