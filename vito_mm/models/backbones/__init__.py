"""Backbones."""

from .vito_backbone import VITOBackbone, VITOResNet

__all__ = ['VITOBackbone', 'VITOResNet']
