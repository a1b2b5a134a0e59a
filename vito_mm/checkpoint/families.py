"""Families of backbones, and the names that libraries give to their parts.

OpenMMLab's libraries share one way per family, mmpretrain's (``'openmmlab'``), but for mmseg's ViT.
The tables lead to it and back, with the permutations that the same function needs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from torch import Tensor

from .layouts import NAMINGS, is_plain
from .renaming import Naming, Rule, Template, Weights


def _unfolded(x: Tensor) -> Tensor:
    """Reorder the inputs of Swin's patch merging from the original's to OpenMMLab's.

    The original, timm and torchvision put the four neighbours one after the other, column by
    column; ``torch.nn.Unfold`` gives them row by row for each channel. As mmdet's swin_converter.
    """
    x = x.reshape(*x.shape[:-1], 4, -1)[..., [0, 2, 1, 3], :]
    return x.transpose(-1, -2).flatten(-2)


def _folded(x: Tensor) -> Tensor:
    """Undo :func:`_unfolded`."""
    x = x.reshape(*x.shape[:-1], -1, 4).transpose(-1, -2)
    return x[..., [0, 2, 1, 3], :].flatten(-2)


def _naming(name: str, *rules: tuple) -> Naming:
    return Naming(
        name,
        tuple(Rule(Template(theirs), Template(ours), *ways) for theirs, ours, *ways in rules),
    )


def _swin(name: str, stem: str, norm: str, block: str, fcs: tuple, merging: str) -> Naming:
    ours, merge = 'stages.{i}.blocks.{j}', (_unfolded, _folded)
    tables = ('relative_position_bias_table', 'relative_position_index')
    return _naming(
        name,
        (stem + '.{p}', 'patch_embed.projection.{p}'),
        (norm + '.{p}', 'patch_embed.norm.{p}'),
        (block + '.norm{k}.{p}', ours + '.norm{k}.{p}'),
        (block + '.attn.qkv.{p}', ours + '.attn.w_msa.qkv.{p}'),
        (block + '.attn.proj.{p}', ours + '.attn.w_msa.proj.{p}'),
        *((f'{block}.attn.{table}', f'{ours}.attn.w_msa.{table}') for table in tables),
        (f'{block}.mlp.{fcs[0]}.{{p}}', ours + '.ffn.layers.0.0.{p}'),
        (f'{block}.mlp.{fcs[1]}.{{p}}', ours + '.ffn.layers.1.{p}'),
        (merging + '.reduction.{p}', 'stages.{i}.downsample.reduction.{p}', *merge),
        (merging + '.norm.{p}', 'stages.{i}.downsample.norm.{p}', *merge),
        ('absolute_pos_embed', 'absolute_pos_embed'),
        ('norm.{p}', 'norm{last}.{p}'),
    )


_PATCHES = ('patch_embed.proj', 'patch_embed.norm')
_BLOCK = 'layers.{i}.blocks.{j}'
SWIN = (
    _swin('timm', *_PATCHES, _BLOCK, ('fc1', 'fc2'), 'layers.{i+1}.downsample'),
    _swin('original', *_PATCHES, _BLOCK, ('fc1', 'fc2'), 'layers.{i}.downsample'),
    _swin(
        'torchvision',
        *('features.0.0', 'features.0.2', 'features.{2i+1}.{j}'),
        ('0', '3'),
        'features.{2i+2}',
    ),
)
"""Names of https://arxiv.org/abs/2103.14030 in other places; timm before 0.9 has the original's."""

