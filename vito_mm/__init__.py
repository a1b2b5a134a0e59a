"""vito_mm: VITO video pre-training as an OpenMMLab plugin.

Paper: Self-supervised video pretraining yields strong image representations,
https://arxiv.org/abs/2210.06433.

Importing this package registers its parts with MMEngine and imports none of mmpretrain, mmdet and
mmseg.
"""

from .compat import check_environment, install_patches
from .version import __version__

check_environment()
install_patches()

from . import datasets, engine, models, transfer  # noqa: E402
from .registry import publish  # noqa: E402

publish()

__all__ = ['__version__', 'datasets', 'engine', 'models', 'transfer']
