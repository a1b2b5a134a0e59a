"""Packages upon OpenMMLab in the manner of its own, and a config in the manner of each.

Real ones need packages and versions of their own. What matters here is how they are built: where
their registry hangs, whether they have a ResNet, whose models they derive from, who builds the
backbone.
"""

import sys
from importlib import invalidate_caches
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import nn

_REGISTRY = """
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

MODELS = Registry(
    'model', parent=MMENGINE_MODELS, scope={name!r}, locations=['{name}.models']
)
"""

_MODELS = {
    # As mmrotate: no ResNet, mmdet's detectors, whose code builds the backbone.
    'tiny_rotate': """
from mmdet.models.detectors import SingleStageDetector
from mmengine.model import BaseModule

@MODELS.register_module()
class ReResNet(BaseModule):
    pass

@MODELS.register_module()
class RotatedFCOS(SingleStageDetector):
    pass
""",
    # As mmdet3d: no ResNet, detectors of its own upon mmdet's base class.
    'tiny_3d': """
from mmdet.models.detectors import BaseDetector

@MODELS.register_module()
class TwoSensors(BaseDetector):
    def __init__(self, img_backbone, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.img_backbone = MODELS.build(img_backbone)

    def extract_feat(self, batch_inputs):
        return self.img_backbone(batch_inputs)

    loss = predict = _forward = None
""",
    # As open-cd: models of its own upon mmseg's, and one upon mmpretrain's.
    'tiny_change': """
from mmpretrain.models.backbones import VisionTransformer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors.base import BaseSegmentor

@MODELS.register_module()
class SamTransformer(VisionTransformer):
    pass

@MODELS.register_module()
class ChangeHead(BaseDecodeHead):
    def forward(self, inputs):
        return inputs

@MODELS.register_module()
class SiamEncoderDecoder(BaseSegmentor):
    def __init__(self, backbone, pretrained=None, data_preprocessor=None):
        super().__init__(data_preprocessor)
        if pretrained is not None:
            backbone.pretrained = pretrained
        self.backbone = MODELS.build(backbone)

    loss = predict = _forward = extract_feat = encode_decode = None
""",
    # As mmocr: mmdet's ResNet under models of its own, and another network of the same name.
    'tiny_text': """
from mmdet.models.backbones import ResNet as MMDetResNet
from mmengine.model import BaseModel, BaseModule

@MODELS.register_module()
class ResNet(BaseModule):
    def __init__(self, arch_layers, arch_channels):
        super().__init__()

@MODELS.register_module()
class CLIPResNet(MMDetResNet):
    pass

@MODELS.register_module()
class DBNet(BaseModel):
    def __init__(self, backbone, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)

    def forward(self, inputs):
        return self.backbone(inputs)

@MODELS.register_module()
class MMDetWrapper(BaseModel):
    def __init__(self, cfg):
        super().__init__(dict(cfg.pop('data_preprocessor'), _scope_='mmdet'))
        self.wrapped_model = MODELS.build(dict(cfg, _scope_='mmdet'))

    def forward(self, inputs):
        return self.wrapped_model(inputs)
""",
    # As mmpose: a ResNet of its own, here without norm_eval, and DETR's frozen batch norm.
    'tiny_pose': """
import torch
from mmengine.model import BaseModel
from mmpretrain.models.backbones import ResNet as MMPretrainResNet

@MODELS.register_module()
class ResNet(MMPretrainResNet):
    def __init__(self, depth, norm_cfg=None, init_cfg=None):
        super().__init__(depth, norm_cfg=norm_cfg or dict(type='BN'), init_cfg=init_cfg)

class FrozenBatchNorm2d(torch.nn.Module):
    def __init__(self, num_features, eps=1e-5):
        super().__init__()
        for name, value in (('weight', 1), ('bias', 0), ('running_mean', 0), ('running_var', 1)):
            self.register_buffer(name, torch.full((num_features,), float(value)))
        self.eps = eps

    def forward(self, x):
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]

@MODELS.register_module()
class TopdownPoseEstimator(BaseModel):
    def __init__(self, backbone, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)

    def forward(self, inputs):
        return self.backbone(inputs)
""",
    # A package that has nothing to do with any ResNet.
    'tiny_alone': """
from mmengine.model import BaseModel

@MODELS.register_module()
class Alone(BaseModel):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = MODELS.build(backbone)

    def forward(self, inputs):
        return self.backbone(inputs)
""",
}


def _config(
    scope: str, model: str, resnet: str, preprocessor: str, place: str = 'backbone', more: str = ''
) -> str:
    return f"""
default_scope = {scope!r}
part = dict(
    type={model!r},
    {place}=dict(
        type={resnet!r},
        depth=18,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'),
    ),
    data_preprocessor=dict(
        type={preprocessor!r},
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),{more}
)
model = part
"""