_CONVNEXT_BLOCK = 'stages.{i}.{j}'
_COLUMN = (Tensor.flatten, lambda x: x[:, None, None])  # a scale per channel of a map
CONVNEXT = (
    _naming(
        'timm',
        ('stem.{k}.{p}', 'downsample_layers.0.{k}.{p}'),
        ('stages.{i+1}.downsample.{k}.{p}', 'downsample_layers.{i+1}.{k}.{p}'),
        ('stages.{i}.blocks.{j}.conv_dw.{p}', _CONVNEXT_BLOCK + '.depthwise_conv.{p}'),
        ('stages.{i}.blocks.{j}.norm.{p}', _CONVNEXT_BLOCK + '.norm.{p}'),
        ('stages.{i}.blocks.{j}.mlp.fc1.{p}', _CONVNEXT_BLOCK + '.pointwise_conv1.{p}'),
        ('stages.{i}.blocks.{j}.mlp.fc2.{p}', _CONVNEXT_BLOCK + '.pointwise_conv2.{p}'),
        ('stages.{i}.blocks.{j}.mlp.grn.weight', _CONVNEXT_BLOCK + '.grn.gamma'),
        ('stages.{i}.blocks.{j}.mlp.grn.bias', _CONVNEXT_BLOCK + '.grn.beta'),
        ('stages.{i}.blocks.{j}.gamma', _CONVNEXT_BLOCK + '.gamma'),
        ('head.norm.{p}', 'norm{last}.{p}'),
    ),
    _naming(
        'original',
        ('downsample_layers.{i}.{k}.{p}', 'downsample_layers.{i}.{k}.{p}'),
        ('stages.{i}.{j}.dwconv.{p}', _CONVNEXT_BLOCK + '.depthwise_conv.{p}'),
        ('stages.{i}.{j}.norm.{p}', _CONVNEXT_BLOCK + '.norm.{p}'),
        ('stages.{i}.{j}.pwconv{k}.{p}', _CONVNEXT_BLOCK + '.pointwise_conv{k}.{p}'),
        ('stages.{i}.{j}.grn.{p}', _CONVNEXT_BLOCK + '.grn.{p}', Tensor.flatten),
        ('stages.{i}.{j}.gamma', _CONVNEXT_BLOCK + '.gamma'),
        ('norm.{p}', 'norm{last}.{p}'),
    ),
    _naming(
        'torchvision',
        ('features.0.{k}.{p}', 'downsample_layers.0.{k}.{p}'),
        ('features.{2i+1}.{j}.block.0.{p}', _CONVNEXT_BLOCK + '.depthwise_conv.{p}'),
        ('features.{2i+1}.{j}.block.2.{p}', _CONVNEXT_BLOCK + '.norm.{p}'),
        ('features.{2i+1}.{j}.block.3.{p}', _CONVNEXT_BLOCK + '.pointwise_conv1.{p}'),
        ('features.{2i+1}.{j}.block.5.{p}', _CONVNEXT_BLOCK + '.pointwise_conv2.{p}'),
        ('features.{2i+1}.{j}.layer_scale', _CONVNEXT_BLOCK + '.gamma', *_COLUMN),
        ('features.{2i+2}.{k}.{p}', 'downsample_layers.{i+1}.{k}.{p}'),
        ('classifier.0.{p}', 'norm{last}.{p}'),
    ),
)
"""Names of https://arxiv.org/abs/2201.03545 and of its second version in other places."""

