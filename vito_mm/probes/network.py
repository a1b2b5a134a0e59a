"""The network of a model in training, or of a checkpoint file, for looking at frames."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from vito_mm.checkpoint import PREPROCESSING, BackboneMatch, Checkpoint, CheckpointError
from vito_mm.checkpoint.config_parts import type_name
from vito_mm.checkpoint.layouts import depth_of, has_plain_width, stage_of
from vito_mm.models import AttentionPooling, MultiScaleAttentionPooling
from vito_mm.probes.embedding import undisturbed
from vito_mm.utils.quiet import quiet_logger

from .stored_config import StoredConfigError, stored_model

POOLINGS = ('average', 'attention')
"""Ways to make one vector of a frame: the mean of the last feature map, or the neck's pooling."""


@dataclass(frozen=True)
class Network:
    """Backbone and attention pooling, applied to frames as a decoder gives them.

    Looking leaves no trace: the modules are in evaluation mode meanwhile, so that batch norm keeps
    its statistics, and afterwards modes and random numbers are as they were.

    Attributes:
        backbone (nn.Module): Gives one feature map a scale.
        neck (nn.Module, optional): ``MultiScaleAttentionPooling``; None if there is none.
        normalise (Callable): Makes the backbone's input of RGB images, uint8, shape (N, 3, H, W).
    """

    backbone: nn.Module
    neck: nn.Module | None
    normalise: Callable[[Tensor], Tensor]

    def scales(self) -> dict[str, int]:
        """The scales that are pooled by attention.

        Returns:
            dict[str, int]: Number of the feature map by its name: 'stage 4' and 'stage 5' for the
            last two of a ResNet, as the paper counts, where the stem is the first. Empty if there
            is no attention.
        """
        # Other backbones count stages without the stem.
        first = 2 if hasattr(self.backbone, 'res_layers') else 1
        return {
            f'stage {stage + first}': number
            for number, (stage, pooling) in enumerate(
                zip(self.backbone.out_indices, getattr(self.neck, 'scales', ()), strict=False)
            )
            if isinstance(pooling, AttentionPooling)
        }

    def masks(self, frames: np.ndarray, batch_size: int = 32) -> dict[str, np.ndarray]:
        """Attention masks of frames.

        Args:
            frames (np.ndarray): RGB, uint8, shape (N, H, W, 3).
            batch_size (int): Frames at a time. Defaults to 32.

        Returns:
            dict[str, np.ndarray]: By the name of the scale, float32, shape (N, h, w); each mask
            sums to 1.

        Raises:
            ValueError: If the backbone does not take frames of this size.
        """
        batches = self._pool(frames, batch_size, self.neck.masks)
        return {
            name: np.concatenate([masks[number].float().cpu().numpy() for masks in batches])
            for name, number in self.scales().items()
        }

    def features(
        self, frames: np.ndarray, pooling: str = 'average', batch_size: int = 32
    ) -> np.ndarray:
        """One vector a frame.

        Args:
            frames (np.ndarray): RGB, uint8, shape (N, H, W, 3).
            pooling (str): One of :data:`POOLINGS`. Defaults to 'average'.
            batch_size (int): Frames at a time. Defaults to 32.

        Returns:
            np.ndarray: float32, shape (N, C).

        Raises:
            ValueError: If the backbone does not take frames of this size.
        """

        def pool(maps: Sequence[Tensor]) -> Tensor:
            return self.neck(maps)[0] if pooling == 'attention' else maps[-1].mean(dim=(2, 3))

        batches = self._pool(frames, batch_size, pool)
        return np.concatenate([vectors.float().cpu().numpy() for vectors in batches])

    def _pool(self, frames: np.ndarray, batch_size: int, pool: Callable) -> list[Any]:
        """What a function makes of the feature maps, batch by batch."""
        images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        parts = nn.ModuleList(part for part in (self.backbone, self.neck) if part is not None)
        with torch.no_grad(), undisturbed(parts):
            try:
                return [pool(self.backbone(self.normalise(x))) for x in images.split(batch_size)]
            except AssertionError as error:  # by which Swin refuses sizes
                size = ' x '.join(map(str, frames.shape[1:3]))
                raise ValueError(
                    f'the backbone does not take frames of {size} pixels: {error}'
                ) from error


def network_of(model: nn.Module) -> Network | None:
    """The online network of a model in training.

    Args:
        model (nn.Module): VITO, or another algorithm of mmpretrain; not wrapped.

    Returns:
        Network: Shares its modules. None if the model pools no scale by attention.
    """
    neck = getattr(model, 'neck', None)
    if not isinstance(neck, MultiScaleAttentionPooling):
        return None

    def normalise(images: Tensor) -> Tensor:
        # OpenMMLab's loaders give BGR, and its preprocessors expect it.
        data = dict(inputs=[images.flip(1)], data_samples=None)
        return model.data_preprocessor(data, False)['inputs'][0]

    network = Network(model.backbone, neck, normalise)
    return network if network.scales() else None


