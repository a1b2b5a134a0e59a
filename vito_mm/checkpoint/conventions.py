"""Conventions of a network: what it computes with its weights that their names and shapes hide.

Padding, the place of strides, the epsilon of norm layers and the input's normalisation are in no
state dict. With another convention every key loads, and the features are others: of the public VITO
checkpoint in a plain ResNet by 12 to 31 percent.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .config_parts import type_name
from .errors import CheckpointError
from .families import family_of
from .preprocessing import PREPROCESSING, declared_values, other_input, preprocessing_of

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

PADDINGS, STRIDE_PLACES = ('symmetric', 'same'), ('3x3', '1x1')
COMPUTED = ('padding', 'stride_in', 'eps', 'convolution')
FIELDS = (*COMPUTED, 'preprocessing')
"""Fields of :class:`Conventions` that are compared, first those that a backbone decides."""

SAME = 'Conv2dAdaptivePadding'  # mmcv's
_FAITHFUL = ('Conv2d', SAME, 'Conv2dSame')  # the last is timm's
RESNETS = re.compile(r'Res2?Net|ResNeXt|ResNeSt|RegNet')


@dataclass(frozen=True)
class Conventions:
    """Conventions of a file's weights or of a network.

    None stands for what a network has no part for, or what cannot be told.

    Attributes:
        padding (str, optional): Of convolutions with a stride: ``'symmetric'``, as PyTorch's, or
            ``'same'``, TensorFlow's SAME: of total ``max((ceil(n / s) - 1) s + (k - 1) d + 1 - n,
            0)`` the smaller half is on the left and on top. They agree at sides of 32 m + 1 pixels.
        stride_in (str, optional): Convolution of a bottleneck that has the stride: ``'3x3'``
            (``style='pytorch'``) or ``'1x1'`` (``'caffe'``).
        eps (float, optional): Epsilon of the norm layers.
        convolution (str, optional): ``'Conv2d'``, or the kind that changes its weights before it
            uses them, such as ``'ConvWS'``.
        preprocessing (Mapping, optional): ``mean`` and ``std`` of pixels in [0, 255], and
            ``channel_order``, ``'rgb'`` or ``'bgr'``.
        whole_image (bool): Images are resized to a square, without a crop.
        assumed (tuple[str, ...]): Names of the fields that are not known.
        origin (str): How the others are known, for messages.
        notice (str): Whose weights they are and under which licence, where that must be said.

    Raises:
        ValueError: If a field has a value that is none.
    """

    padding: str | None = 'symmetric'
    stride_in: str | None = '3x3'
    eps: float | None = 1e-5
    convolution: str | None = 'Conv2d'
    preprocessing: Mapping[str, Any] | None = field(default_factory=lambda: dict(PREPROCESSING))
    whole_image: bool = False
    assumed: tuple[str, ...] = ()
    origin: str = ''
    notice: str = ''

    def __post_init__(self) -> None:
        for name, known in (('padding', PADDINGS), ('stride_in', STRIDE_PLACES)):
            if (value := getattr(self, name)) not in (None, *known):
                raise ValueError(f'{name} must be one of {known}, got {value!r}')
        if self.eps is not None and not 0 <= self.eps < 1:
            raise ValueError(f'eps must be a small number, got {self.eps!r}')
        if self.preprocessing is not None:
            order = self.preprocessing['channel_order']
            if order not in ('rgb', 'bgr'):
                raise ValueError(f"channel_order must be 'rgb' or 'bgr', got {order!r}")

    def declare(self, text: Sequence[str]) -> 'Conventions':
        """Take in what a user knows of a file.

        Args:
            text (Sequence[str]): ``FIELD=VALUE`` of padding, stride_in, eps, convolution, mean, std
                (one number or three with commas between them, of pixels in [0, 255]) or
                channel_order, in which the mean and std are.

        Raises:
            ValueError: If there is no such field or value, or the file is known to differ.
        """
        inputs = ('mean', 'std', 'channel_order')
        changes: dict[str, Any] = {}
        before = dict(self.preprocessing or PREPROCESSING)
        preprocessing: dict[str, Any] = {}
        for each in text:
            name, _, value = each.partition('=')
            if name not in (*COMPUTED, *inputs):
                fields = ', '.join((*COMPUTED, *inputs))
                raise ValueError(f'{each!r} declares nothing: give FIELD=VALUE of {fields}')
            if name in ('mean', 'std'):
                preprocessing[name] = declared_values(name, value)
            elif name == 'channel_order':
                preprocessing[name] = value
            else:
                changes[name] = float(value) if name == 'eps' else value
        if preprocessing:
            order = before['channel_order']
            if preprocessing.get('channel_order', order) != order:
                before |= {name: before[name][::-1] for name in ('mean', 'std')}
            changes['preprocessing'] = before | preprocessing
        declared = replace(
            self, **changes, assumed=tuple(name for name in self.assumed if name not in changes)
        )
        for name in changes:
            if name not in self.assumed and getattr(declared, name) != getattr(self, name):
                raise ValueError(
                    f'{name} of this file is known, by {self.origin}, to be {getattr(self, name)!r}'
                )
        return replace(declared, origin=self.origin or ('its declaration' if text else ''))

    def said_preprocessing(self) -> dict[str, Any]:
        """The preprocessing, with ``assumed=True`` where it is."""
        known = {} if 'preprocessing' not in self.assumed else dict(assumed=True)
        return dict(self.preprocessing or PREPROCESSING) | known

    def settings(self) -> dict[str, Any]:
        """Keywords of an OpenMMLab ResNet that differ from its defaults."""
        found: dict[str, Any] = {}
        if self.padding == 'same':
            found['conv_cfg'] = dict(type=SAME)
        elif self.convolution not in (None, 'Conv2d'):
            found['conv_cfg'] = dict(type=self.convolution)
        if self.stride_in == '1x1':
            found['style'] = 'caffe'
        if self.eps is not None and not _is_near(self.eps, 1e-5):
            found['norm_cfg'] = dict(type='BN', requires_grad=True, eps=self.eps)
        return found

    def assumption(self, backbone: nn.Module, weights: Collection[str]) -> str:
        """Name what is assumed of a file and matters for a backbone; '' for nothing."""
        found, wanted = conventions_of(backbone, weights), _wanted_of(self, backbone, weights)
        fields = {
            'padding': f'{wanted.padding} padding',
            'stride_in': f'stride in the {wanted.stride_in} convolution',
            'eps': f'norm eps {wanted.eps}',
        }
        texts = [
            text
            for name, text in fields.items()
            if name in self.assumed and getattr(found, name) and getattr(wanted, name)
        ]
        if 'preprocessing' in self.assumed:
            texts.append("ImageNet's mean and std in RGB")
        return ', '.join(texts)

    def to_meta(self) -> dict[str, Any]:
        """Plain values for the metadata of an export, without the preprocessing."""
        names = (*COMPUTED, 'whole_image', 'assumed', 'origin', 'notice')
        values = {name: getattr(self, name) for name in names}
        return values | dict(assumed=list(self.assumed))


def conventions_of(
    backbone: nn.Module, weights: Collection[str], preprocessor: nn.Module | None = None
) -> Conventions:
    """Read the conventions off the modules of a backbone, and off its data preprocessor.

    Args:
        backbone (nn.Module): Of any library.
        weights (Collection[str]): Keys of the file's weights in it; other modules do not count.
        preprocessor (nn.Module, optional): Defaults to None, which leaves the input open.
    """
    paddings, places, kinds = set(), set(), set()
    epsilons: Counter[float] = Counter()
    for name, module in backbone.named_modules():
        if place := _place_of_stride(module):
            places.add(place)
        if f'{name}.weight' not in weights:
            continue
        if isinstance(eps := getattr(module, 'eps', None), (int, float)):
            epsilons[eps] += 1
        if not isinstance(kernel := getattr(module, 'kernel_size', None), tuple):
            continue
        names = [base.__name__ for base in type(module).__mro__]
        if max(kernel) > _stride(module) > 1:
            same = SAME in names or 'Conv2dSame' in names
            paddings.add('same' if same else 'symmetric')
        if isinstance(module, nn.Conv2d) and names[0] not in _FAITHFUL:
            kinds.add(names[0].removesuffix('2d'))
    return Conventions(
        padding=max(paddings, default=None),  # one that is symmetric decides
        stride_in=min(places, default=None),
        eps=epsilons.most_common(1)[0][0] if epsilons else None,
        convolution=min(kinds, default='Conv2d'),
        preprocessing=None if preprocessor is None else preprocessing_of(preprocessor),
    )


def is_deformable(module: nn.Module) -> bool:
    """True for mmcv's deformable convolutions."""
    return hasattr(module, 'deform_groups')


