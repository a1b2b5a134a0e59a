"""Algorithms. They subclass mmpretrain's base class, so they are imported when first built."""

from vito_mm.registry import MODELS, register_lazily

register_lazily(MODELS, 'VITO', 'vito_mm.models.selfsup.vito')

__all__: list[str] = []
