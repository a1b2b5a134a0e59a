"""VITO: contrastive learning from the frames of videos."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from vito_mm.models.heads.infonce_head import UNKNOWN_FILE
from vito_mm.models.preprocessors.deferred import DeferredPreprocessor, DeferredViews

from .target_network import TargetNetwork


class VITO(BaseSelfSupervisor):
    """VITO: online and target network, attention pooling, InfoNCE between views of a video.

    `Self-supervised video pretraining yields strong image representations
    <https://arxiv.org/abs/2210.06433>`_, section 3.

    The target network is an exponential moving average (EMA) of backbone, neck and projector,
    updated by :class:`vito_mm.engine.TargetEMAHook` after each optimizer step. As in BYOL's code,
    its batch norm has running statistics of its own, and views pass one after the other, so that
    batch norm sees one view's statistics at a time.

    With ``micro_batch_size`` the loss is still that of the complete batch, on all ranks, while
    memory holds one micro-batch: projections are computed without a graph, the loss gives the
    gradient of each, and the backward pass computes each micro-batch again with a graph (gradient
    caching, https://arxiv.org/abs/2101.06983), for one more forward pass. Gradients are exact but
    for batch norm, whose statistics are those of a micro-batch on all ranks (with SyncBN), as are
    the updates of its running statistics: keep micro-batches at some hundred clips over all ranks.
    Gradient accumulation (``optim_wrapper.accumulative_counts``), in contrast, has only a
    micro-batch's negatives.

    Args:
        backbone (dict): Backbone with one feature map a scale, e.g. ResNet with
            ``out_indices=(2, 3)``.
        neck (dict): Pooling, e.g. ``MultiScaleAttentionPooling``.
        projector (dict): Projection MLP, e.g. mmpretrain's ``NonLinearNeck``.
        head (dict): Loss, e.g. ``InfoNCEHead``.
        base_momentum (float): Share of the target network kept at a step at the start, as in the
            paper; it rises to 1 along a cosine. mmpretrain's own ``base_momentum`` is 1 minus this.
            Defaults to 0.99.
        micro_batch_size (int, optional): Clips that pass the network at a time, on each rank; the
            batch size of the data loader is a multiple of it. Defaults to all.
        channels_last (bool): Keep images and weights in PyTorch's channels-last memory format,
            faster on CPUs and on GPUs with tensor cores; same numbers. Defaults to True.
        data_preprocessor (dict, optional): Defaults to mmpretrain's ``SelfSupDataPreprocessor``.
        init_cfg (dict | list[dict], optional): Initialisation. Defaults to None.

    Raises:
        ValueError: If ``base_momentum`` is not within (0, 1), ``micro_batch_size`` is below 2, or
            backbone, neck and projector do not fit each other.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        projector: dict,
        head: dict,
        base_momentum: float = 0.99,
        micro_batch_size: int | None = None,
        channels_last: bool = True,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        try:
            super().__init__(
                backbone=backbone,
                neck=neck,
                head=head,
                data_preprocessor=data_preprocessor,
                init_cfg=init_cfg,
            )
        except AssertionError as error:  # mmpretrain's backbones check out_indices without a word
            raise ValueError(
                f'mmpretrain refuses to build the model: {error or "no reason given"}. Is '
                f'backbone.out_indices={backbone.get("out_indices")} within its stages?'
            ) from error
        if not 0 < base_momentum < 1:
            raise ValueError(f'base_momentum must be within (0, 1), got {base_momentum}')
        if micro_batch_size is not None:
            if micro_batch_size < 2:
                raise ValueError(
                    'micro_batch_size must be at least 2 (batch norm needs two), got '
                    f'{micro_batch_size}'
                )
            self.data_preprocessor = DeferredPreprocessor(self.data_preprocessor)
        self.micro_batch_size = micro_batch_size
        self.projector = MODELS.build(projector)
        self._check_that_parts_fit()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.memory_format)
        self.target_net = TargetNetwork(self._online_net(), base_momentum)
        self._target_is_updated = False

    @torch.no_grad()
    def _check_that_parts_fit(self) -> None:
        """Compare outputs and channels of backbone, neck and projector on one image."""
        training = self.training
        self.eval()  # batch norm keeps its running statistics
        maps, scales = self.backbone(torch.zeros(1, 3, 224, 224)), len(self.neck.in_channels)
        if any(not isinstance(output, Tensor) or output.ndim != 4 for output in maps):
            raise ValueError(
                f'the backbone {type(self.backbone).__name__} gives vectors or tokens where the '
                'neck pools feature maps (N, C, H, W). Set gap_before_final_norm=False (ConvNeXt) '
                "or out_type='featmap' (vision transformers) in model.backbone"
            )
        if scales != len(maps):
            stages = getattr(self.backbone, 'out_indices', None)
            named = 'the backbone' if stages is None else f'backbone.out_indices={tuple(stages)}'
            raise ValueError(
                f'{named} gives {len(maps)} feature maps, but '
                f'neck.in_channels={self.neck.in_channels} expects {scales}'
            )
        pooled = self.neck(maps)
        try:
            self.projector(pooled)
        except RuntimeError as error:
            raise ValueError(
                f'projector.in_channels does not fit the {pooled[0].size(1)} channels that the '
                f'neck makes of in_channels={self.neck.in_channels}: {error}'
            ) from None
        self.train(training)

    def _online_net(self) -> nn.Sequential:
        return nn.Sequential(self.backbone, self.neck, self.projector)

    def start_target(self) -> None:
        """Make the target network a copy of the online network, once, before the first step."""
        self._target_is_updated = True
        if self.target_net.steps == 0:
            self.target_net.update_parameters(self._online_net())

    def update_target(self, progress: float, copy_statistics: bool = False) -> None:
        """Move the target network towards the online network, once for each optimizer step.

        Args:
            progress (float): Share of the run that is done, within [0, 1].
            copy_statistics (bool): Let the target's batch norm take over the running statistics of
                the online network, instead of keeping its own. Defaults to False.
        """
        self.target_net.update_parameters(self._online_net(), progress, copy_statistics)

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the online backbone, one per scale, of images (N, 3, H, W)."""
        return self.backbone(inputs)

    def loss(
        self,
        inputs: list[Tensor] | DeferredViews,
        data_samples: list[DataSample] | None = None,
        **kwargs,
    ) -> dict[str, Tensor]:
        """Loss of a batch of clips.

        Args:
            inputs (list[Tensor] | DeferredViews): Normalised views, each of shape (N, 3, H, W); or
                those of ``DeferredPreprocessor`` for micro-batches.
            data_samples (list[DataSample], optional): One sample per clip. Clips whose ``video_id``
                is the same are no negatives of each other. Defaults to None, all are.
            **kwargs: Not used.

        Returns:
            dict[str, Tensor]: See :meth:`vito_mm.models.InfoNCEHead.forward`.
        """
        if self.training and not self._target_is_updated:
            warnings.warn(
                'the target network of VITO does not move: add '
                'default_hooks=dict(target_ema=dict(type="TargetEMAHook"))',
                stacklevel=2,
            )
            self.start_target()
        if isinstance(inputs, DeferredViews):
            ids = self._video_ids(inputs.data_samples, len(inputs.views[0]))
            return self.head(*self._project_micro_batches(inputs), ids)
        ids = self._video_ids(data_samples, len(inputs[0]))  # first: a GPU waits for the copy
        online_net = self._online_net()
        views = [view.contiguous(memory_format=self.memory_format) for view in inputs]
        online = [online_net(view)[0] for view in views]
        with torch.no_grad():
            target = [self.target_net(view)[0] for view in views]
        return self.head(online, target, ids)

    def _video_ids(self, data_samples: Sequence[DataSample] | None, num_clips: int) -> Tensor:
        """Ids of the clips' files, shape (num_clips, ), that of an unknown file where none is."""
        samples = data_samples or [None] * num_clips
        ids = [UNKNOWN_FILE if s is None else s.get('video_id', UNKNOWN_FILE) for s in samples]
        return torch.tensor(ids, device=next(self.parameters()).device)

    def _project_micro_batches(self, batch: DeferredViews) -> tuple[list[Tensor], list[Tensor]]:
        """Online and target projections, the former computed again in the backward pass."""
        online_net = self._online_net()

        def project(network: nn.Module, view: int, clips: slice) -> Tensor:
            images = self.data_preprocessor.slice_view(batch, view, clips)
            return network(images.contiguous(memory_format=self.memory_format))[0]

        online, target = [], []
        for view, images in enumerate(batch.views):
            starts = range(0, len(images), self.micro_batch_size)
            parts = [slice(start, start + self.micro_batch_size) for start in starts]
            with torch.no_grad():
                target.append(torch.cat([project(self.target_net, view, part) for part in parts]))
            # Checkpointing is gradient caching: autograd has the gradient of the projections when
            # it computes a micro-batch again.
            online.append(
                torch.cat(
                    [
                        checkpoint(
                            *(project, online_net, view, part),
                            use_reentrant=False,
                            context_fn=lambda: (
                                nullcontext(),
                                _running_statistics_kept(online_net),
                            ),
                        )
                        for part in parts
                    ]
                )
            )
        return online, target


@contextmanager
def _running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Put batch norm's running statistics back afterwards: the batch was counted before."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    buffers = [buffer for norm in norms for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        if buffers:
            torch._foreach_copy_(buffers, before)
