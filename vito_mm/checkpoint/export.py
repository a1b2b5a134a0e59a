"""The backbone of a checkpoint as a file for other programs."""

import json
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from torch import Tensor

from vito_mm.utils.atomic import written_aside
from vito_mm.utils.configs import read_config
from vito_mm.utils.quiet import quiet_logger

from .architectures import OF_CONVOLUTIONS, config_of_weights, timm_name
from .checkpoint import Checkpoint
from .config_parts import type_name
from .errors import CheckpointError
from .families import FAMILIES, family_of
from .layouts import depth_of, has_plain_width, timm_pixels, to_detectron2
from .loading import match_backbone
from .matching import BackboneMatch
from .reading import META
from .stored_config import StoredConfigError, build_part, stored_model

LAYOUTS = ('openmmlab', 'torchvision', 'timm', 'detectron2')
"""Programs that :func:`export_backbone` writes for. mmdet, mmseg and mmpretrain share one."""


def export_backbone(
    checkpoint: str | os.PathLike | Checkpoint,
    out: str | os.PathLike,
    which: str = 'online',
    layout: str = 'openmmlab',
    network: str | Mapping[str, Any] | None = None,
    declare: Sequence[str] = (),
    source: str | None = None,
) -> dict[str, Any]:
    """Write the backbone of a checkpoint for a program, with its origin, atomically.

    Every layout can be read by VITOBackbone and exported again without loss.

    - ``openmmlab``: ``state_dict`` and ``meta``, for mmdet, mmseg and mmpretrain by
      ``init_cfg=dict(type='Pretrained', checkpoint=FILE)``. The names are mmpretrain's, those of
      Swin after ``backbone.``, as mmdet wants them: there give ``prefix='backbone.'``, too.
    - ``torchvision``, ``timm``: a bare state dict, for ``load_state_dict(..., strict=False)`` of
      ``torchvision.models.resnet50()`` (nothing is missing but ``fc``) and for
      ``timm.create_model('resnet50', num_classes=0, checkpoint_path=FILE)``. Metadata is in the
      state dict's ``_metadata``, for timm with mean and deviation of pixels in [0, 1] as
      ``pretrained_cfg``. torchvision's is for ResNets; timm's for Swin, ConvNeXt and ViT as well,
      under the name that ``architecture`` tells.
    - ``detectron2``: ``MODEL.WEIGHTS`` of any config with a ResNet and ``RESNETS.STRIDE_IN_1X1
      False``, ``INPUT.FORMAT "RGB"`` and the mean and deviation of the metadata.

    Args:
        checkpoint (str | os.PathLike | Checkpoint): File that :func:`.load_backbone` can read.
        out (str | os.PathLike): File to write. Its folder is made if needed. A name that ends in
            ``.safetensors`` gives that format, with the layout's names.
        which (str): ``'online'`` or ``'target'`` network. Defaults to 'online'.
        layout (str): One of :data:`LAYOUTS`. Defaults to 'openmmlab'.
        network (str | Mapping, optional): Config of the run, whose backbone mmpretrain can build,
            or of the backbone. Defaults to None: ResNets, Swin, ConvNeXt and ViT are told by their
            weights, others by the config that MMEngine stores in the checkpoint.
        declare (Sequence[str]): What the file computes and does not tell, such as
            ``'padding=same'``, see :meth:`.Conventions.declare`. Defaults to nothing.
        source (str, optional): Name of the source in the metadata. Defaults to None: what the file
            tells, else its path.

    Returns:
        dict: ``state_dict`` (under the layout's names) and ``meta``: architecture, source, which,
        preprocessing (see :attr:`.Checkpoint.preprocessing`), conventions (see
        :class:`.Conventions`), and, where the source tells, step and the SHA-256 of its config.

    Raises:
        CheckpointError: If the file cannot be read or holds no complete backbone, or the layout's
            program has no such model.
        ValueError: If there is no such layout, or what is declared cannot be.
    """
    if layout not in LAYOUTS:
        raise ValueError(f'layout must be one of {LAYOUTS}, got {layout!r}')
    checkpoint = Checkpoint.read(checkpoint)
    match, architecture, config = _backbone_of(checkpoint, which, network)
    weights = _renamed(match.weights, layout, architecture, config, str(checkpoint))
    conventions = checkpoint.conventions.declare(declare)
    meta = dict(
        architecture=architecture,
        source=source or match.meta.get('source', str(checkpoint)),
        which=match.which,
        preprocessing=conventions.said_preprocessing(),
        conventions=conventions.to_meta(),
    )
    meta |= {key: match.meta[key] for key in ('step', 'config_sha256') if key in match.meta}
    if layout == 'timm':
        meta['pretrained_cfg'] = timm_pixels(meta['preprocessing'])
    weights = OrderedDict(
        (key, value.detach().clone().contiguous()) for key, value in weights.items()
    )
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(out) as unfinished:
        if out.suffix == '.safetensors':
            _save_safetensors(weights, meta, unfinished)
        else:
            torch.save(_laid_out(weights, meta, layout), unfinished)
    if conventions.notice:
        print_log(f'{out}: {conventions.notice}', 'current')
    if settings := ', '.join(f'{key}={value!r}' for key, value in conventions.settings().items()):
        told = f'computes the features of {checkpoint} by backbone=dict({settings})'
        if layout == 'openmmlab':
            print_log(f'{out}: a ResNet of OpenMMLab {told}', 'current')
        else:
            print_log(
                f'{out}: a plain ResNet of {layout} computes other features with these weights. '
                f'One of OpenMMLab {told}',
                'current',
                logging.WARNING,
            )
    return dict(state_dict=weights, meta=meta)


