"""What MMEngine does not have around the training loop."""

from .hooks import SkippedVideosHook, TargetEMAHook
from .optim_wrapper_constructor import TrainableParamsConstructor

__all__ = ['SkippedVideosHook', 'TargetEMAHook', 'TrainableParamsConstructor']
