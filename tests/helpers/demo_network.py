"""The network of ``configs/miniscenes``."""

import torch
from torch import Tensor


def demo_weights() -> dict[str, Tensor]:
    """Random weights of a ResNet-18 of half width, with torchvision's names and without ``fc``."""
    from mmpretrain.models import ResNet

    return ResNet(18, stem_channels=32, base_channels=32).state_dict()


def demo_checkpoint(file) -> str:
    """Write what a pre-training leaves of it."""
    weights = {f'backbone.{key}': value for key, value in demo_weights().items()}
    torch.save({'state_dict': weights, 'meta': {'iter': 30}}, file)
    return str(file)