def _backbone_of(
    checkpoint: Checkpoint, which: str, network: str | Mapping[str, Any] | None
) -> tuple[BackboneMatch, str, dict[str, Any] | None]:
    """The complete backbone of a file, its architecture, and a config that its weights tell."""
    if network is not None:
        part, trusted = network, True
        if isinstance(network, str):
            part = (read_config(network).get('model') or {}).get('backbone')
    else:
        resnet, error = None, None
        try:
            resnet = checkpoint.match(which=which)
        except CheckpointError as reason:
            error = reason
        if resnet and resnet.complete and has_plain_width(resnet.weights):
            return resnet, f'resnet{depth_of(resnet.weights)}', None
        told = config_of_weights(checkpoint.state_dict, _network(checkpoint, which))
        part, trusted = told or _stored_backbone(checkpoint), told is not None
        if part is None:
            raise CheckpointError(f'{_no_resnet(checkpoint, resnet, error)}\n{_NAME_IT}') from None
    with DefaultScope.overwrite_default_scope('mmpretrain'), quiet_logger('WARNING'):
        try:
            backbone = build_part(part, trusted)
        except (TypeError, ValueError, AssertionError, KeyError) as error:
            raise CheckpointError(
                f'The backbone of {checkpoint} cannot be built ({error}). {_NAME_IT}'
            ) from None
        match = match_backbone(backbone, checkpoint, which)
    match.require_complete()
    depth = depth_of(match.weights)
    if match.family == 'ResNet' and depth and has_plain_width(match.weights):
        return match, f'resnet{depth}', None
    told = None
    if match.family in ('Swin', 'ConvNeXt', 'ViT'):
        told = config_of_weights(match.weights, 'online')
        if match.family == 'ViT':
            told['arch']['num_heads'] = backbone.layers[0].attn.num_heads
    kind = part.get('stock', type_name(part)).rpartition('.')[2]
    return match, (told and timm_name(told)) or kind, told


_NAME_IT = 'Name the config of the run that wrote it (--config)'


def _network(checkpoint: Checkpoint, which: str) -> str:
    return 'online' if 'which' in checkpoint.meta else which


def _stored_backbone(checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    try:
        return stored_model(checkpoint.config or '').get('backbone')
    except StoredConfigError:
        return None


def _no_resnet(checkpoint: Checkpoint, match: BackboneMatch | None, error: Exception | None) -> str:
    if match is None:
        return str(error)
    if match.complete:
        return f'{checkpoint} holds a ResNeXt or a wide ResNet, not a plain one'
    return (
        f'{checkpoint} holds no complete ResNet-18, 34, 50, 101 or 152 under '
        f'{match.prefix!r}.\n{match.describe()}'
    )


def _renamed(
    weights: Mapping[str, Tensor],
    layout: str,
    architecture: str,
    config: dict[str, Any] | None,
    file: str,
) -> Mapping[str, Tensor]:
    """Weights by the names of a layout, or a CheckpointError if its program has no such model."""
    is_resnet = config is None and architecture.startswith('resnet')
    if layout == 'openmmlab':
        is_swin = config is not None and config['type'] == 'SwinTransformer'
        return {f'backbone.{k}': v for k, v in weights.items()} if is_swin else weights
    if is_resnet:
        if layout == 'detectron2':
            return {to_detectron2(key): value for key, value in weights.items()}
        width = weights['layer1.0.conv1.weight'].shape[0]
        if width != 64 or weights['conv1.weight'].shape[0] != 64:
            raise CheckpointError(
                f'{file} holds a ResNet whose first stage has {width} channels, and {layout} has '
                f'no such model: its {architecture} has 64. Use the layout openmmlab or detectron2'
            )
        return weights
    if layout != 'timm' or config is None:
        raise CheckpointError(
            f'{file} holds a {architecture}, and the layout {layout} is for '
            f'{"ResNets, Swin, ConvNeXt and ViT" if layout == "timm" else "ResNets"}. Use the '
            'layout openmmlab'
        )
    if timm_name(config) is None:
        raise CheckpointError(
            f'{file} holds a {config["type"]} that timm has no model for: {config}. Use the layout '
            'openmmlab'
        )
    (timm,) = (
        naming
        for family in FAMILIES
        for naming in family.namings
        if naming.name == 'timm' and family_of(weights)[0] is family
    )
    theirs = timm.to_theirs(weights)
    for key, value in theirs.items():
        if re.search(r'\.mlp\.fc[12]\.weight$', key):
            is_map = architecture in OF_CONVOLUTIONS
            theirs[key] = value.reshape(*value.shape[:2], *((1, 1) if is_map else ()))
    # timm has a norm of the last output alone, and of features that it was trained for.
    theirs = {k: v for k, v in theirs.items() if not re.match(r'norm\d|ln2', k)}
    if not any(key in theirs for key in ('norm.weight', 'head.norm.weight')):
        raise CheckpointError(
            f"{file} lacks the norm of the last output, which timm's {architecture} has. Use the "
            'layout openmmlab'
        )
    return theirs


def _laid_out(weights: OrderedDict[str, Tensor], meta: dict, layout: str) -> Mapping[str, Any]:
    if layout == 'openmmlab':
        return dict(state_dict=weights, meta=meta)
    if layout == 'detectron2':
        # The author and the heuristics are what its checkpointer asks for.
        return dict(model=weights, __author__='vito_mm', matching_heuristics=True, meta=meta)
    bare = OrderedDict(weights)
    bare._metadata = {'': {'version': 1, META: meta}}
    return bare


def _save_safetensors(weights: Mapping[str, Tensor], meta: dict, file: Path) -> None:
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise ImportError(
            'Writing a .safetensors file needs safetensors. Run: pip install "vito_mm[safetensors]"'
        ) from None
    save_file(dict(weights), file, metadata={'format': 'pt', META: json.dumps(meta)})
