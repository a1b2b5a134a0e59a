"""Heads: the contrastive loss."""

from .infonce_head import InfoNCEHead

__all__ = ['InfoNCEHead']
