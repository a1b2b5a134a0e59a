"""Feature maps of a ResNet-18 as torchvision and detectron2 would compute them."""

import torch
from torch import Tensor, nn


def stages(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Feature maps of torchvision's (and timm's) ResNet after each of its four stages."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    maps = []
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = layer(x)
        maps.append(x)
    return maps


@torch.no_grad()
def assert_same_features(found: nn.Module, reference: nn.Module) -> None:
    """Whether one of OpenMMLab's ResNets computes what torchvision's does."""
    images = torch.rand(2, 3, 64, 64)
    found.eval()  # returns None in OpenMMLab's ResNets
    for x, y in zip(found(images), stages(reference, images), strict=True):
        torch.testing.assert_close(x, y)


class _NormedConv(nn.Conv2d):
    def __init__(self, *args):
        super().__init__(*args, bias=False)
        self.norm = nn.BatchNorm2d(self.out_channels)

    def forward(self, x):
        return self.norm(super().forward(x))


class _Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = _NormedConv(inputs, outputs, 3, stride, 1)
        self.conv2 = _NormedConv(outputs, outputs, 3, 1, 1)
        if inputs != outputs:
            self.shortcut = _NormedConv(inputs, outputs, 1, stride, 0)

    def forward(self, x):
        short = self.shortcut(x) if hasattr(self, 'shortcut') else x
        return (self.conv2(self.conv1(x).relu()) + short).relu()


class Detectron2ResNet18(nn.Module):
    """The structure and names of detectron2's ResNet-18, which cannot be installed from a registry.

    https://github.com/facebookresearch/detectron2/blob/main/detectron2/modeling/backbone/resnet.py
    """

    def __init__(self):
        super().__init__()
        self.stem = nn.ModuleDict({'conv1': _NormedConv(3, 64, 7, 2, 3)})
        widths = (64, 64, 128, 256, 512)
        for stage in range(1, 5):
            inputs, outputs = widths[stage - 1 : stage + 1]
            stride = 1 if stage == 1 else 2
            blocks = _Block(inputs, outputs, stride), _Block(outputs, outputs, 1)
            self.add_module(f'res{stage + 1}', nn.Sequential(*blocks))

    def forward(self, images):
        x = nn.functional.max_pool2d(self.stem['conv1'](images).relu(), 3, 2, 1)
        maps = []
        for stage in (self.res2, self.res3, self.res4, self.res5):
            x = stage(x)
            maps.append(x)
        return maps
