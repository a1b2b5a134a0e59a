"""Tiny backbones of one architecture in several libraries, and their features stage by stage."""

from collections.abc import Callable
from functools import partial

import mmdet.models
import mmpretrain.models
import mmseg.models
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import pad

DEPTHS = (2, 2, 2, 1)
HEADS = (1, 2, 2, 4)
WIDTH = 16
PATCH = 4

NARROW_HRNET = {
    f'stage{stage}': dict(
        num_modules=1,
        num_branches=stage,
        block='BOTTLENECK' if stage == 1 else 'BASIC',
        num_blocks=(1,) * stage,
        num_channels=(16, 16, 32, 64)[:stage],
    )
    for stage in range(1, 5)
}
"""The argument ``extra`` of an HRNet, in any of the libraries."""


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Replace all weights by such as no initialisation makes; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point() or 'attn_mask' in name:
                continue
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith('running_var'):
                value.copy_(1 + noise.abs())
            elif value.squeeze().ndim == 1 and not name.endswith(('bias', 'running_mean')):
                value.copy_(1 + noise / 4)  # scales
            else:
                value.copy_(noise / max(1.0, value[0].numel() ** 0.5))
    model.eval()
    return model


# Other libraries: a model, and its feature maps before the norm of the outputs, the last one after


def timm_swin(size: int = 64, **settings) -> nn.Module:
    model = dict(embed_dim=WIDTH, depths=DEPTHS, num_heads=HEADS, window_size=2, num_classes=5)
    return timm.models.swin_transformer.SwinTransformer(img_size=size, **model | settings)


def timm_swin_features(model: nn.Module, images: Tensor) -> list[Tensor]:
    x, maps = model.patch_embed(images), []
    for layer in model.layers:
        x = layer(x)
        maps.append(x)
    maps[-1] = model.norm(maps[-1])
    return [x.permute(0, 3, 1, 2) for x in maps]


def torchvision_swin(size: int = 64) -> nn.Module:
    swin = torchvision.models.swin_transformer.SwinTransformer
    return swin([PATCH, PATCH], WIDTH, DEPTHS, HEADS, [2, 2], num_classes=5)


def torchvision_swin_features(model: nn.Module, images: Tensor) -> list[Tensor]:
    x, maps = images, []
    for index, layer in enumerate(model.features):
        x = layer(x)
        if index % 2:
            maps.append(x)
    maps[-1] = model.norm(maps[-1])
    return [x.permute(0, 3, 1, 2) for x in maps]


def timm_convnext(size: int = 64, **settings) -> nn.Module:
    dims = tuple(WIDTH * 2**stage for stage in range(4))
    return timm.models.convnext.ConvNeXt(
        num_classes=5, depths=DEPTHS, dims=dims, norm_eps=1e-6, **settings
    )


def timm_convnext_features(model: nn.Module, images: Tensor) -> list[Tensor]:
    x, maps = model.stem(images), []
    for stage in model.stages:
        x = stage(x)
        maps.append(x)
    maps[-1] = model.head.norm(maps[-1])
    return maps


def torchvision_convnext(size: int = 64) -> nn.Module:
    convnext = torchvision.models.convnext
    widths = [*(WIDTH * 2**stage for stage in range(4)), None]
    settings = [
        convnext.CNBlockConfig(*widths[stage : stage + 2], depth)
        for stage, depth in enumerate(DEPTHS)
    ]
    return convnext.ConvNeXt(settings, num_classes=5)


def torchvision_convnext_features(model: nn.Module, images: Tensor) -> list[Tensor]:
    x, maps = images, []
    for index, layer in enumerate(model.features):
        x = layer(x)
        if index % 2:
            maps.append(x)
    maps[-1] = model.classifier[0](maps[-1])
    return maps


def timm_vit(size: int = 16, **settings) -> nn.Module:
    model = dict(patch_size=PATCH, embed_dim=WIDTH, depth=3, num_heads=2, num_classes=5)
    return timm.models.vision_transformer.VisionTransformer(img_size=size, **model | settings)


def timm_vit_features(model: nn.Module, images: Tensor) -> list[Tensor]:
    x, outputs = model._pos_embed(model.patch_embed(images)), []
    for block in model.blocks:
        x = block(x)
        outputs.append(x)
    outputs[-1] = model.norm(outputs[-1])
    return outputs


