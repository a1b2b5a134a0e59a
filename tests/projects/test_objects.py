"""Features and attention on the objects of the probe images, against sums over their pixels."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from projects.miniscenes_study.objects import ATTENTION, ProbeObjects
from projects.miniscenes_study.presets import PRESETS
from vito_mm.miniscenes import get_preset, make_miniscenes
from vito_mm.miniscenes.stills import render_probe_still
from vito_mm.models.necks import MultiScaleAttentionPooling
from vito_mm.probes.encoder import Encoder

PRESET = replace(PRESETS['tiny'], image_size=64)  # that of the videos: nothing is resized


class Colours(nn.Module):
    """The network that returns its input in two scales."""

    out_indices = (2, 3)

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return images, images


@pytest.fixture(scope='module')
def objects(tmp_path_factory):
    folder = tmp_path_factory.mktemp('world')
    make_miniscenes(folder, 'tiny', workers=0, tasks=('probe',), progress=False)
    return ProbeObjects.read(folder / 'probe', PRESET)


def test_masks_are_those_of_the_images(objects):
    world = get_preset('tiny')
    # Class by class, and within a class in the order of the numbers.
    order = sorted(range(16), key=lambda n: (world.label_of(n), n))
    stills = [render_probe_still(world, 0, 'val', n) for n in order]
    names = objects.labels[1].tolist()
    assert len(set(names)) == 8
    drawn = {tuple(still.masks[0].ravel()[::7]): still.image for still in stills}
    for image, mask in zip(objects.images[1], objects.masks[1], strict=True):
        still = drawn[tuple(mask[0].bool().numpy().ravel()[::7])]
        assert np.abs(image.numpy().astype(int) - still).mean() < 6  # JPEG


def voted(objects, known, found):
    """Accuracy by the definition of the vote of 20 neighbours."""
    known, found = (nn.functional.normalize(part.double(), dim=1) for part in (known, found))
    votes = torch.zeros(len(found), 8, dtype=torch.double)
    for query, cosines in enumerate(found @ known.T):
        for weight, index in zip(*cosines.topk(min(20, len(known))), strict=True):
            votes[query, objects.labels[0][index]] += (weight / 0.07).exp()
    return 100 * (votes.argmax(1) == objects.labels[1]).double().mean().item()


def test_features_over_the_object_are_sums_over_its_pixels(objects):
    encoder = Encoder(Colours(), lambda images: images.double())

    def mean_colours(part):
        images, masks = objects.images[part].double(), objects.masks[part][:, 0].bool()
        return torch.stack([image[mask].mean(0) for image, mask in zip(images, masks, strict=True)])

    accuracy = voted(objects, mean_colours(0), mean_colours(1))
    assert objects.knn(encoder) == pytest.approx(accuracy)


def test_attended_features_are_sums_weighted_by_attention(objects):
    torch.manual_seed(0)
    neck = MultiScaleAttentionPooling((3, 3))
    with torch.no_grad():
        neck.scales[1].logits[-1].weight *= 0.1  # else a single pixel has it all
    encoder = Encoder(Colours(), lambda images: images.float(), neck=neck)
    pooled = []
    for part in objects.images:
        logits = neck.scales[1].logits(part.permute(0, 3, 1, 2).float()).flatten(1).double()
        weights = logits.softmax(1)[:, :, None]
        pooled.append((weights * part.flatten(1, 2).double()).sum(1).detach())
    accuracy = voted(objects, *pooled)
    assert objects.knn_attended(encoder) == pytest.approx(accuracy)
    assert accuracy != voted(objects, *(part.double().mean((1, 2)) for part in objects.images))


def test_even_attention_has_the_share_of_the_object(objects):
    neck = MultiScaleAttentionPooling((3, 3))
    for parameter in neck.parameters():
        nn.init.zeros_(parameter)
    shares = objects.attention(Encoder(Colours(), lambda images: images.float(), neck=neck))
    assert len(shares) == 4
    assert all(name.startswith(ATTENTION) for name in shares)
    wanted = 100 * objects.masks[1].mean().item()
    assert shares == pytest.approx(dict.fromkeys(shares, wanted))


def test_attention_that_follows_the_object_is_more_than_its_mean(objects):
    masks = objects.masks[1][:, 0].double()
    shares = masks.mean(dim=(1, 2))
    followed = masks / masks.sum(dim=(1, 2), keepdim=True)
    found = objects.attention(SimpleNamespace(masks=lambda _: {'stage 5': followed.numpy()}))
    assert found[f'{ATTENTION}stage 5'] == pytest.approx(
        100 * ((masks**2).mean(dim=(1, 2)) / shares).mean().item()
    )
    expected = 100 * (masks * followed.mean(0)).sum(dim=(1, 2)).mean().item()
    assert found[f'{ATTENTION}stage 5, mean mask'] == pytest.approx(expected)
    assert found[f'{ATTENTION}stage 5'] > found[f'{ATTENTION}stage 5, mean mask']
