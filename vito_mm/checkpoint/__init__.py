"""The checkpoint format: reading, strict matching of keys, config checks and export."""

from .checkpoint import Checkpoint
from .config_check import ConfigCheck, check_config
from .export import export_backbone
from .layouts import resnet_keys
from .matching import BackboneMatch, find_backbone, load_backbone
from .reading import CheckpointError, read_checkpoint, state_dict_of

__all__ = [
    'BackboneMatch',
    'Checkpoint',
    'CheckpointError',
    'ConfigCheck',
    'check_config',
    'export_backbone',
    'find_backbone',
    'load_backbone',
    'read_checkpoint',
    'resnet_keys',
    'state_dict_of',
]
