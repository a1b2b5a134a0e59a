"""VITO: contrastive learning from the frames of videos."""

import warnings

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.models.utils import CosineEMA
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn


class VITO(BaseSelfSupervisor):
    """VITO: online and target network, attention pooling, InfoNCE between views of a video.

    `Self-supervised video pretraining yields strong image representations
    <https://arxiv.org/abs/2210.06433>`_, section 3.

    The target network is an exponential moving average (EMA) of backbone, neck and projector. It is
    updated by :class:`vito_mm.engine.TargetEMAHook` after each optimizer step, never in
    :meth:`loss`, which runs several times a step under gradient accumulation. Views pass one after
    the other, so batch norm sees one view's statistics at a time, as in BYOL's code.

    Args:
        backbone (dict): Backbone with one feature map a scale, e.g. ResNet with
            ``out_indices=(2, 3)``.
        neck (dict): Pooling, e.g. ``MultiScaleAttentionPooling``.
        projector (dict): Projection MLP, e.g. mmpretrain's ``NonLinearNeck``.
        head (dict): Loss, e.g. ``InfoNCEHead``.
        base_momentum (float): Share of the target network kept at a step at the start, as in the
            paper; it rises to 1 along a cosine. mmpretrain's own ``base_momentum`` is 1 minus this.
            Defaults to 0.99.
        channels_last (bool): Keep images and weights in PyTorch's channels-last memory format,
            faster on CPUs and on GPUs with tensor cores; the numbers are the same. Defaults to
            True.
        data_preprocessor (dict, optional): Defaults to None, which means mmpretrain's
            ``SelfSupDataPreprocessor``.
        init_cfg (dict | list[dict], optional): Initialisation. Defaults to None.

    Raises:
        ValueError: If ``base_momentum`` is not within (0, 1), or the number of scales of backbone
            and neck differs.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        projector: dict,
        head: dict,
        base_momentum: float = 0.99,
        channels_last: bool = True,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        if not 0 < base_momentum < 1:
            raise ValueError(f'base_momentum must be within (0, 1), got {base_momentum}')
        scales, stages = len(self.neck.in_channels), self.backbone.out_indices
        if scales != len(stages):
            raise ValueError(
                f'backbone.out_indices={tuple(stages)} gives {len(stages)} feature maps, but '
                f'neck.in_channels={self.neck.in_channels} expects {scales}'
            )
        self.projector = MODELS.build(projector)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.memory_format)
        self.target_net = CosineEMA(self._online_net(), momentum=1 - base_momentum)
        self._target_is_updated = False

    def _online_net(self) -> nn.Sequential:
        return nn.Sequential(self.backbone, self.neck, self.projector)

    @torch.no_grad()
    def start_target(self) -> None:
        """Make the target network a copy of the online network, once, before the first step."""
        self._target_is_updated = True
        if self.target_net.steps == 0:
            self.target_net.update_parameters(self._online_net())

    @torch.no_grad()
    def update_target(self) -> None:
        """Move the target network towards the online network, once for each optimizer step."""
        self.target_net.update_parameters(self._online_net())

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the online backbone.

        Args:
            inputs (Tensor): Normalised images, shape (N, 3, H, W).

        Returns:
            tuple[Tensor, ...]: One map a scale.
        """
        return self.backbone(inputs)

    def loss(
        self, inputs: list[Tensor], data_samples: list[DataSample] | None = None, **kwargs
    ) -> dict[str, Tensor]:
        """Loss of a batch of clips.

        Args:
            inputs (list[Tensor]): Normalised views, each of shape (N, 3, H, W).
            data_samples (list[DataSample], optional): Not used. Defaults to None.
            **kwargs: Not used.

        Returns:
            dict[str, Tensor]: See :meth:`vito_mm.models.InfoNCEHead.forward`.
        """
        if self.training and not self._target_is_updated:
            warnings.warn(
                'the target network of VITO does not move: add dict(type="TargetEMAHook") to '
                'custom_hooks',
                stacklevel=2,
            )
            self._target_is_updated = True
        inputs = [view.contiguous(memory_format=self.memory_format) for view in inputs]
        online_net = self._online_net()
        online = [online_net(view)[0] for view in inputs]
        with torch.no_grad():
            target = [self.target_net(view)[0] for view in inputs]
        return self.head(online, target)
