"""Backbones other than ResNets: the same features in every library, complete or refused."""

import pytest
import torch

from tests.helpers import backbones
from tests.helpers.backbones import FAMILIES, openmmlab_features, padded, randomised
from vito_mm.checkpoint import CheckpointError, load_backbone

CASES = [
    (family, library, place)
    for family, (_, libraries, places) in FAMILIES.items()
    for library in libraries
    for place in places
]


def _assert_same(found, wanted):
    assert len(found) == len(wanted)
    for x, y in zip(found, wanted, strict=True):
        if y.ndim == 3 and x.ndim == 4:  # mmseg gives a map of a transformer's patches
            x, y = x.flatten(2).transpose(1, 2), y[:, 1:]
        scale = y.abs().max()
        torch.testing.assert_close(x / scale, y / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize('size', [64, 75])
@pytest.mark.parametrize(('family', 'library', 'place'), CASES)
@torch.no_grad()
def test_features_are_those_of_the_file(family, library, place, size, tmp_path):
    build, _, places = FAMILIES[family]
    make, features = places[place]
    images = torch.rand(2, 3, size, size + 4)
    if family == 'ViT':
        images = images[..., : size // 4, : size // 4]
    given = images if family == 'ConvNeXt' else padded(images)
    source = randomised(make(tuple(given.shape[-2:]) if place.startswith('timm') else given.shape[-1]))
    torch.save({'model': source.state_dict()}, tmp_path / 'weights.pth')
    settings = dict(size=given.shape[-1]) if family == 'ViT' else {}
    model = build(library, **settings)
    match = load_backbone(model, tmp_path / 'weights.pth')
    assert match.complete
    assert match.naming == place.split()[0]
    assert all(key.startswith(('norm0', 'norm1', 'norm2')) for key in match.new)
    assert len(match.warnings()) == bool(match.new)
    _assert_same(openmmlab_features(model, images), features(source, given))
