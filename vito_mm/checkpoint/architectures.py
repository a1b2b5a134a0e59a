"""Architectures of Swin, ConvNeXt and ViT by the shapes of their weights, and timm's names."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .families import FAMILIES
from .networks import is_target

Weights = Mapping[str, Tensor]
Config = dict[str, Any]


def config_of_weights(state_dict: Weights, which: str) -> Config | None:
    """Find a Swin, ConvNeXt or ViT among weights and write mmpretrain's config of it.

    Args:
        state_dict (Mapping[str, Tensor]): Weights of a file, with any prefixes and known names.
        which (str): ``'online'`` or ``'target'``.

    Returns:
        dict | None: The backbone, without settings that no weight depends on; None if there is no
        such backbone. The weights need not be complete.
    """
    for family in FAMILIES:
        first, describe = _DESCRIBED[family.name]
        for naming in family.namings:
            weights = naming.to_ours(state_dict)
            prefixes = {key.removesuffix(first) for key in weights if key.endswith(first)}
            for prefix in sorted(prefixes, key=lambda p: (p.count('.'), p)):
                if is_target(prefix) == (which == 'target'):
                    own = {k.removeprefix(prefix): v for k, v in weights.items()}
                    try:
                        return describe({k: v for k, v in own.items() if prefix + k in weights})
                    except (KeyError, IndexError):  # not all of it
                        continue
    return None


def _counts(weights: Weights, pattern: str) -> tuple[int, ...]:
    """Numbers of blocks of each stage; the pattern has the stage, then the block."""
    found = {tuple(map(int, m.groups())) for key in weights if (m := re.match(pattern, key))}
    stages = max(stage for stage, _ in found) + 1
    return tuple(max(block for s, block in found if s == stage) + 1 for stage in range(stages))


def _outputs(weights: Weights) -> tuple[int, ...]:
    found = (re.fullmatch(r'norm(\d+)\.weight', key) for key in weights)
    return tuple(sorted(int(match[1]) for match in found if match))


def _swin(weights: Weights) -> Config:
    depths = _counts(weights, r'stages\.(\d+)\.blocks\.(\d+)\.')
    tables = [
        weights[f'stages.{stage}.blocks.0.attn.w_msa.relative_position_bias_table']
        for stage in range(len(depths))
    ]
    patches = weights['patch_embed.projection.weight']
    config = dict(
        type='SwinTransformer',
        arch=dict(
            embed_dims=patches.shape[0],
            depths=depths,
            num_heads=tuple(table.shape[1] for table in tables),
        ),
        patch_size=patches.shape[-1],
        window_size=(math.isqrt(tables[0].shape[0]) + 1) // 2,
        out_indices=_outputs(weights),
    )
    if (positions := weights.get('absolute_pos_embed')) is not None:
        side = math.isqrt(positions.shape[1]) * patches.shape[-1]
        config |= dict(use_abs_pos_embed=True, img_size=side)
    return config


def _convnext(weights: Weights) -> Config:
    depths = _counts(weights, r'stages\.(\d+)\.(\d+)\.')
    first = 'stages.{}.0.depthwise_conv.weight'
    return dict(
        type='ConvNeXt',
        arch=dict(
            depths=depths,
            channels=tuple(weights[first.format(stage)].shape[0] for stage in range(len(depths))),
        ),
        stem_patch_size=weights['downsample_layers.0.0.weight'].shape[-1],
        linear_pw_conv=weights['stages.0.0.pointwise_conv1.weight'].ndim == 2,
        use_grn='stages.0.0.grn.gamma' in weights,
        layer_scale_init_value=1e-6 if 'stages.0.0.gamma' in weights else 0.0,
        out_indices=_outputs(weights),
    )


_HEADS = {(768, 8, 2304): 8, (1024, 24, 4096): 16, (1280, 32, 5120): 16}
"""Numbers of heads of mmpretrain's ViTs by width, layers and hidden width; others have 64 each."""


