"""vito_mm: VITO video pre-training as an OpenMMLab plugin.

Paper: Self-supervised video pretraining yields strong image representations,
https://arxiv.org/abs/2210.06433.

Importing this package registers its parts with MMEngine and imports none of mmpretrain, mmdet and
mmseg.
"""

import os

# Threads of PyTorch that wait sleep instead of spinning, which takes the cores of a busy machine
# from those that compute. It is read when torch is loaded: here if that comes later, and in the
# programs that are started from here. Where a GPU computes nothing is changed.
if not os.path.exists('/dev/nvidiactl'):
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from .compat import check_environment, install_patches
from .version import __version__

check_environment()
install_patches()

from . import datasets, engine, models, transfer  # noqa: E402
from .registry import publish  # noqa: E402

publish()

__all__ = ['__version__', 'datasets', 'engine', 'models', 'transfer']