def _place_of_stride(module: nn.Module) -> str | None:
    """Convolution of a bottleneck that has its stride; None of another module, or without one."""
    first, second = getattr(module, 'conv1', None), getattr(module, 'conv2', None)
    if getattr(first, 'kernel_size', None) != (1, 1) or not hasattr(module, 'conv3'):
        return None
    if _stride(first) > 1:
        return '1x1'
    return '3x3' if _stride(second) > 1 else None


def _stride(module: nn.Module) -> int:
    stride = getattr(module, 'stride', 1)
    return max(stride) if isinstance(stride, tuple) else stride


def require_same_features(
    checkpoint: 'Checkpoint',
    backbone: nn.Module,
    weights: Mapping[str, Tensor],
    preprocessor: nn.Module | None = None,
    allow: bool = False,
) -> list[str]:
    """Refuse a backbone that computes other features with a file's weights than was meant.

    Args:
        checkpoint (Checkpoint): The file.
        backbone (nn.Module): The backbone that gets the weights.
        weights (Mapping): What it gets, by its own keys.
        preprocessor (nn.Module, optional): What feeds it. Defaults to None, not known.
        allow (bool): Only warn. Defaults to False.

    Returns:
        list[str]: Warnings: one text per difference from what is assumed of the file, or allowed.

    Raises:
        CheckpointError: If it differs from what is known of the file.
    """
    conventions = checkpoint.conventions
    found = list(_differences(conventions, backbone, weights, preprocessor))
    known = [text for name, text in found if name not in conventions.assumed]
    if known and not allow:
        lines = '\n'.join(f'- {text}' for text in known)
        raise CheckpointError(
            f'The config computes other features with the weights of {checkpoint} than they were '
            f'trained for, which is known by {conventions.origin}:\n{lines}\nNothing was loaded. '
            'allow_partial=True loads them all the same.'
        )
    return [text for _, text in found]


