"""The module by which others publish VITO and MoCLR weights, and files in its layout.

Written from its formula: torchvision's blocks, every convolution padded as TensorFlow's SAME, max
pooling as torchvision's, attention over the last stage and a linear classifier.
"""

import hashlib
from math import ceil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from vito_mm.checkpoint import origins

SUPERVISED_INPUT = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
)


class SameConv(nn.Conv2d):
    """Convolution whose smaller half of the padding is on the left and on top."""

    def forward(self, x: Tensor) -> Tensor:
        padding: list[int] = []
        for n, k, s, d in zip(
            x.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True
        ):
            total = max((ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
            padding = [total // 2, total - total // 2, *padding]
        return F.conv2d(
            F.pad(x, padding), self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


class Attention(nn.Module):
    """Softmax over positions of an MLP's logits; gives the weighted mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.module_list = nn.ModuleList(
            [
                nn.Conv2d(width, 2 * width, 1),
                nn.ReLU(),
                nn.Conv2d(2 * width, width, 1),
                nn.ReLU(),
                nn.Conv2d(width, 1, 1, bias=False),
            ]
        )

    def mask(self, features: Tensor) -> Tensor:
        x = features
        for module in self.module_list:
            x = module(x)
        return x.flatten(1).softmax(1).view(len(x), *x.shape[-2:])

    def forward(self, features: Tensor) -> Tensor:
        return (features * self.mask(features)[:, None]).sum((2, 3))


class Mean(nn.Module):
    """Average over positions."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3))


class Port(nn.Module):
    """ResNet-50 of the port, of any width, with random weights and running statistics."""

    def __init__(
        self,
        attention: bool = True,
        width: int = 4,
        classes: int = 7,
        strides: tuple[int, ...] = (1, 2, 2, 2),
        dilations: tuple[int, ...] = (1, 1, 1, 1),
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for stage, blocks in enumerate((3, 4, 6, 3)):
            planes, stride = width * 2**stage, strides[stage]
            layer = []
            for block in range(blocks):
                step = stride if block == 0 else 1
                shortcut = None
                if block == 0:
                    conv = nn.Conv2d(channels, 4 * planes, 1, step, bias=False)
                    shortcut = nn.Sequential(conv, nn.BatchNorm2d(4 * planes))
                layer.append(
                    Bottleneck(channels, planes, step, shortcut, dilation=dilations[stage])
                )
                channels = 4 * planes
            self.add_module(f'layer{stage + 1}', nn.Sequential(*layer))
        self.avgpool = Attention(channels) if attention else Mean()
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if type(module) is nn.Conv2d:
                module.__class__ = SameConv
        generator = torch.Generator().manual_seed(0)
        for name, value in self.state_dict().items():
            if name.endswith(('running_var', 'bn1.weight', 'bn2.weight', 'downsample.1.weight')):
                value.uniform_(0.5, 1.5, generator=generator)
            elif 'bn3.weight' in name:
                value.uniform_(0.2, 0.5, generator=generator)
            elif value.is_floating_point():
                fan_in = value[0].numel() if value.ndim > 1 else 16
                value.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
        self.eval()

    def stages(self, images: Tensor) -> list[Tensor]:
        """Feature maps of the four stages."""
        x = F.max_pool2d(self.bn1(self.conv1(images)).relu(), 3, 2, 1)
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.fc(self.avgpool(self.stages(images)[-1]))


def write_port(file: Path, attention: bool = True, **sizes: int) -> Port:
    """Write a file in the layout of the public ones."""
    model = Port(attention, **sizes)
    torch.save(model.state_dict(), file)
    return model


def write_moclr(file: Path, monkeypatch: pytest.MonkeyPatch) -> Port:
    """Write a file like that of MoCLR, which only its digest tells from others."""
    model = write_port(file, attention=False)
    digest = hashlib.sha1(file.read_bytes()).hexdigest()
    monkeypatch.setitem(origins.KNOWN_FILES, digest, origins.MOCLR)
    return model