def load_network(
    checkpoint: str | os.PathLike,
    which: str = 'online',
    config: str | os.PathLike | None = None,
    needs_attention: bool = True,
) -> Network:
    """The network of a checkpoint, on a GPU where there is one.

    It is built as the config says that MMEngine stores in the file. Nothing of that text is
    executed, and only parts that are registered are built. Without one, a ResNet of any depth and
    width and its attention are told from the shapes of the weights.

    Args:
        checkpoint: Local file, see :func:`vito_mm.transfer.load_backbone`.
        which (str): ``'online'`` or ``'target'`` network. Defaults to 'online'.
        config: Config file of the run, for a backbone of which neither the file nor its shapes
            tell enough. It is executed. Defaults to None.
        needs_attention (bool): Whether a file without attention network is an error. Defaults to
            True.

    Returns:
        Network: The network, with gradients off.

    Raises:
        CheckpointError: If the file cannot be read, its network cannot be built or does not fit,
            or it has no attention where that is needed.
        FileNotFoundError: If there is no such config.
    """
    checkpoint = Checkpoint.read(checkpoint)
    content, weights = checkpoint.content, checkpoint.state_dict
    model = _model_config(content, config)
    with quiet_logger('WARNING'), DefaultScope.overwrite_default_scope('mmpretrain'):
        backbone, problem = _backbone_of_config(model)
        if backbone is None and config is not None:
            raise CheckpointError(f'{config}: {problem}')
        if backbone is None:
            backbone = _backbone_of_shapes(checkpoint, which, problem)
        match = _load_backbone(backbone, checkpoint, which)
        neck = _load_neck(weights, match, backbone, None if problem else model.get('neck'))
    if neck is None and needs_attention:
        raise CheckpointError(_no_attention(checkpoint, match, model))
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    for part in (backbone, neck):
        if part is not None:
            part.eval()  # not chained: train() of OpenMMLab's backbones returns None
            part.requires_grad_(False).to(device)
    return Network(backbone, neck, _normaliser(_preprocessing(checkpoint, model), device))


def _model_config(content: Mapping[str, Any], config: str | os.PathLike | None) -> dict[str, Any]:
    """The model of a config file, or of what the checkpoint stores; empty if there is none."""
    if config is not None:
        return Config.fromfile(config).to_dict().get('model') or {}
    meta = content.get('meta')
    text = meta.get('cfg') if isinstance(meta, Mapping) else None
    try:
        return stored_model(text) if isinstance(text, str) else {}
    except StoredConfigError:
        return {}  # the shapes tell most of it


def _backbone_of_config(model: Mapping[str, Any]) -> tuple[nn.Module | None, str]:
    """The backbone that a config describes, or None and why there is none."""
    part = model.get('backbone')
    if not isinstance(part, Mapping):
        return None, 'no config with a backbone is stored in the file'
    try:
        backbone = build_part(part)
    except (StoredConfigError, TypeError, ValueError, AssertionError, KeyError) as error:
        return None, f'its backbone {type_name(part)} cannot be built ({error})'
    if not hasattr(backbone, 'out_indices'):
        return None, f'its backbone {type_name(part)} has no out_indices'
    return backbone, ''


def build_part(part: Mapping[str, Any]) -> nn.Module:
    """Build a module of a model that was stored with a checkpoint.

    MMEngine imports and calls whatever a dotted name stands for, ``os.system`` as well, so that
    types are taken by their last name from what is registered.

    Args:
        part (Mapping): Config of a module.

    Returns:
        nn.Module: The module, not initialised.

    Raises:
        StoredConfigError: If a type is not registered.
    """
    import mmpretrain.models  # noqa: F401  registers the backbones
    from mmpretrain.registry import MODELS

    def trusted(node: Any) -> Any:
        if isinstance(node, Mapping):
            kept = {key: trusted(value) for key, value in node.items() if key not in _UNUSED}
            return kept | {'type': known(type_name(node))} if 'type' in node else kept
        return type(node)(map(trusted, node)) if isinstance(node, (list, tuple)) else node

    def known(name: str) -> str:
        if name in MODELS.module_dict or name in MODELS.parent.module_dict:
            return name
        raise StoredConfigError(f'no package that is imported here registers {name!r}')

    return MODELS.build(trusted(part))


_UNUSED = ('init_cfg', 'pretrained', 'checkpoint')  # where weights would come from


def _backbone_of_shapes(checkpoint: str | os.PathLike, which: str, problem: str) -> nn.Module:
    """A ResNet as deep and wide as the weights."""
    from mmpretrain.models.backbones import ResNet

    remedy = f'{problem}; name the config of the run (--config)' if problem else ''
    try:
        match = checkpoint.match(which=which)
    except CheckpointError as error:
        raise CheckpointError(f'{error}\n{remedy}'.rstrip()) from None
    if not (match.complete and has_plain_width(match.weights)):
        raise CheckpointError(
            f'{checkpoint} holds no plain ResNet under {match.prefix!r}, and {remedy}.\n'
            f'{match.describe()}'.rstrip()
        )
    return ResNet(
        depth_of(match.weights),
        stem_channels=match.weights['conv1.weight'].shape[0],
        base_channels=match.weights['layer1.0.conv1.weight'].shape[0],
        out_indices=(2, 3),
    )


