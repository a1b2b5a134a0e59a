"""Training loop, optimizer wrapper, optimizers and hooks that MMEngine does not have."""

from .clip_train_loop import ClipTrainLoop
from .hooks import *  # noqa: F403
from .optim_wrapper_constructor import TrainableParamsConstructor
from .optimizers import *  # noqa: F403
from .skip_non_finite_optim_wrapper import SkipNonFiniteOptimWrapper
from .warm_up_lr import WarmUpLR

__all__ = ['ClipTrainLoop', 'SkipNonFiniteOptimWrapper', 'TrainableParamsConstructor', 'WarmUpLR']
