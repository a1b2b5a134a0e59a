"""Layers of networks of mmpretrain, mmseg, timm and torchvision, and the feature maps they give."""

import re
from collections.abc import Sequence

from torch import Tensor, nn


def stages_of(backbone: nn.Module) -> list[nn.Module]:
    """List the stages of a network of mmpretrain, mmseg, timm or torchvision, or its blocks.

    Raises:
        ValueError: If it has none under a known name.
    """
    if hasattr(backbone, 'layer1'):
        names = [name for name, _ in backbone.named_children() if re.fullmatch(r'layer\d', name)]
        return [getattr(backbone, name) for name in names]
    for owner in (backbone, getattr(backbone, 'encoder', None)):
        for name in ('stages', 'blocks', 'layers', 'features'):
            if found := list(getattr(owner, name, ())):
                # MobileNets of mmpretrain list names.
                return [getattr(backbone, x) if isinstance(x, str) else x for x in found]
    raise ValueError(f'{type(backbone).__name__} has no known stages: name a submodule')


def module_of(backbone: nn.Module, layer: str | int) -> nn.Module:
    """Find the module whose output a layer is, see :class:`.encoder.Encoder`.

    Raises:
        ValueError: If there is no such layer.
    """
    found = re.fullmatch(r'res(\d)|(-?\d+)', str(layer))
    if found is None:
        try:
            return backbone.get_submodule(layer)
        except AttributeError:
            names = ', '.join(name for name, _ in backbone.named_children())
            raise ValueError(
                f'there is no layer {layer!r}: take pooled, neck, last, res2 to res5, the '
                f'index of a stage, or a submodule of {names}'
            ) from None
    index = int(found[1]) - 2 if found[1] else int(found[2])
    stages = stages_of(backbone)
    if not -len(stages) <= index < len(stages):
        raise ValueError(f'there is no layer {layer!r}: the network has {len(stages)} stages')
    return stages[index]


def as_map(
    output: Tensor | Sequence,
    backbone: nn.Module,
    size: Sequence[int],
    channels_first: bool = False,
) -> Tensor:
    """Make a feature map (N, C, h, w) of the output of a backbone's module, tokens too.

    Args:
        output (Tensor | Sequence): Of the module.
        backbone (nn.Module): Tells of extra tokens, and of maps with their channels last, as those
            of a few transformers are.
        size (Sequence[int]): Height and width of the images, whose shape the map gets.
        channels_first (bool): The module has its channels first in any network. Defaults to False.

    Raises:
        ValueError: If the output is no map.
    """
    grid = None
    if isinstance(output, (tuple, list)):
        if len(output) == 2 and not isinstance(output[1], Tensor):
            output, grid = output  # Swin's stages
        else:
            output = output[-1]
    if output.ndim == 4:
        is_last = getattr(backbone, 'output_fmt', 'NCHW') == 'NHWC'  # timm's
        # By name: importing torchvision takes time.
        is_last |= type(backbone).__module__ == 'torchvision.models.swin_transformer'
        return output.permute(0, 3, 1, 2) if is_last and not channels_first else output
    if output.ndim != 3:
        raise ValueError(f'the layer gives {tuple(output.shape[1:])} numbers and no map')
    for name in ('num_extra_tokens', 'num_prefix_tokens'):  # mmpretrain's and timm's
        if hasattr(backbone, name):
            output = output[:, getattr(backbone, name) :]
            break
    else:
        output = output[:, int(hasattr(backbone, 'class_token')) :]  # torchvision's
    tokens, (height, width) = output.shape[1], size
    rows = [n for n in range(1, tokens + 1) if tokens % n == 0]
    nearest = min(rows, key=lambda n: abs(n - (tokens * height / width) ** 0.5))
    grid = grid or (nearest, tokens // nearest)
    return output.unflatten(1, grid).permute(0, 3, 1, 2)


def puts_channels_first(module: nn.Module) -> bool:
    """True for modules whose output has its channels first, in any network."""
    is_turned = type(module).__name__ == 'Permute' and module.dims == [0, 3, 1, 2]  # torchvision's
    return is_turned or isinstance(module, (nn.Conv2d, nn.AdaptiveAvgPool2d))
