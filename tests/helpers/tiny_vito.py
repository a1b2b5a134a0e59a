"""Networks of a few channels, and checkpoints of them as MMEngine writes them."""

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

import vito_mm  # noqa: F401  registers the parts
from vito_mm.registry import MODELS

R18 = dict(type='ResNet', depth=18, base_channels=16, stem_channels=16, out_indices=(2, 3))


def tiny_vito(
    backbone: dict = R18, channels: tuple[int, ...] = (64, 128), pooling: Any = 'attention'
) -> tuple[nn.Module, str]:
    """VITO with random weights, of attention that is far from uniform, and the text of its config.

    Args:
        backbone: Config of the backbone.
        channels: Channels of its scales.
        pooling: Pooling of the scales.
    """
    cfg = Config.fromfile(Path(__file__).parents[2] / 'configs/miniscenes/pretrain_r18.py')
    cfg.model.backbone = dict(backbone)
    cfg.model.neck.update(in_channels=channels, pooling=pooling)
    cfg.model.projector.update(in_channels=sum(channels), hid_channels=16, out_channels=8)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    for name, parameter in model.named_parameters():
        if 'scales' in name:
            nn.init.normal_(parameter, std=0.2)
    for name, buffer in model.named_buffers():
        if 'running_var' in name:
            buffer.uniform_(0.5, 1.5)
    return model, cfg.pretty_text


def save(file: Path, model: nn.Module, config: str | None = None) -> Path:
    """Write a checkpoint, with the text of a config or without."""
    meta = dict(iter=7) | (dict(cfg=config) if config is not None else {})
    torch.save(dict(state_dict=model.state_dict(), meta=meta), file)
    return file
