"""Hooks around the training loop."""

from .atomic_checkpoint_hook import AtomicCheckpointHook
from .attention_hook import AttentionHook
from .collapse_hook import CollapseHook
from .knn_probe_hook import KNNProbeHook
from .non_finite_hook import NonFiniteHook
from .representation_hook import RepresentationHook
from .run_record_hook import RunRecordHook
from .skipped_videos_hook import SkippedVideosHook
from .target_ema_hook import TargetEMAHook
from .time_retrieval_hook import TimeRetrievalHook

__all__ = [
    'AtomicCheckpointHook',
    'AttentionHook',
    'CollapseHook',
    'KNNProbeHook',
    'NonFiniteHook',
    'RepresentationHook',
    'RunRecordHook',
    'SkippedVideosHook',
    'TargetEMAHook',
    'TimeRetrievalHook',
]
