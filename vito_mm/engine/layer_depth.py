"""Depth of a parameter in a backbone, for learning rates that fall towards the stem."""

import re

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

_BLOCK = re.compile(r'layer\d+\.|stages\.\d+\.(?:blocks\.)?\d+\.|(?:layers|blocks)\.\d+\.')
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)  # batch and instance norm are of the first


def layer_depths(backbone: nn.Module) -> tuple[dict[str, int], int]:
    """Count the depth of each parameter: 0 is the stem, then each layer, at last the head.

    Layers are what mmpretrain's ``get_layer_depth`` says where the backbone has it. Otherwise
    (mmdet, mmseg) a layer is a stage of a ResNet, or a block of a Swin or vision transformer; norms
    after the last one count as head.

    Returns:
        tuple[dict[str, int], int]: Depth by parameter name, and that of the head.

    Raises:
        ValueError: If the names tell of no layers, or of further parts between or after them.
    """
    names = [name for name, _ in backbone.named_parameters()]
    try:
        found = [backbone.get_layer_depth(f'backbone.{name}', 'backbone.') for name in names]
        return {name: depth for name, (depth, _) in zip(names, found, strict=True)}, found[0][1] - 1
    except (AttributeError, NotImplementedError):  # mmpretrain's knows ResNets from 50 layers on
        pass
    depths = {}
    place, depth, unknown = '', 0, ''
    for name in names:
        block = _BLOCK.match(name)
        if block and block.group() != place:
            place, depth = block.group(), depth + 1
        # The stem comes before the first block, downsampling within a stage, norms at the end.
        if block or not place or name.startswith('stages.'):
            depths[name] = depth
        elif isinstance(backbone.get_submodule(name.rpartition('.')[0]), _NORMS):
            depths[name] = -1
        else:
            unknown = unknown or name
    if not depth or unknown:
        raise ValueError(
            'optim_wrapper.paramwise_cfg.layer_decay_rate: the order of the layers of a '
            f'{type(backbone).__name__} is not known{unknown and f" ({unknown})"}. Leave it at '
            '1.0, or name stages in paramwise_cfg.custom_keys with an lr_mult'
        )
    return {name: depth + 1 if at < 0 else at for name, at in depths.items()}, depth + 1
