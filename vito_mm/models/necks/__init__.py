"""Necks: from feature maps to one vector an image."""

from .attention_pooling import AttentionPooling, MultiScaleAttentionPooling

__all__ = ['AttentionPooling', 'MultiScaleAttentionPooling']
