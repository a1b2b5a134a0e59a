"""The backbone of a checkpoint as a file for other programs."""

import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vito_mm.utils.atomic import written_aside

from .checkpoint import Checkpoint
from .errors import CheckpointError
from .layouts import depth_of, has_plain_width, timm_pixels, to_detectron2
from .reading import META

LAYOUTS = ('openmmlab', 'torchvision', 'timm', 'detectron2')
"""Programs that :func:`export_backbone` writes for. mmdet, mmseg and mmpretrain share one."""


def export_backbone(
    checkpoint: str | os.PathLike | Checkpoint,
    out: str | os.PathLike,
    which: str = 'online',
    layout: str = 'openmmlab',
) -> dict[str, Any]:
    """Write the ResNet of a checkpoint for a program, with its origin, atomically.

    Every layout can be read by VITOResNet and exported again without loss.

    - ``openmmlab``: ``state_dict`` and ``meta``, for any ResNet of mmdet, mmseg and mmpretrain by
      ``init_cfg=dict(type='Pretrained', checkpoint=FILE)``.
    - ``torchvision``, ``timm``: a bare state dict, for ``load_state_dict(..., strict=False)`` of
      ``torchvision.models.resnet50()`` (nothing is missing but ``fc``) and for
      ``timm.create_model('resnet50', num_classes=0, checkpoint_path=FILE)``. Metadata is in the
      state dict's ``_metadata``, for timm with mean and deviation of pixels in [0, 1] as
      ``pretrained_cfg``.
    - ``detectron2``: ``MODEL.WEIGHTS`` of any config with a ResNet and ``RESNETS.STRIDE_IN_1X1
      False``, ``INPUT.FORMAT "RGB"`` and the mean and deviation of the metadata.

    Args:
        checkpoint (str | os.PathLike | Checkpoint): File that :func:`.load_backbone` can read.
        out (str | os.PathLike): File to write. Its folder is made if needed. A name that ends in
            ``.safetensors`` gives that format, with the layout's names.
        which (str): ``'online'`` or ``'target'`` network. Defaults to 'online'.
        layout (str): One of :data:`LAYOUTS`. Defaults to 'openmmlab'.

    Returns:
        dict: ``state_dict`` (under the layout's names) and ``meta``: architecture, source, which,
        preprocessing (see :attr:`.Checkpoint.preprocessing`), and, where the source tells, step and
        the SHA-256 of its config.

    Raises:
        CheckpointError: If the file cannot be read, holds no complete ResNet, or one of a width
            that the program does not have.
        ValueError: If there is no such layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f'layout must be one of {LAYOUTS}, got {layout!r}')
    checkpoint = Checkpoint.read(checkpoint)
    match = checkpoint.match(which=which)
    if not match.complete:
        raise CheckpointError(
            f'{checkpoint} holds no complete ResNet-18, 34, 50, 101 or 152 under '
            f'{match.prefix!r}.\n{match.describe()}'
        )
    if not has_plain_width(match.weights):
        raise CheckpointError(f'{checkpoint} holds a ResNeXt or a wide ResNet, not a plain one')
    if layout in ('torchvision', 'timm'):
        _require_usual_width(checkpoint, match.weights, layout)
    meta = dict(
        architecture=f'resnet{depth_of(match.weights)}',
        source=match.meta.get('source', str(checkpoint)),
        which=match.which,
        preprocessing=checkpoint.preprocessing,
    )
    meta |= {key: match.meta[key] for key in ('step', 'config_sha256') if key in match.meta}
    if layout == 'timm':
        meta['pretrained_cfg'] = timm_pixels(meta['preprocessing'])
    rename = to_detectron2 if layout == 'detectron2' else str
    weights = OrderedDict(
        (rename(key), value.detach().clone().contiguous()) for key, value in match.weights.items()
    )
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(out) as unfinished:
        if out.suffix == '.safetensors':
            _save_safetensors(weights, meta, unfinished)
        else:
            torch.save(_laid_out(weights, meta, layout), unfinished)
    return dict(state_dict=weights, meta=meta)


def _require_usual_width(
    checkpoint: Checkpoint, weights: Mapping[str, Tensor], layout: str
) -> None:
    widths = {weights[f'{name}.weight'].shape[0] for name in ('conv1', 'layer1.0.conv1')}
    if widths != {64}:
        raise CheckpointError(
            f'{checkpoint} holds a ResNet-{depth_of(weights)} whose stem and first stage have '
            f'{" and ".join(map(str, sorted(widths)))} channels, and {layout} has no such model: '
            'its ResNets have 64, and no argument changes that. Use the layout openmmlab or '
            'detectron2'
        )


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
