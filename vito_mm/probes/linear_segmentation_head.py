"""Backbone and decode head of the linear segmentation probe."""

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from vito_mm.registry import MODELS

from .loading import load_encoder


@MODELS.register_module()
class LinearSegmentationHead(BaseDecodeHead):
    """A 1x1 convolution on standardised features.

    mmseg's ``FCNHead(num_convs=0, concat_input=False)`` is that convolution without the
    standardisation, and then one learning rate cannot suit two networks whose features differ in
    size. The batch norm before it has no parameters; because a frozen network's features have one
    distribution all through training, its statistics are the plain mean over all batches. With any
    norm the head is linear once it is trained.

    Args:
        in_channels (int | Sequence[int]): Channels of the feature maps that ``in_index`` names.
        dropout_ratio (float): Share of feature channels left out, before the norm. Defaults to 0.
        norm_cfg (dict, optional): Another norm, as DINOv3's, whose batch norm has a scale and a
            shift and moving statistics. Defaults to None.
        **kwargs: Further arguments of mmseg's ``BaseDecodeHead``, but ``channels``.
            ``input_transform='resize_concat'`` takes several feature maps.
    """

    def __init__(self, *, in_channels: Any, dropout_ratio: float = 0.0, **kwargs: Any) -> None:
        several = isinstance(in_channels, (list, tuple))
        channels = sum(in_channels) if several else in_channels
        super().__init__(in_channels, channels, dropout_ratio=dropout_ratio, **kwargs)
        if self.norm_cfg is None:
            self.norm = nn.BatchNorm2d(channels, affine=False, momentum=None)
        else:
            self.norm = build_norm_layer(self.norm_cfg, channels)[1]

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Score the classes, (N, K, H, W), from feature maps (N, C, H, W)."""
        features = self._transform_inputs(inputs)
        if self.dropout is not None:
            features = self.dropout(features)
        return self.conv_seg(self.norm(features))


@MODELS.register_module()
class FrozenEncoder(nn.Module):
    """A frozen network of any kind as a backbone of mmseg.

    ``layers`` are those of :class:`.encoder.Encoder` whose feature maps are given out, by default
    the last stage or block; for the other arguments see :func:`.loading.load_encoder`.
    """

    def __init__(
        self,
        network: str,
        checkpoint: str | None = None,
        which: str = 'online',
        layers: Sequence[int | str] = (-1,),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = load_encoder(checkpoint, which, network, device='cpu', seed=seed)
        self.network, self.layers = self.encoder.backbone, tuple(layers)

    def init_weights(self) -> None:
        """Do nothing: the weights are there."""

    def train(self, mode: bool = True) -> 'FrozenEncoder':
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute feature maps of preprocessed images (N, 3, H, W)."""
        return tuple(self.encoder.compute(images, layer) for layer in self.layers)
