"""From a pre-training checkpoint to the tasks of mmseg and mmdet."""

from vito_mm.registry import METRICS, register_lazily

from .checkpoint import BackboneMatch, find_backbone, load_backbone
from .checkpoint_file import CheckpointError, read_checkpoint, state_dict_of
from .config_check import ConfigCheck, check_config
from .export import export_backbone
from .resnet_names import resnet_keys

register_lazily(METRICS, 'FasterLVISMetric', 'vito_mm.transfer.lvis_metric')

__all__ = [
    'BackboneMatch',
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
