"""Names of the parts of a ResNet, torchvision's and others'."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from torch import Tensor

RESNET_BLOCKS = {
    18: ('basic', (2, 2, 2, 2)),
    34: ('basic', (3, 4, 6, 3)),
    50: ('bottleneck', (3, 4, 6, 3)),
    101: ('bottleneck', (3, 4, 23, 3)),
    152: ('bottleneck', (3, 8, 36, 3)),
}
"""Kind of block and blocks per stage of each ResNet, https://arxiv.org/abs/1512.03385 table 1."""

_PLAIN = re.compile(
    r'(conv1|bn1|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01]))'
    r'\.(weight|bias|running_mean|running_var|num_batches_tracked)'
)
_CONVOLUTION = re.compile(r'layer[1-4]\.\d+\.conv[123]\.weight')
_PART_OF_RESNET = re.compile(r'(conv1|bn1|stem|layer[1-4])\.')


def resnet_keys(depth: int) -> list[str]:
    """List the parameters and buffers of a ResNet of a depth, without the classifier.

    The names are torchvision's, which timm, mmpretrain, mmdet and mmseg use as well.
    """
    kind, blocks = RESNET_BLOCKS[depth]
    convs = 3 if kind == 'bottleneck' else 2
    layers = [('conv1', 'bn1')]
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            name = f'layer{stage}.{block}'
            layers += [(f'{name}.conv{i}', f'{name}.bn{i}') for i in range(1, convs + 1)]
            if block == 0 and (stage > 1 or kind == 'bottleneck'):
                layers.append((f'{name}.downsample.0', f'{name}.downsample.1'))
    norm_parts = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
    keys = []
    for conv, norm in layers:
        keys.append(f'{conv}.weight')
        keys += [f'{norm}.{part}' for part in norm_parts]
    return keys


def depth_of(keys: Iterable[str]) -> int | None:
    """Depth of the ResNet whose convolutions are among some of torchvision's names, if any."""
    return _depths().get(_convolutions(keys))


@cache
def _depths() -> dict[frozenset[str], int]:
    return {_convolutions(resnet_keys(depth)): depth for depth in RESNET_BLOCKS}


def _convolutions(keys: Iterable[str]) -> frozenset[str]:
    return frozenset(key for key in keys if _CONVOLUTION.fullmatch(key))


def has_plain_width(weights: Mapping[str, Tensor]) -> bool:
    """Tell a ResNet of any width from a ResNeXt and a wide ResNet by its first block."""
    last = weights.get('layer1.0.conv3.weight')
    if last is None:
        return True
    outputs, inputs = weights['layer1.0.conv2.weight'].shape[:2]
    return inputs == outputs == last.shape[1] and last.shape[0] == 4 * outputs


def is_plain(key: str) -> bool:
    """True for a key that every ResNet of enough depth has."""
    return _PLAIN.fullmatch(key) is not None


def is_part_of_resnet(key: str) -> bool:
    """True for a key in the stem or a stage of a ResNet, plain or with additions."""
    return _PART_OF_RESNET.match(key) is not None


def stage_of(key: str) -> int:
    """Stage of a key, 1 to 4, or 0 for the stem and everything else."""
    found = re.match(r'layer([1-4])\.', key)
    return int(found[1]) if found else 0


_TO_DETECTRON2 = (
    (r'^conv1\.', 'stem.conv1.'),
    (r'^bn1\.', 'stem.conv1.norm.'),
    (r'^layer(\d)\.', lambda m: f'res{int(m[1]) + 1}.'),
    (r'\.bn(\d)\.', r'.conv\1.norm.'),
    (r'\.downsample\.0\.', '.shortcut.'),
    (r'\.downsample\.1\.', '.shortcut.norm.'),
)
_FROM_DETECTRON2 = (
    (r'(^|\.)stem\.fc\.', r'\1fc.'),  # as its converter calls torchvision's classifier
    (r'(^|\.)stem\.conv1\.norm\.', r'\1bn1.'),
    (r'(^|\.)stem\.conv1\.', r'\1conv1.'),
    (r'(^|\.)res([2-5])\.(?=\d)', lambda m: f'{m[1]}layer{int(m[2]) - 1}.'),
    (r'\.conv(\d)\.norm\.', r'.bn\1.'),
    (r'\.shortcut\.norm\.', '.downsample.1.'),
    (r'\.shortcut\.', '.downsample.0.'),
)
# torch.nn.Sequential(*resnet.children()), as lightly and many scripts save it.
_FROM_SEQUENTIAL = (
    (r'(^|(?<!downsample)\.)0\.(?=weight$)', r'\1conv1.'),
    (
        r'(^|(?<!downsample)\.)1\.(?=(weight|bias|running_mean|running_var|num_batches_tracked)$)',
        r'\1bn1.',
    ),
    (r'(^|\.)([4-7])\.(?=\d+\.(conv|bn|downsample))', lambda m: f'{m[1]}layer{int(m[2]) - 3}.'),
)


def to_detectron2(key: str) -> str:
    """Name below detectron2's backbone, such as ``res2.0.conv2.norm.weight``.

    See https://github.com/facebookresearch/detectron2/blob/main/detectron2/modeling/backbone/resnet.py.
    """
    return _renamed(key, _TO_DETECTRON2)


def timm_pixels(preprocessing: Mapping[str, Any]) -> dict[str, list[float]]:
    """Mean and std as timm has them, of pixels in [0, 1], from those of pixels in [0, 255]."""
    return {name: [round(v / 255, 8) for v in preprocessing[name]] for name in ('mean', 'std')}


NAMINGS: dict[str, Callable[[str], str]] = {
    'torchvision': lambda key: key,
    'detectron2': lambda key: _renamed(key, _FROM_DETECTRON2),
    'sequential': lambda key: _renamed(key, _FROM_SEQUENTIAL),
}
"""For each way of naming, the function from a key, after any prefix, to torchvision's name."""


def _renamed(key: str, rules: Iterable[tuple]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key
