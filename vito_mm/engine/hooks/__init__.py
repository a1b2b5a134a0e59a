"""Hooks around the training loop."""

from .skipped_videos_hook import SkippedVideosHook
from .target_ema_hook import TargetEMAHook

__all__ = ['SkippedVideosHook', 'TargetEMAHook']