def _differences(
    wanted: Conventions,
    backbone: nn.Module,
    weights: Collection[str],
    preprocessor: nn.Module | None,
) -> Iterator[tuple[str, str]]:
    """Field and text of each convention in which a backbone differs from a file."""
    found = conventions_of(backbone, weights, preprocessor)
    wanted = _wanted_of(wanted, backbone, weights)
    if _differ(found.padding, wanted.padding):
        yield 'padding', _other_padding(wanted, backbone)
    if _differ(found.convolution, wanted.convolution):
        kind = type_name(getattr(backbone, 'conv_cfg', None)) or found.convolution
        right = 'None' if wanted.convolution == 'Conv2d' else f'dict(type={wanted.convolution!r})'
        yield (
            'convolution',
            f"conv_cfg=dict(type='{kind}') computes something else with the same weights (ConvWS "
            f'and ConvAWS standardise them). Set backbone=dict(conv_cfg={right})',
        )
    if _differ(found.stride_in, wanted.stride_in):
        style, right = ('caffe', 'pytorch') if wanted.stride_in == '3x3' else ('pytorch', 'caffe')
        yield (
            'stride_in',
            f'style={style!r} moves the stride of a stage from its {wanted.stride_in} to its '
            f'{found.stride_in} convolution, which sees other positions than the trained ones. Set '
            f'backbone=dict(style={right!r})',
        )
    if found.eps is not None and (eps := wanted.eps) is not None and not _is_near(found.eps, eps):
        norm_cfg = dict(type='LN' if family_of(weights) else 'BN')
        norm_cfg |= dict(getattr(backbone, 'norm_cfg', None) or {}, eps=eps)
        said = ', '.join(f'{key}={value!r}' for key, value in norm_cfg.items())
        yield (
            'eps',
            f'norm_cfg.eps={found.eps:g} instead of {eps:g}: channels of small variance get '
            f'another scale. Set backbone=dict(norm_cfg=dict({said}))',
        )
    if found.preprocessing is not None and wanted.preprocessing is not None:
        text = other_input(found.preprocessing, wanted.preprocessing)
        if text:
            yield 'preprocessing', text


def _differ(found: str | None, wanted: str | None) -> bool:
    return None not in (found, wanted) and found != wanted


def _wanted_of(wanted: Conventions, backbone: nn.Module, weights: Iterable[str]) -> Conventions:
    """A file's conventions without assumptions about ResNets where the backbone is none.

    EfficientNet, say, has SAME padding by its architecture. The epsilon of a family is that of its
    authors.
    """
    if any(RESNETS.search(base.__name__) for base in type(backbone).__mro__):
        return wanted
    unknown = dict.fromkeys(name for name in COMPUTED if name in wanted.assumed)
    if 'eps' in unknown and (known := family_of(weights)) is not None:
        unknown['eps'] = known[0].eps
    return replace(wanted, **unknown)


def _is_near(found: float, wanted: float) -> bool:
    return math.isclose(found, wanted, rel_tol=0.01)


def _other_padding(wanted: Conventions, backbone: nn.Module) -> str:
    if wanted.padding == 'symmetric':
        declared = (
            '. If they come from TensorFlow or JAX and need it, say so by '
            'tools/export_checkpoint.py --declare padding=same'
        )
        return (
            f"conv_cfg=dict(type='{SAME}') pads as TensorFlow's SAME, and these weights "
            f'{"are assumed to be" if "padding" in wanted.assumed else "are"} trained with the '
            'same padding on all sides. Set backbone=dict(conv_cfg=None)'
            + (declared if 'padding' in wanted.assumed else '')
        )
    other = (
        "these weights are trained with TensorFlow's SAME padding, and the backbone pads the same "
        'on all sides: at sides other than 32 m + 1 pixels all features are others'
    )
    if any(map(is_deformable, backbone.modules())):
        return (
            f'{other}. Its deformable convolutions (dcn) take no conv_cfg, so that it cannot do '
            'otherwise: set backbone=dict(dcn=None), or train and test at sides such as 513 and '
            '1025 and set allow_partial=True'
        )
    return f"{other}. Set backbone=dict(conv_cfg=dict(type='{SAME}'))"
