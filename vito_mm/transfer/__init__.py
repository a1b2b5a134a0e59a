"""From a pre-training checkpoint to the tasks of mmseg and mmdet."""

from vito_mm.registry import METRICS, register_lazily

from .checkpoint import (
    BackboneMatch,
    CheckpointError,
    check_config,
    export_backbone,
    find_backbone,
    load_backbone,
    read_checkpoint,
    resnet_keys,
    state_dict_of,
)

register_lazily(METRICS, 'FasterLVISMetric', 'vito_mm.transfer.lvis_metric')

__all__ = [
    'BackboneMatch',
    'CheckpointError',
    'check_config',
    'export_backbone',
    'find_backbone',
    'load_backbone',
    'read_checkpoint',
    'resnet_keys',
    'state_dict_of',
]
