"""Backbones."""

from .vito_resnet import VITOResNet

__all__ = ['VITOResNet']
