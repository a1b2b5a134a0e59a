"""Checkpoints for others: a folder for the Hugging Face Hub, and fine-tuned models alone."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vito_mm.utils.atomic import folder_written_aside, write_json, written_aside

from .checkpoint import Checkpoint
from .errors import CheckpointError
from .export import export_backbone
from .layouts import timm_pixels
from .model_card import model_card

_OF_ARCHITECTURE = ('fixed_input_size', 'pool_size', 'first_conv', 'classifier')
"""What timm's own entry says of an architecture, whatever its weights."""


def export_to_hub(
    checkpoint: str | os.PathLike | Checkpoint,
    out: str | os.PathLike,
    which: str = 'online',
    network: str | Mapping[str, Any] | None = None,
    declare: Sequence[str] = (),
) -> dict[str, Any]:
    """Write a backbone as a folder that timm loads, from the disk or from the Hugging Face Hub.

    ``timm.create_model('hf-hub:OWNER/NAME', pretrained=True)``, or ``'local-dir:OUT'`` before it
    is uploaded. It holds ``model.safetensors``, ``config.json`` and a model card, ``README.md``,
    which is filled from the record of the run (``run.json``) next to the checkpoint. timm's
    transforms cut images as :class:`vito_mm.probes.encoder.Encoder` does. The folder is complete
    or not there.

    Args:
        checkpoint (str | os.PathLike | Checkpoint): See :func:`.export_backbone`.
        out (str | os.PathLike): Folder to make.
        which (str): ``'online'`` or ``'target'`` network. Defaults to 'online'.
        network (str | Mapping, optional): See :func:`.export_backbone`. Defaults to None.
        declare (Sequence[str]): Likewise. Defaults to ().

    Returns:
        dict: ``state_dict`` under timm's names, ``meta`` and ``config``, the content of
        ``config.json``.

    Raises:
        CheckpointError: If the file cannot be read, timm has no such network, or the folder holds
            something.
        ImportError: If timm or safetensors is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ImportError('the layout huggingface needs timm. Run: pip install timm') from error
    checkpoint, out = Checkpoint.read(checkpoint), Path(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise CheckpointError(f'{out} exists. Name a new folder')
    declared = checkpoint.conventions.declare(declare)
    preprocessing = declared.said_preprocessing()
    if (order := preprocessing['channel_order']) != 'rgb':
        raise CheckpointError(f'{checkpoint} takes images in {order.upper()}, and timm gives RGB')
    if settings := declared.settings():
        said = ', '.join(f'{key}={value!r}' for key, value in settings.items())
        raise CheckpointError(
            f"{checkpoint} computes its features with {said}, and timm's networks have no such "
            'setting: another program would get other features. Use the layout openmmlab'
        )
    with folder_written_aside(out) as folder:
        weights_file = folder / 'model.safetensors'
        # Without the folders of this machine.
        source = Path(checkpoint.meta.get('source', checkpoint.path)).name
        exported = export_backbone(
            checkpoint, weights_file, which, 'timm', network, declare, source=source
        )
        name, weights = exported['meta']['architecture'], exported['state_dict']
        model = timm.create_model(name, pretrained=False, num_classes=0)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(f"{checkpoint} does not fit timm's {name}: {error}") from None
        usual = timm.get_pretrained_cfg(name).to_dict()
        pretrained_cfg = dict(
            input_size=usual['input_size'] if usual.get('fixed_input_size') else (3, 224, 224),
            interpolation='bicubic',
            crop_pct=0.875,
            crop_mode='center',
            **timm_pixels(preprocessing),
            num_classes=0,
            **{key: usual[key] for key in _OF_ARCHITECTURE if key in usual},
        )
        config = dict(
            architecture=name,
            num_classes=0,
            num_features=model.num_features,
            pretrained_cfg=pretrained_cfg,
        )
        write_json(folder / 'config.json', config, indent=2)
        card = model_card(checkpoint, exported['meta'], config, weights, out.name)
        (folder / 'README.md').write_text(card, encoding='utf-8')
    return exported | dict(config=config)


def publish_model(
    checkpoint: str | os.PathLike | Checkpoint, out: str | os.PathLike
) -> dict[str, Any]:
    """Write a model that MMEngine trained without what only training needs, safe to load.

    Its weights and their description (config, classes, palette, iteration) stay, as plain values:
    ``torch.load(weights_only=True)`` reads the file, and so do the tools of mmseg, mmdet and
    mmpretrain, with the same predictions. Optimizer, schedule and the log of training are dropped.

    Args:
        checkpoint (str | os.PathLike | Checkpoint): Checkpoint of MMEngine.
        out (str | os.PathLike): File to write, atomically. Its folder is made if needed.

    Returns:
        dict: ``state_dict`` and ``meta``.

    Raises:
        CheckpointError: If the file cannot be read, MMEngine did not write it, or ``out`` names a
            format that those tools do not read.
    """
    checkpoint, out = Checkpoint.read(checkpoint), Path(out)
    if out.suffix == '.safetensors':
        raise CheckpointError(
            f'{out}: the tools of mmseg, mmdet and mmpretrain do not read safetensors. Name a file '
            'that ends in .pth'
        )
    weights = checkpoint.content.get('state_dict')
    if not isinstance(weights, Mapping) or not isinstance(checkpoint.content.get('meta'), Mapping):
        raise CheckpointError(
            f'{checkpoint} is no checkpoint of MMEngine, with "state_dict" and "meta"'
        )
    model = dict(state_dict=weights, meta=_plain(checkpoint.content['meta']))
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(out) as unfinished:
        torch.save(model, unfinished)
    return model


def _plain(value: Any) -> Any:
    """Leave text, numbers and collections of them; arrays become lists, other objects None."""
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if isinstance(key, (str, int))}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value)) if type(value) in (list, tuple) else None
    return value if isinstance(value, (str, int, float, bool)) else None
