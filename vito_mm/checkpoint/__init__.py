"""The checkpoint format: reading, strict loading, config checks and export."""

from .checkpoint import Checkpoint
from .config_check import ConfigCheck, check_config
from .conventions import Conventions
from .errors import CheckpointError
from .export import export_backbone
from .layouts import resnet_keys
from .loading import load_backbone, load_pretraining
from .matching import NETWORKS, BackboneMatch
from .preprocessing import PREPROCESSING

__all__ = [
    'NETWORKS',
    'PREPROCESSING',
    'BackboneMatch',
    'Checkpoint',
    'CheckpointError',
    'ConfigCheck',
    'Conventions',
    'check_config',
    'export_backbone',
    'load_backbone',
    'load_pretraining',
    'resnet_keys',
]