_VIT_FFN = 'layers.{i}.ffn.layers.'
VIT = (
    _naming(
        'timm',
        ('cls_token', 'cls_token'),
        ('pos_embed', 'pos_embed'),
        ('patch_embed.proj.{p}', 'patch_embed.projection.{p}'),
        ('blocks.{i}.norm{k}.{p}', 'layers.{i}.ln{k}.{p}'),
        ('blocks.{i}.attn.qkv.{p}', 'layers.{i}.attn.qkv.{p}'),
        ('blocks.{i}.attn.proj.{p}', 'layers.{i}.attn.proj.{p}'),
        ('blocks.{i}.mlp.fc1.{p}', _VIT_FFN + '0.0.{p}'),
        ('blocks.{i}.mlp.fc2.{p}', _VIT_FFN + '1.{p}'),
        ('blocks.{i}.ls1.gamma', 'layers.{i}.attn.gamma1.weight'),
        ('blocks.{i}.ls2.gamma', 'layers.{i}.ffn.gamma2.weight'),
        ('norm.{p}', 'ln1.{p}'),
    ),
    _naming(
        'torchvision',
        ('class_token', 'cls_token'),
        ('encoder.pos_embedding', 'pos_embed'),
        ('conv_proj.{p}', 'patch_embed.projection.{p}'),
        ('encoder.layers.encoder_layer_{i}.ln_{k}.{p}', 'layers.{i}.ln{k}.{p}'),
        *(
            (
                f'encoder.layers.encoder_layer_{{i}}.self_attention.in_proj_{p}',
                f'layers.{{i}}.attn.qkv.{p}',
            )
            for p in ('weight', 'bias')
        ),
        (
            'encoder.layers.encoder_layer_{i}.self_attention.out_proj.{p}',
            'layers.{i}.attn.proj.{p}',
        ),
        ('encoder.layers.encoder_layer_{i}.mlp.0.{p}', _VIT_FFN + '0.0.{p}'),
        ('encoder.layers.encoder_layer_{i}.mlp.3.{p}', _VIT_FFN + '1.{p}'),
        ('encoder.layers.encoder_layer_{i}.mlp.linear_1.{p}', _VIT_FFN + '0.0.{p}'),
        ('encoder.layers.encoder_layer_{i}.mlp.linear_2.{p}', _VIT_FFN + '1.{p}'),
        ('encoder.ln.{p}', 'ln1.{p}'),
    ),
    _naming(
        'mmseg',
        ('cls_token', 'cls_token'),
        ('pos_embed', 'pos_embed'),
        ('patch_embed.projection.{p}', 'patch_embed.projection.{p}'),
        ('layers.{i}.ln{k}.{p}', 'layers.{i}.ln{k}.{p}'),
        ('layers.{i}.attn.attn.in_proj_weight', 'layers.{i}.attn.qkv.weight'),
        ('layers.{i}.attn.attn.in_proj_bias', 'layers.{i}.attn.qkv.bias'),
        ('layers.{i}.attn.attn.out_proj.{p}', 'layers.{i}.attn.proj.{p}'),
        (_VIT_FFN + '0.0.{p}', _VIT_FFN + '0.0.{p}'),
        (_VIT_FFN + '1.{p}', _VIT_FFN + '1.{p}'),
        ('ln1.{p}', 'ln1.{p}'),
    ),
)
"""Names of https://arxiv.org/abs/2010.11929 elsewhere; DeiT's, DINO's and MAE's are timm's."""

_FURTHER_PARTS_OF_VIT = frozenset(
    (
        'dist_token',
        'reg_token',  # registers in timm's DINOv2
        'register_tokens',  # in the original
        'storage_tokens',  # in DINOv3
        'norm_pre',  # the norm before the blocks of CLIP, in timm
        'pre_norm',  # in mmpretrain
    )
)
"""Parts without which some ViTs compute something else, although there is no rule for them."""

REGNET = (
    _naming(
        'timm',
        ('stem.conv.{p}', 'conv1.{p}'),
        ('stem.bn.{p}', 'bn1.{p}'),
        ('s{i+1}.b{j+1}.conv{k}.conv.{p}', 'layer{i+1}.{j}.conv{k}.{p}'),
        ('s{i+1}.b{j+1}.conv{k}.bn.{p}', 'layer{i+1}.{j}.bn{k}.{p}'),
        ('s{i+1}.b{j+1}.downsample.conv.{p}', 'layer{i+1}.{j}.downsample.0.{p}'),
        ('s{i+1}.b{j+1}.downsample.bn.{p}', 'layer{i+1}.{j}.downsample.1.{p}'),
    ),
    _naming(
        'pycls',
        ('stem.conv.{p}', 'conv1.{p}'),
        ('stem.bn.{p}', 'bn1.{p}'),
        *(
            (f's{{i+1}}.b{{j+1}}.{theirs}.{{p}}', f'layer{{i+1}}.{{j}}.{ours}.{{p}}')
            for theirs, ours in (
                *(('f.a', 'conv1'), ('f.b', 'conv2'), ('f.c', 'conv3'), ('proj', 'downsample.0')),
                *(('f.a_bn', 'bn1'), ('f.b_bn', 'bn2'), ('f.c_bn', 'bn3'), ('bn', 'downsample.1')),
            )
        ),
    ),
    _naming(
        'torchvision',
        ('stem.0.{p}', 'conv1.{p}'),
        ('stem.1.{p}', 'bn1.{p}'),
        *(
            (
                f'trunk_output.block{{i+1}}.block{{i+1}}-{{j}}.{theirs}.{{p}}',
                f'layer{{i+1}}.{{j}}.{ours}.{{p}}',
            )
            for theirs, ours in (
                *(('f.a.0', 'conv1'), ('f.b.0', 'conv2'), ('f.c.0', 'conv3')),
                *(('f.a.1', 'bn1'), ('f.b.1', 'bn2'), ('f.c.1', 'bn3')),
                *(('proj.0', 'downsample.0'), ('proj.1', 'downsample.1')),
            )
        ),
    ),
)
"""Names of https://arxiv.org/abs/2003.13678 in other places; OpenMMLab's are a ResNet's."""


