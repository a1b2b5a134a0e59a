"""Stills: masks, boxes and labels against an independent computation."""

import dataclasses

import cv2
import numpy as np
import pytest

from tests.helpers.pinhole import shares_of_pixels
from vito_mm.miniscenes import Difficulty, get_preset
from vito_mm.miniscenes.render import coverage
from vito_mm.miniscenes.stills import mask_box, render_probe_image, render_still

TINY = get_preset('tiny')
HARD = dataclasses.replace(TINY, difficulty=Difficulty())


@pytest.mark.parametrize(
    ('preset', 'index'),
    [*((TINY, index) for index in range(8)), *((HARD, index) for index in (0, 1, 4, 7))],
)
def test_masks_are_what_painting_in_order_leaves_visible(preset, index):
    still = render_still(preset, 1, 'coco', 'train', index)
    height, width = still.image.shape[:2]
    owner = np.full((height, width), -1)
    unsure = np.zeros((height, width), bool)
    for number, layer in [*enumerate(still.objects), *((-1, layer) for layer in still.occluders)]:
        share = shares_of_pixels(*layer, width, height)
        owner[share > 0.5] = number
        # Where about half a pixel is covered, two ways of counting may differ.
        unsure |= np.abs(share - 0.5) < 0.25
    found = np.full((height, width), -1)
    for number, mask in enumerate(still.masks):
        assert (found[mask] == -1).all(), 'masks overlap'
        found[mask] = number
    assert (found == owner)[~unsure].all()
    assert unsure.mean() < (0.1 if preset is TINY else 0.15)
    # Along the outline the renderer is a sixteenth of a pixel wider at most.
    assert (found != owner).mean() < 0.01


def masks_alone(still, layers):
    height, width = still.image.shape[:2]
    return [coverage(*layer, (width, height), supersampling=8) > 0.5 for layer in layers]


def test_the_object_in_front_hides_those_behind():
    pairs = 0
    for index in range(30):
        still = render_still(TINY, 1, 'voc', 'train', index)
        alone = masks_alone(still, still.objects)
        for back, mask in enumerate(still.masks):
            for front in range(back + 1, len(alone)):
                both = alone[back] & alone[front]
                pairs += both.any()
                assert not mask[both].any()
    assert pairs > 10, 'no still has an occlusion'


def test_occluders_hide_parts_of_objects_but_never_more_than_half():
    hidden, occluded = [], 0
    for index in range(25):
        still = render_still(HARD, 3, 'voc', 'val', index)
        front = masks_alone(still, still.occluders)
        for mask, alone in zip(still.masks, masks_alone(still, still.objects), strict=True):
            assert mask.sum() >= 0.5 * alone.sum()
            assert not any((mask & other).any() for other in front)
            occluded += any((alone & other).any() for other in front)
            hidden.append(1 - mask.sum() / alone.sum())
    assert occluded > 5
    assert max(hidden) > 0.2


def test_boxes_and_labels_follow_the_masks():
    ids = tuple(range(10, 18))
    for index in range(10):
        still = render_still(TINY, 2, 'coco', 'val', index)
        assert TINY.objects_per_still[0] <= len(still.labels) <= TINY.objects_per_still[1]
        image = still.semantic(ids, background=1)
        for label, mask, box in zip(still.labels, still.masks, still.boxes, strict=True):
            x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
            assert tuple(box) == (x, y, x + width, y + height) == mask_box(mask)
            assert (image[mask] == ids[label]).all()
        assert (image[~still.masks.any(axis=0)] == 1).all()


def test_probe_images_are_of_video_size():
    for preset, split in ((TINY, 'val'), (HARD, 'held_out')):
        image = render_probe_image(preset, 0, split, 3)
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.uint8
