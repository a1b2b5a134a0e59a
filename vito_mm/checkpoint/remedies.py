"""What to do about a checkpoint that does not cover a backbone."""

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .matching import BackboneMatch


def remedy_of(match: 'BackboneMatch') -> str:
    """Say what to do about an incomplete match."""
    if match.family != 'ResNet':
        return _remedy_of_other(match)
    stem_missing = any(key.startswith('stem.') for key in match.missing)
    if stem_missing and not any(key.startswith('stem.') for key in match.unexpected):
        return (
            'The model has the deep stem of three 3x3 convolutions (deep_stem=True, ResNetV1c or '
            'ResNetV1d) and the checkpoint the plain 7x7 stem: set deep_stem=False or use '
            'type="VITOResNet" without it.'
        )
    statistics = ('.running_mean', '.running_var')
    has_statistics = any(key.endswith(statistics) for key in match.weights)
    if match.missing and not has_statistics and all(k.endswith(statistics) for k in match.missing):
        return (
            'The running statistics of batch norm are missing: the file holds parameters without '
            'buffers, as averages over model.parameters() do. Save the state_dict() of the model '
            'that has these parameters.'
        )
    if any('.gn' in key or key.startswith('gn') for key in match.new):
        return (
            'The model has group norm and the checkpoint batch norm, whose scales and statistics '
            "have no place in it: set the backbone's norm_cfg=dict(type='BN') (or 'SyncBN') and "
            'leave conv_cfg out.'
        )
    found, wanted = match.depths
    if None not in match.depths and found != wanted:
        return (
            f'The checkpoint holds a ResNet-{found} and the model is a ResNet-{wanted}: set '
            f'depth={found} and the in_channels that go with it, or take the checkpoint of a '
            f'ResNet-{wanted}.'
        )
    if text := _remedy_of_hardly_anything(match):
        return text
    if any(key.startswith('conv1.weight') for key in match.shape_mismatch):
        return (
            "The model's stem has another width than the checkpoint's: leave stem_channels and "
            'base_channels out of the config.'
        )
    return (
        'The checkpoint is of another ResNet than the model: compare base_channels, '
        'num_stages, plugins and norm_cfg with those of the pre-training.'
    )


def _remedy_of_other(match: 'BackboneMatch') -> str:
    if text := _remedy_of_hardly_anything(match):
        return text
    for text in match.shape_mismatch:
        found = re.search(r'relative_position_bias_table \((\d+), (\d+)\) -> \((\d+), \2\)', text)
        if found:
            return (
                'The windows of the model have another size than those of the checkpoint: set '
                f'window_size={(math.isqrt(int(found[1])) + 1) // 2}.'
            )
    settings = {
        'patch_embed.projection.bias': 'patch_bias=True',
        'absolute_pos_embed': 'use_abs_pos_embed=True',
        'cls_token': 'with_cls_token=True',
        'dist_token': 'type="DistilledVisionTransformer"',
        'pre_norm.weight': 'pre_norm=True',
    }
    wanted = [setting for key, setting in settings.items() if key in match.unexpected]
    if wanted:
        return f'The model lacks a part that the checkpoint has: set {", ".join(wanted)}.'
    if any(text.startswith('pos_embed ') for text in match.shape_mismatch):
        return (
            'The position embedding of the checkpoint does not fit and cannot be resized: set '
            'img_size and with_cls_token as they were.'
        )
    return (
        f'The checkpoint is of another {match.family or "backbone"} than the model: compare '
        'widths, numbers of blocks and options with those of the pre-training.'
    )


def _remedy_of_hardly_anything(match: 'BackboneMatch') -> str:
    if len(match.weights) >= 0.1 * match.total:
        return ''
    return (
        f'The nearest prefix in the file, {match.prefix!r}, holds next to nothing of the '
        'backbone. Is it the checkpoint of another architecture?'
    )