def _vit(weights: Weights) -> Config:
    layers = max(int(m[1]) for key in weights if (m := re.match(r'layers\.(\d+)\.', key))) + 1
    patches = weights['patch_embed.projection.weight']
    width, hidden = patches.shape[0], weights['layers.0.ffn.layers.0.0.weight'].shape[0]
    has_token = 'cls_token' in weights
    side = math.isqrt(weights['pos_embed'].shape[1] - has_token)
    return dict(
        type='VisionTransformer',
        arch=dict(
            embed_dims=width,
            num_layers=layers,
            num_heads=_HEADS.get((width, layers, hidden), max(width // 64, 1)),
            feedforward_channels=hidden,
        ),
        img_size=side * patches.shape[-1],
        patch_size=patches.shape[-1],
        with_cls_token=has_token,
        final_norm='ln1.weight' in weights,
        out_type='avg_featmap' if 'ln2.weight' in weights else 'featmap',
        layer_scale_init_value=1e-5 if 'layers.0.attn.gamma1.weight' in weights else 0.0,
    )


_DESCRIBED: dict[str, tuple[str, Callable[[Weights], Config]]] = {
    'Swin': ('stages.0.blocks.0.attn.w_msa.relative_position_bias_table', _swin),
    'ConvNeXt': ('stages.0.0.depthwise_conv.weight', _convnext),
    'ViT': ('layers.0.attn.qkv.weight', _vit),
}
"""For each family a key of the first block and the function that describes its weights."""


def _swins() -> dict[tuple, str]:
    deep, heads = (2, 2, 18, 2), (3, 6, 12, 24)
    sizes = {
        'tiny': (96, (2, 2, 6, 2), heads),
        'small': (96, deep, heads),
        'base': (128, deep, (4, 8, 16, 32)),
        'large': (192, deep, (6, 12, 24, 48)),
    }
    names = {(*size, 7): f'swin_{name}_patch4_window7_224' for name, size in sizes.items()}
    larger = {(*sizes[name], 12): f'swin_{name}_patch4_window12_384' for name in ('base', 'large')}
    return names | larger


def _convnexts() -> dict[tuple, str]:
    first = dict(
        tiny=((3, 3, 9, 3), 96),
        small=((3, 3, 27, 3), 96),
        base=((3, 3, 27, 3), 128),
        large=((3, 3, 27, 3), 192),
        xlarge=((3, 3, 27, 3), 256),
    )
    second = dict(
        atto=((2, 2, 6, 2), 40),
        femto=((2, 2, 6, 2), 48),
        pico=((2, 2, 6, 2), 64),
        nano=((2, 2, 8, 2), 80),
        tiny=((3, 3, 9, 3), 96),
        base=((3, 3, 27, 3), 128),
        large=((3, 3, 27, 3), 192),
        huge=((3, 3, 27, 3), 352),
    )
    return {
        (depths, tuple(width * 2**stage for stage in range(4)), version == 'v2'): (
            f'convnext{version}_{name}'
        )
        for version, sizes in (('', first), ('v2', second))
        for name, (depths, width) in sizes.items()
    }


def _vits() -> dict[tuple, str]:
    sizes = dict(
        tiny=(192, 12, 3, 768),
        small=(384, 12, 6, 1536),
        base=(768, 12, 12, 3072),
        large=(1024, 24, 16, 4096),
    )
    patches = dict(tiny=(16,), small=(16, 32), base=(8, 16, 32), large=(16, 32))
    return {
        (*size, patch, 224): f'vit_{name}_patch{patch}_224'
        for name, size in sizes.items()
        for patch in patches[name]
    } | {(*sizes[name], 16, 384): f'vit_{name}_patch16_384' for name in sizes}


TIMM = _swins() | _convnexts() | _vits()
"""timm's models by the widths, depths and so on that they have."""

OF_CONVOLUTIONS = tuple(f'convnextv2_{size}' for size in ('atto', 'femto', 'pico', 'nano'))
"""Those of timm's models that have 1x1 convolutions for linear layers."""


def timm_name(config: Config) -> str | None:
    """Name of timm's model of an architecture, None if it has none.

    Args:
        config (dict): See :func:`config_of_weights`.
    """
    arch = config['arch']
    if config['type'] == 'SwinTransformer':
        described = arch['embed_dims'], arch['depths'], arch['num_heads'], config['window_size']
        fits = config['patch_size'] == 4 and 'use_abs_pos_embed' not in config
    elif config['type'] == 'ConvNeXt':
        described = arch['depths'], arch['channels'], config['use_grn']
        has_scale = config['layer_scale_init_value'] > 0
        fits = config['stem_patch_size'] == 4 and has_scale != config['use_grn']
    else:
        names = ('embed_dims', 'num_layers', 'num_heads', 'feedforward_channels')
        sizes = config['patch_size'], config['img_size']
        described = tuple(arch[name] for name in names) + sizes
        fits = config['with_cls_token'] and not config['layer_scale_init_value']
    return TIMM.get(described) if fits else None
