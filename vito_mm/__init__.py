"""vito_mm: VITO video pre-training as an OpenMMLab plugin.

Paper: Self-supervised video pretraining yields strong image representations,
https://arxiv.org/abs/2210.06433.

Importing this package registers its parts with MMEngine and imports none of mmpretrain, mmdet and
mmseg.
"""

import os
from importlib import import_module
from typing import Any

# Waiting threads of PyTorch spin without end, which takes the cores of a busy machine from those
# that compute. They spin a moment and then sleep (benchmarks/busy_machine.py: OMP_WAIT_POLICY=
# PASSIVE, which never spins, costs an idle machine far more). The OpenMP runtime reads this when
# torch is loaded: here if that comes later, and in programs started from here.
if 'OMP_WAIT_POLICY' not in os.environ and not os.path.exists('/dev/nvidiactl'):
    os.environ.setdefault('GOMP_SPINCOUNT', '10000')

from .compat import check_environment, install_patches
from .version import __version__

check_environment()
install_patches()

from . import datasets, engine, evaluation, models  # noqa: E402
from .registry import publish  # noqa: E402

publish()

__all__ = [
    'Encoder',
    '__version__',
    'datasets',
    'engine',
    'evaluation',
    'load_encoder',
    'models',
]

_LAZY = dict(Encoder='vito_mm.probes.encoder', load_encoder='vito_mm.probes.loading')


def __getattr__(name: str) -> Any:
    """Import what pre-training does not need when it is asked for (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_LAZY[name]), name)
