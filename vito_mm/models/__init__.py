"""Parts of the VITO network that mmpretrain does not have."""

from .backbones import *  # noqa: F403
from .heads import InfoNCEHead
from .necks import AttentionPooling, MultiScaleAttentionPooling
from .preprocessors import *  # noqa: F403
from .selfsup import *  # noqa: F403

__all__ = ['AttentionPooling', 'InfoNCEHead', 'MultiScaleAttentionPooling']