_HEAD = "\n    bbox_head=dict(type='torch.nn.Identity'),"
_DETECTION = 'mmdet.ResNet', 'mmdet.DetDataPreprocessor'
CONFIGS = {
    'tiny_rotate': _config('tiny_rotate', 'RotatedFCOS', *_DETECTION, more=_HEAD),
    'tiny_3d': _config('tiny_3d', 'TwoSensors', *_DETECTION, place='img_backbone'),
    'tiny_change': _config(
        'tiny_change', 'SiamEncoderDecoder', 'mmseg.ResNetV1c', 'mmseg.SegDataPreProcessor'
    ),
    'tiny_text': _config('tiny_text', 'DBNet', *_DETECTION),
    'tiny_text_wrapper': _config(
        'tiny_text', 'SingleStageDetector', 'ResNet', 'DetDataPreprocessor', more=_HEAD
    ).replace('model = part', "model = dict(type='MMDetWrapper', cfg=part)"),
    'tiny_pose': _config(
        'tiny_pose', 'TopdownPoseEstimator', 'ResNet', 'mmengine.ImgDataPreprocessor'
    ),
    # As the pure Python configs of mmdet and mmpose: classes for names, and no default scope.
    'python_mmdet': """
from mmdet.models import ResNet, SingleStageDetector
from torch.nn import BatchNorm2d, Identity

model = dict(
    type=SingleStageDetector,
    backbone=dict(
        type=ResNet,
        depth=18,
        frozen_stages=1,
        norm_cfg=dict(type=BatchNorm2d, requires_grad=False),
        norm_eval=True,
    ),
    bbox_head=dict(type=Identity),
)
""",
    'python_pose': """
from tiny_pose.models import FrozenBatchNorm2d, ResNet, TopdownPoseEstimator

model = dict(
    type=TopdownPoseEstimator,
    backbone=dict(
        type=ResNet, depth=18, norm_cfg=dict(type=FrozenBatchNorm2d, requires_grad=False)
    ),
)
""",
}
PLACES = {'tiny_3d': 'model.img_backbone', 'tiny_text_wrapper': 'model.cfg.backbone'}
"""Where the backbone is, if it is not ``model.backbone``."""

CASES = {
    'tiny_rotate': ('mmdet.models.ResNet', ('VITOResNet', 'mmdet.VITOResNet')),
    'tiny_3d': ('mmdet.models.ResNet', ('VITOResNet', 'mmdet.VITOResNet')),
    'tiny_change': ('mmseg.models.ResNet', ('VITOResNet', 'mmseg.VITOResNet')),
    'tiny_text': ('mmdet.models.ResNet', ('VITOResNet', 'mmdet.VITOResNet')),
    'tiny_text_wrapper': ('mmdet.models.ResNet', ('VITOResNet', 'mmdet.VITOResNet')),
    'tiny_pose': ('tiny_pose.models.ResNet', ('VITOResNet', 'tiny_pose.VITOResNet')),
    'python_mmdet': ('mmdet.models.ResNet', ('VITOResNet', 'mmdet.VITOResNet', None)),
    'python_pose': ('tiny_pose.models.ResNet', ('VITOResNet', 'tiny_pose.VITOResNet', None)),
}
"""The stock class by config, and what may be written for its type; None for the class itself."""


def install(folder: Path) -> None:
    """Make the packages importable; once in a process is enough."""
    for name, models in _MODELS.items():
        (folder / name).mkdir()
        (folder / name / '__init__.py').write_text('')
        (folder / name / 'registry.py').write_text(_REGISTRY.format(name=name))
        text = f'from {name}.registry import MODELS\n{models}'
        (folder / name / 'models.py').write_text(text)
    sys.path.append(str(folder))
    invalidate_caches()


def write_config(folder: Path, name: str) -> Path:
    """Write a config as its package has it."""
    file = folder / f'{name}.py'
    file.write_text(CONFIGS[name])
    return file


def with_two_changes(base: Path, kind: str | None, checkpoint: str) -> Path:
    """Write the config of a user of ``base``: the import and the backbone's type and file."""
    file = base.with_name(f'ours_{base.name}')
    if base.stem.startswith('python'):
        name = 'VITOResNet' if kind is None else repr(kind)
        file.write_text(
            'from mmengine.config import read_base\n'
            'from vito_mm.models import VITOResNet\n'
            f'with read_base():\n    from .{base.stem} import *\n'
            f"model['backbone'].update(type={name}, checkpoint={checkpoint!r})\n"
        )
        return file
    change = f'dict(type={kind!r}, checkpoint={checkpoint!r})'
    for key in reversed(PLACES.get(base.stem, 'model.backbone').split('.')[1:]):
        change = f'dict({key}={change})'
    file.write_text(
        f'_base_ = {base.name!r}\n'
        "custom_imports = dict(imports=['vito_mm'], allow_failed_imports=False)\n"
        f'model = {change}\n'
    )
    return file


def build(cfg: Config) -> nn.Module:
    """Build a config's model as MMEngine's runner does."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        return MODELS.build(ConfigDict(cfg.model))
