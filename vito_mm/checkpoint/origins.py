"""Where a file's conventions are known from: its content, its metadata, a config stored in it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .config_parts import parts_of, type_name
from .conventions import FIELDS, RESNETS, SAME, Conventions
from .errors import CheckpointError
from .layouts import resnet_keys
from .preprocessing import preprocessing_of_config
from .stored_config import StoredConfigError, stored_model

if TYPE_CHECKING:
    from .checkpoint import Checkpoint


def _public(name: str, folder: str) -> Conventions:
    return Conventions(
        padding='same',
        whole_image=True,
        origin=f'being {name}',
        notice=f'{name}, as published in brain-score/vision (brainscore_vision/models/{folder}), '
        'whose metadata call the licence unconfirmed',
    )


VITO = _public('the public VITO checkpoint', 'resnet50_VITO_8deg_cc')
MOCLR = _public('the public MoCLR checkpoint', 'resnet50_moclr8deg')
KNOWN_FILES = {
    '2103a1941017fdb5f58ac77e5587e7a73cd96bd8': VITO,
    'e09f117c8e10c0a38ac914aff5b335327fcd4dbf': MOCLR,
}
"""Public files by their SHA-1, of which the second has no key that tells it from others."""

PUBLIC_ATTENTION = 'avgpool.module_list.'
"""Prefix of the attention pooling of the last stage in the public VITO checkpoint."""


def file_conventions(checkpoint: 'Checkpoint') -> Conventions:
    """Find the conventions of a file's weights, and which of them are only assumed.

    Known are those of the two public checkpoints, of exported files, and of files in which MMEngine
    stored a config, which is not executed.

    Raises:
        CheckpointError: If an exported file tells conventions that there are not.
    """
    if (public := _public_file(checkpoint)) is not None:
        return public
    meta = checkpoint.meta
    try:
        found = dict(meta.get('conventions') or _of_config(checkpoint.config))
        assumed = found.pop('assumed', ())
        preprocessing = dict(meta.get('preprocessing') or {})
        if preprocessing and not preprocessing.pop('assumed', False):
            found['preprocessing'] = preprocessing
        known = [name for name in FIELDS if name in found and name not in assumed]
        if known and not found.get('origin'):
            found['origin'] = 'the config or metadata in it'
        return Conventions(**found, assumed=tuple(name for name in FIELDS if name not in known))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f'{checkpoint} tells conventions that this version of vito_mm does not know ({error})'
        ) from None


def _public_file(checkpoint: 'Checkpoint') -> Conventions | None:
    """One of the public checkpoints of ResNet-50, of any width and number of classes."""
    weights = {k.removeprefix('module.'): v for k, v in checkpoint.model_state_dict.items()}
    if weights.keys() == _TORCHVISIONS:
        return KNOWN_FILES.get(checkpoint.sha1)
    if weights.keys() != _TORCHVISIONS | _ATTENTION:
        return None
    width = len(weights['layer4.2.bn3.weight'])
    shapes = [tuple(weights[f'{PUBLIC_ATTENTION}{i}.weight'].shape) for i in (0, 2, 4)]
    is_attention = shapes == [(2 * width, width, 1, 1), (width, 2 * width, 1, 1), (1, width, 1, 1)]
    return VITO if is_attention and weights['fc.weight'].shape[1:] == (width,) else None


_TORCHVISIONS = {*resnet_keys(50), 'fc.weight', 'fc.bias'}
_ATTENTION = {
    f'{PUBLIC_ATTENTION}{name}' for name in ('0.weight', '0.bias', '2.weight', '2.bias', '4.weight')
}


def _of_config(text: str | None) -> dict[str, Any]:
    """Fields that a stored config tells."""
    try:
        model = stored_model(text or '')
    except StoredConfigError:
        return {}
    backbones = [
        _of_backbone(part)
        for place, part in parts_of(model, 'model')
        if place.endswith(('backbone', 'backbone_cfg')) and 'type' in part
    ]
    # Of several that differ it is not known which one a file is asked for.
    found = backbones[0] if backbones and all(each == backbones[0] for each in backbones) else {}
    preprocessing = preprocessing_of_config(model.get('data_preprocessor'))
    return found if preprocessing is None else found | dict(preprocessing=preprocessing)


def _of_backbone(part: Mapping[str, Any]) -> dict[str, Any]:
    eps = (part.get('norm_cfg') or {}).get('eps')  # of None and {} it is the library's
    if not RESNETS.search(part.get('stock') or type_name(part)):
        return {} if eps is None else dict(eps=eps)
    kind = type_name(part.get('conv_cfg')) or 'Conv2d'
    plain = kind in ('Conv', 'Conv2d', SAME)
    return dict(
        padding='same' if kind == SAME else 'symmetric',
        stride_in='1x1' if part.get('style') == 'caffe' else '3x3',
        eps=1e-5 if eps is None else eps,
        convolution='Conv2d' if plain else kind,
    )