def torchvision_vit(size: int = 16) -> nn.Module:
    vit = torchvision.models.vision_transformer.VisionTransformer
    return vit(size, PATCH, 3, 2, WIDTH, 4 * WIDTH, num_classes=5)


def torchvision_vit_features(model: nn.Module, images: Tensor) -> list[Tensor]:
    x = model._process_input(images)
    x = torch.cat([model.class_token.expand(len(x), -1, -1), x], dim=1)
    x, outputs = x + model.encoder.pos_embedding, []
    for layer in model.encoder.layers:
        x = layer(x)
        outputs.append(x)
    outputs[-1] = model.encoder.ln(outputs[-1])
    return outputs


# OpenMMLab's libraries


def openmmlab_swin(library: str, **settings) -> nn.Module:
    settings = dict(window_size=2, out_indices=(0, 1, 2, 3)) | settings
    if library == 'mmpretrain':
        arch = dict(embed_dims=WIDTH, depths=DEPTHS, num_heads=HEADS)
        settings = dict(pad_small_map=True) | settings
        return mmpretrain.models.SwinTransformer(arch, **settings)
    stock = {'mmdet': mmdet, 'mmseg': mmseg}[library].models.backbones.SwinTransformer
    return stock(**dict(embed_dims=WIDTH, depths=DEPTHS, num_heads=HEADS) | settings)


def openmmlab_convnext(library: str = 'mmpretrain', **settings) -> nn.Module:
    arch = dict(depths=DEPTHS, channels=[WIDTH * 2**stage for stage in range(4)])
    settings = dict(out_indices=(0, 1, 2, 3), gap_before_final_norm=False) | settings
    return mmpretrain.models.ConvNeXt(arch, **settings)


def openmmlab_vit(library: str, size: int = 16, **settings) -> nn.Module:
    settings = dict(img_size=size, patch_size=PATCH, out_indices=(0, 1, 2)) | settings
    if library == 'mmpretrain':
        arch = dict(embed_dims=WIDTH, num_layers=3, num_heads=2, feedforward_channels=4 * WIDTH)
        return mmpretrain.models.VisionTransformer(arch, **dict(out_type='raw') | settings)
    return mmseg.models.backbones.VisionTransformer(
        embed_dims=WIDTH,
        num_layers=3,
        num_heads=2,
        **dict(
            patch_bias=True,
            final_norm=True,
            norm_cfg=dict(type='LN', eps=1e-6),
        )
        | settings,
    )


@torch.no_grad()
def openmmlab_features(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Outputs before the norms that only OpenMMLab adds."""
    kept = {f'norm{stage}': getattr(model, f'norm{stage}', None) for stage in range(3)}
    is_vit = hasattr(model, 'cls_token')
    for name, norm in kept.items():
        if norm is not None and not is_vit:
            setattr(model, name, _Unchanged())
    model.eval()
    outputs = list(model(images))
    for name, norm in kept.items():
        if norm is not None and not is_vit:
            setattr(model, name, norm)
    return outputs


class _Unchanged(nn.Module):
    def forward(self, x: Tensor, **_) -> Tensor:
        return x


def padded(images: Tensor) -> Tensor:
    """Pad images to complete patches, as OpenMMLab's patch embedding does by itself."""
    height, width = images.shape[-2:]
    return pad(images, (0, -width % PATCH, 0, -height % PATCH))


FAMILIES: dict[str, tuple[Callable, list[str], dict[str, tuple[Callable, Callable]]]] = {
    'Swin': (
        openmmlab_swin,
        ['mmpretrain', 'mmdet', 'mmseg'],
        {
            'timm': (timm_swin, timm_swin_features),
            'torchvision': (torchvision_swin, torchvision_swin_features),
        },
    ),
    'ConvNeXt': (
        openmmlab_convnext,
        ['mmpretrain'],
        {
            'timm': (timm_convnext, timm_convnext_features),
            'timm of convolutions': (
                partial(timm_convnext, conv_mlp=True),
                timm_convnext_features,
            ),
            'torchvision': (torchvision_convnext, torchvision_convnext_features),
        },
    ),
    'ViT': (
        openmmlab_vit,
        ['mmpretrain', 'mmseg'],
        {
            'timm': (timm_vit, timm_vit_features),
            'torchvision': (torchvision_vit, torchvision_vit_features),
        },
    ),
}
"""For each family OpenMMLab's backbone, the libraries that have it, and other libraries' models."""