@dataclass(frozen=True, eq=False)
class Family:
    """A kind of backbone whose names in other places are known.

    Attributes:
        name (str): As in the paper.
        namings (tuple[Naming, ...]): Those of mmpretrain first.
        eps (float): Of its layer norms.
    """

    name: str
    namings: tuple[Naming, ...]
    eps: float

    @cached_property
    def parts(self) -> frozenset[str]:
        """First parts of the names in any of the places."""
        further = _FURTHER_PARTS_OF_VIT if self.name == 'ViT' else frozenset()
        return further.union(*(naming.parts for naming in self.namings))


def _family(name: str, namings: tuple[Naming, ...], eps: float) -> Family:
    ours = dict.fromkeys(rule.ours.text for naming in namings for rule in naming.rules)
    ours = {text.replace('{last}', '{k}'): None for text in ours}
    return Family(name, (_naming('openmmlab', *((x, x) for x in ours)), *namings), eps)


FAMILIES = (
    _family('Swin', SWIN, 1e-5),
    _family('ConvNeXt', CONVNEXT, 1e-6),
    _family('ViT', VIT, 1e-6),
)


def family_of(keys: Iterable[str]) -> tuple[Family, Naming] | None:
    """The family and the naming of a backbone by its keys without prefix; None if unknown."""
    return _family_of(tuple(keys))


@lru_cache(maxsize=16)
def _family_of(keys: tuple[str, ...]) -> tuple[Family, Naming] | None:
    pairs = [(family, naming) for family in FAMILIES for naming in family.namings]
    counts = [naming.count(keys) for _, naming in pairs]
    return pairs[counts.index(max(counts))] if 2 * max(counts) > len(keys) else None


def namings_of(keys: Iterable[str]) -> dict[str, Callable[[Weights], dict[str, Tensor]]]:
    """For each way of naming, the function that gives weights the names that a backbone has.

    Prefixes may stand before the names. The first is the backbone's own.

    Args:
        keys (Iterable[str]): Those of the backbone.
    """
    keys = list(keys)
    if any(map(is_plain, keys)):
        regnets = {f'{naming.name} (RegNet)': naming.to_ours for naming in REGNET}
        return {name: _of_keys(rename) for name, rename in NAMINGS.items()} | regnets
    if (known := family_of(keys)) is None:
        return {'the same': dict}
    family, own = known
    ours = family.namings[0]

    def through(naming: Naming) -> Callable[[Weights], dict[str, Tensor]]:
        return lambda weights: _named_as(own, ours, naming.to_ours(weights))

    others = {naming.name: through(naming) for naming in family.namings if naming is not own}
    return {own.name: dict} | others


def _named_as(own: Naming, ours: Naming, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return weights if own is ours else own.to_theirs(weights)


def _of_keys(rename: Callable[[str], str]) -> Callable[[Weights], dict[str, Tensor]]:
    return lambda weights: {rename(key): value for key, value in weights.items()}
