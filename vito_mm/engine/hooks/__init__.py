"""Hooks around the training loop."""

from .atomic_checkpoint_hook import AtomicCheckpointHook
from .collapse_hook import CollapseHook
from .non_finite_hook import NonFiniteHook
from .run_record_hook import RunRecordHook
from .skipped_videos_hook import SkippedVideosHook
from .target_ema_hook import TargetEMAHook

__all__ = [
    'AtomicCheckpointHook',
    'CollapseHook',
    'NonFiniteHook',
    'RunRecordHook',
    'SkippedVideosHook',
    'TargetEMAHook',
]
