"""The renderer: masks against an independent computation, and what is constant in a video."""

import dataclasses

import cv2
import numpy as np
import pytest

from vito_mm.miniscenes import CLASSES, get_preset
from vito_mm.miniscenes.backgrounds import background_pool
from vito_mm.miniscenes.materials import MATERIALS, draw_tile
from vito_mm.miniscenes.outlines import OUTLINES, draw_outline
from vito_mm.miniscenes.render import coverage, pose_matrix
from vito_mm.miniscenes.statistics import measure_shortcuts, retrieval_accuracy
from vito_mm.miniscenes.stills import mask_box, render_probe_image, render_still
from vito_mm.miniscenes.videos import draw_poses, render_video

TINY = get_preset('tiny')


def inside(polygon, points):
    """Even-odd rule in float64: whether (N, 2) points lie in a polygon."""
    x, y = points.T
    result = np.zeros(len(points), bool)
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y1 != y2:
            crosses = (y1 > y) != (y2 > y)
            result ^= crosses & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return result


@pytest.mark.parametrize('index', range(12))
def test_masks_agree_with_an_independent_rasterisation(index):
    still = render_still(TINY, 1, 'coco', 'train', index)
    height, width = still.image.shape[:2]
    # A pixel belongs to the object that covers more than half of it: 8 x 8 points decide here.
    steps = (np.arange(8) + 0.5) / 8
    y, x = np.meshgrid(
        (np.arange(height)[:, None] + steps).ravel(),
        (np.arange(width)[:, None] + steps).ravel(),
        indexing='ij',
    )
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    owner = np.full((height, width), -1)
    unsure = np.zeros((height, width), bool)
    for number, (scene_object, pose) in enumerate(still.objects):
        corners = pose.centre + scene_object.outline @ pose_matrix(pose).T
        share = inside(corners, points).reshape(height, 8, width, 8).mean(axis=(1, 3))
        owner[share > 0.5] = number
        # Where about half a pixel is covered, two ways of counting may differ.
        unsure |= np.abs(share - 0.5) < 0.25
    found = np.full((height, width), -1)
    for number, mask in enumerate(still.masks):
        assert (found[mask] == -1).all(), 'masks overlap'
        found[mask] = number
    assert (found == owner)[~unsure].all()
    assert unsure.mean() < 0.1
    # Along the outline the renderer is a sixteenth of a pixel wider at most.
    assert (found != owner).mean() < 0.01


def test_the_object_in_front_hides_those_behind():
    pairs = 0
    for index in range(40):
        still = render_still(TINY, 1, 'voc', 'train', index)
        for back in range(len(still.labels)):
            alone = _mask_alone(still, back)
            for front in range(back + 1, len(still.labels)):
                both = alone & _mask_alone(still, front)
                pairs += both.any()
                assert not still.masks[back][both].any()
    assert pairs > 10, 'no still has an occlusion'


def _mask_alone(still, number):
    height, width = still.image.shape[:2]
    return coverage(*still.objects[number], (width, height), supersampling=8) > 0.5


def test_boxes_are_the_extents_of_the_masks():
    for index in range(10):
        still = render_still(TINY, 2, 'coco', 'val', index)
        assert TINY.objects_per_still[0] <= len(still.labels) <= TINY.objects_per_still[1]
        for mask, box in zip(still.masks, still.boxes, strict=True):
            x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
            assert tuple(box) == (x, y, x + width, y + height) == mask_box(mask)


def test_semantic_image_puts_ids_where_masks_are():
    still = render_still(TINY, 2, 'ade20k', 'train', 0)
    ids = tuple(range(10, 18))
    image = still.semantic(ids, background=1)
    for label, mask in zip(still.labels, still.masks, strict=True):
        assert (image[mask] == ids[label]).all()
    assert (image[~still.masks.any(axis=0)] == 1).all()


@pytest.mark.parametrize('family', OUTLINES)
def test_outlines_fill_the_unit_disc(family):
    outlines = [draw_outline(family, np.random.default_rng(seed)) for seed in range(5)]
    for outline in outlines:
        radii = np.hypot(*outline.T)
        assert 0.9 < radii.max() < 1.06
    assert any(
        outlines[0].shape != other.shape or not np.allclose(outlines[0], other)
        for other in outlines[1:]
    )


@pytest.mark.parametrize('family', MATERIALS)
def test_materials_are_in_range_and_same_at_every_resolution(family):
    coarse, fine = (draw_tile(family, np.random.default_rng(4), size) for size in (60, 240))
    assert coarse.dtype == np.float32
    assert coarse.min() >= 0
    assert coarse.max() <= 1
    averaged = cv2.resize(fine, (60, 60), interpolation=cv2.INTER_AREA)
    assert np.abs(coarse - averaged).mean() < 0.05
    assert np.abs(fine - draw_tile(family, np.random.default_rng(5), 240)).mean() > 0.02


def test_all_families_have_a_class():
    assert {member.outline for member in CLASSES} == set(OUTLINES)
    assert {member.material for member in CLASSES} == set(MATERIALS)
    assert len({member.name for member in CLASSES}) == len(CLASSES) == 8


def test_hue_and_pose_change_much_within_the_median_delay():
    preset = get_preset('demo')
    for seed in range(10):
        first, later = draw_poses(
            np.random.default_rng(seed), preset, np.array([1.0, 1.75]), preset.video_side
        )
        assert 60 < abs(first.hue - later.hue) < 120
        assert abs(first.angle - later.angle) > 1
        low, high = (preset.video_side * bound for bound in preset.radius)
        assert low - 1e-9 <= first.radius <= high + 1e-9


def test_videos_and_stills_have_other_backgrounds():
    pools = [
        background_pool(0, stream, 4, (32, 32))
        for stream in ('video_backgrounds', 'still_backgrounds', 'probe_backgrounds')
    ]
    for number, pool in enumerate(pools):
        assert pool.shape == (4, 51, 51, 3)
        assert pool.mean() > 0.6, 'backgrounds are pale'
        for other in pools[number + 1 :]:
            assert np.abs(pool - other).mean() > 0.02


def test_frames_are_the_same_alone_and_in_sequence():
    times = np.arange(TINY.num_frames) / TINY.fps
    everything = list(render_video(TINY, 0, 2))
    alone = list(render_video(TINY, 0, 2, times[7:8]))
    np.testing.assert_array_equal(everything[7], alone[0])


def test_probe_images_are_of_video_size():
    image = render_probe_image(TINY, 0, 'val', 3)
    assert image.shape == (64, 64, 3)
    assert image.dtype == np.uint8


def test_retrieval_finds_the_nearest():
    keys = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    assert retrieval_accuracy(keys + 0.1, keys) == 1.0
    assert retrieval_accuracy(keys[[1, 2, 0]], keys) == 0.0


def test_no_shortcut_tells_videos_across_time_or_classes():
    found = measure_shortcuts('demo')
    assert found['video_by_mean_colour'] < 0.15
    assert found['video_by_corners'] < 0.3
    assert found['class_by_mean_colour'] < 0.3
    assert found['class_by_corners'] < 0.3
    # The features themselves are good enough: what defeats them is change in time.
    assert found['video_by_mean_colour_at_once'] > 0.8


def test_background_of_its_own_would_be_found_out():
    own = dataclasses.replace(get_preset('demo'), backgrounds=200, pan=0.0)
    assert measure_shortcuts(own)['video_by_corners'] > 0.3
