"""Multi-scale contrastive attention pooling."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from vito_mm.registry import MODELS

POOLINGS = ('attention', 'average')
"""Known ways to pool a scale."""


class AttentionPooling(BaseModule):
    """Pool a feature map over space with weights from an MLP on every position.

    Section 3.2 of https://arxiv.org/abs/2210.06433: the MLP (two hidden layers, as 1x1
    convolutions) gives a logit per position; their softmax is the mask, one for all channels.

    Args:
        in_channels (int): Channels C of the feature map. The hidden layers have 2 C and C: for 2048
            those of the authors' code, 16,785,408 parameters.
        init_cfg (dict | list[dict], optional): Initialisation. Defaults to None.
    """

    def __init__(self, in_channels: int, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.logits = nn.Sequential(
            nn.Conv2d(in_channels, 2 * in_channels, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * in_channels, in_channels, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, 1, 1, bias=False),
        )

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """Pool (N, C, H, W) to features (N, C), and give the mask (N, H, W), of sum 1 per image."""
        n, _, h, w = feature_map.shape
        # A 1x1 convolution is a linear layer of every position, and as such faster: no copy in
        # channels-last format.
        positions = hidden = feature_map.permute(0, 2, 3, 1).flatten(1, 2)
        for layer in self.logits:
            if isinstance(layer, nn.Conv2d):
                hidden = F.linear(hidden, layer.weight.flatten(1), layer.bias)
            else:
                hidden = layer(hidden)
        # float32 in any autocast: small weights of many positions must not round to 0.
        mask = hidden.squeeze(2).float().softmax(dim=1)
        pooled = torch.einsum('npc,np->nc', positions, mask.to(positions.dtype))
        return pooled, mask.view(n, h, w)


class _AveragePooling(nn.Module):
    """Average over space with the interface of :class:`AttentionPooling`: a constant mask."""

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        n, _, h, w = feature_map.shape
        return feature_map.mean(dim=(2, 3)), feature_map.new_full((n, h, w), 1 / (h * w))


@MODELS.register_module()
class MultiScaleAttentionPooling(BaseModule):
    """Pool every scale of the backbone by its own attention and concatenate.

    Section 3.2 of https://arxiv.org/abs/2210.06433; one scale, or average, are its ablations.

    Args:
        in_channels (Sequence[int]): Channels of the scales, as many as the backbone's
            ``out_indices``: (1024, 2048) for the last two stages of ResNet-50.
        pooling (str | Sequence[str]): 'attention' or 'average', one for all scales or one each.
            Defaults to 'attention'.
        init_cfg (dict | list[dict], optional): Initialisation. Defaults to None.

    Raises:
        ValueError: If there is no scale or the poolings do not fit.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        pooling: str | Sequence[str] = 'attention',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.in_channels = tuple(in_channels)
        if not self.in_channels:
            raise ValueError('in_channels of MultiScaleAttentionPooling names no scale')
        poolings = [pooling] * len(self.in_channels) if isinstance(pooling, str) else list(pooling)
        if len(poolings) != len(self.in_channels) or not set(poolings) <= set(POOLINGS):
            raise ValueError(
                f'pooling must be one of {POOLINGS}, or one of them for each of the '
                f'{len(self.in_channels)} scales in in_channels, got {pooling!r}'
            )
        self.scales = nn.ModuleList(
            AttentionPooling(channels) if kind == 'attention' else _AveragePooling()
            for channels, kind in zip(self.in_channels, poolings, strict=True)
        )

    @property
    def out_channels(self) -> int:
        """Length of the concatenated vector, the projector's ``in_channels``."""
        return sum(self.in_channels)

    def _pool(self, feature_maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        channels = tuple(feature_map.size(1) for feature_map in feature_maps)
        if channels != self.in_channels:
            raise ValueError(
                f'the backbone gives feature maps of {channels} channels, but in_channels of '
                f"MultiScaleAttentionPooling is {self.in_channels}: make the backbone's "
                "out_indices and the neck's in_channels name the same stages"
            )
        return [pool(x) for pool, x in zip(self.scales, feature_maps, strict=True)]

    def forward(self, feature_maps: Sequence[Tensor]) -> tuple[Tensor]:
        """Pool maps (N, C_s, H_s, W_s) to one tensor (N, sum of C_s), in a tuple as mmpretrain."""
        return (torch.cat([pooled for pooled, _ in self._pool(feature_maps)], dim=1),)

    def masks(self, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """Attention masks (N, H_s, W_s), of sum 1 per image, of maps (N, C_s, H_s, W_s)."""
        return [mask for _, mask in self._pool(feature_maps)]