def _load_backbone(backbone: nn.Module, checkpoint: str | os.PathLike, which: str) -> BackboneMatch:
    """Fill a backbone of any kind, all of it or with an error."""
    # Tables of indices, which Swin has, are made with the module and are no weights.
    expected = {
        key: value
        for key, value in backbone.state_dict().items()
        if value.is_floating_point() or key.endswith('num_batches_tracked')
    }
    match = checkpoint.match(expected, which)
    match.require_complete()
    backbone.load_state_dict(match.weights, strict=False)
    return match


def _load_neck(
    weights: Mapping[str, Tensor],
    match: BackboneMatch,
    backbone: nn.Module,
    part: Mapping[str, Any] | None,
) -> nn.Module | None:
    """The attention pooling that stands beside a backbone in a file, None if there is none."""
    prefix = _beside(match.prefix)
    own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    channels = {
        int(found[1]): value.shape[1]
        for key, value in own.items()
        if (found := re.fullmatch(r'scales\.(\d+)\.logits\.0\.weight', key))
    }
    if not channels:
        return None
    if type_name(part) == MultiScaleAttentionPooling.__name__:
        neck = build_part(part)
    else:
        backbone.out_indices = tuple(_stage_with(match, width) for width in channels.values())
        neck = MultiScaleAttentionPooling(tuple(channels.values()))
        numbers = {old: new for new, old in enumerate(channels)}
        own = {
            re.sub(r'^scales\.(\d+)', lambda m: f'scales.{numbers[int(m[1])]}', key): value
            for key, value in own.items()
        }
    try:
        neck.load_state_dict(own)
    except RuntimeError as error:
        raise CheckpointError(f'the attention under {prefix!r} does not fit: {error}') from None
    if any(not value.isfinite().all() for value in own.values()):
        raise CheckpointError(
            f'the attention under {prefix!r} holds values that are not finite: training had '
            'diverged; take an earlier checkpoint'
        )
    return neck


def _beside(prefix: str) -> str:
    """Prefix of the neck of the network whose backbone has a prefix."""
    for backbone, neck in (('backbone.', 'neck.'), ('module.0.', 'module.1.')):
        if prefix.endswith(backbone):
            return prefix.removesuffix(backbone) + neck
    return 'neck.'


def _stage_with(match: BackboneMatch, width: int) -> int:
    """Number, from 0, of the ResNet's stage that gives out so many channels."""
    for key, value in match.weights.items():
        last = 'conv3' if 'layer1.0.conv3.weight' in match.weights else 'conv2'
        if key.endswith(f'.{last}.weight') and value.shape[0] == width:
            return stage_of(key) - 1
    raise CheckpointError(
        f'the attention in the file is for {width} channels, and no stage of its ResNet has so '
        'many: name the config of the run (--config)'
    )


def _no_attention(
    checkpoint: str | os.PathLike, match: BackboneMatch, model: Mapping[str, Any]
) -> str:
    neck = model.get('neck')
    pooling = f' (its neck is {type_name(neck)}' if isinstance(neck, Mapping) else ''
    if pooling and neck.get('pooling'):
        pooling += f' with pooling={neck["pooling"]!r}'
    pooling += ')' if pooling else ''
    return (
        f'{checkpoint} has no attention network{pooling}: it holds a backbone ({match.origin()}) '
        f'and nothing like {_beside(match.prefix)}scales.0.logits.0.weight. Exported backbones and '
        "other programs' checkpoints have none; name a checkpoint that pre-training with attention "
        'pooling wrote, such as work_dirs/pretrain_r50/iter_93750.pth'
    )


def _preprocessing(checkpoint: Checkpoint, model: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the network was trained on, see :data:`PREPROCESSING`."""
    if stored := checkpoint.meta.get('preprocessing'):
        return stored
    part = model.get('data_preprocessor')
    if isinstance(part, Mapping) and part.get('mean') and part.get('std'):
        order = 'rgb' if part.get('to_rgb') or part.get('bgr_to_rgb') else 'bgr'
        return dict(mean=part['mean'], std=part['std'], channel_order=order)
    return PREPROCESSING


def _normaliser(preprocessing: Mapping[str, Any], device: str) -> Callable[[Tensor], Tensor]:
    mean, std = (
        torch.tensor(preprocessing[name], device=device).view(-1, 1, 1) for name in ('mean', 'std')
    )
    is_bgr = preprocessing['channel_order'] == 'bgr'

    def normalise(images: Tensor) -> Tensor:
        images = images.to(device)
        return ((images.flip(1) if is_bgr else images).float() - mean) / std

    return normalise
