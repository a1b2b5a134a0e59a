"""The renderer: geometry against a pinhole camera, and scenes of several layers."""

import dataclasses

import cv2
import numpy as np
import pytest

from tests.helpers.pinhole import pinhole, random_pose
from vito_mm.miniscenes import CLASSES, get_preset
from vito_mm.miniscenes.backgrounds import KINDS, background_pool
from vito_mm.miniscenes.objects import (
    MATERIALS,
    NO_CLASS,
    OUTLINES,
    THING_OUTLINES,
    THING_PATTERNS,
    draw_object,
    draw_outline,
    draw_tile,
    thing_pool,
)
from vito_mm.miniscenes.render import (
    Camera,
    Light,
    Pose,
    Scene,
    outline_in_image,
    paint,
    pose_matrix,
    render_scene,
    to_image,
    to_object,
)


def test_points_are_seen_where_a_pinhole_camera_sees_them_and_found_again():
    rng = np.random.default_rng(0)
    for _ in range(20):
        pose = random_pose(rng)
        points = rng.uniform(-0.7, 0.7, (20, 2))
        seen = to_image(points, pose)
        expected = np.array([pinhole(point, pose) for point in points])
        np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-9)
        back = to_object(*seen.T, pose)
        np.testing.assert_allclose(np.stack(back, axis=1), points, rtol=0, atol=1e-9)


def test_a_stiff_object_seen_from_afar_is_the_same_by_matrix_and_by_map():
    rng = np.random.default_rng(2)
    scene_object = draw_object(rng, 4, 30)
    pose = random_pose(rng)
    stiff = dataclasses.replace(pose, perspective=0.0, bend=())
    almost = dataclasses.replace(pose, perspective=0.0, bend=(0.0, 0.0, 0.0, 0.0))
    corners = stiff.centre + scene_object.outline @ pose_matrix(stiff).T
    np.testing.assert_array_equal(outline_in_image(scene_object, stiff), corners)
    grey = np.full((64, 64, 3), 0.5, np.float32)
    difference = np.abs(paint(grey, scene_object, stiff) - paint(grey, scene_object, almost))
    # cv2 places pixels to a 32nd in both.
    assert difference.max() < 0.1
    assert difference.mean() < 0.002


def test_a_scene_is_its_layers_painted_over_each_other_in_its_light():
    background = np.full((100, 100, 3), 0.4, np.float32)
    rng = np.random.default_rng(3)
    layers = tuple(
        (draw_object(rng, label, 20), random_pose(rng, hue=50.0 * label)) for label in range(3)
    )
    scene = Scene(background, Camera(np.zeros(2)), layers, Light(np.ones(3)))
    expected = np.full((64, 64, 3), 0.4, np.float32)
    for layer in layers:
        expected = paint(expected, *layer)
    difference = render_scene(scene, (64, 64)) - 255 * expected
    # A layer is painted in its box; its light and pattern are computed from there.
    assert np.abs(difference).max() < 8
    assert np.abs(difference).mean() < 0.5
    lit = dataclasses.replace(scene, light=Light(np.array([1.2, 1.0, 0.8]), 0.5, (0.0, 0.0)))
    corner = render_scene(lit, (64, 64)).astype(float)
    np.testing.assert_allclose(corner[0, 0], 255 * 0.4 * np.array([1.2, 1.0, 0.8]), atol=1)
    np.testing.assert_allclose(corner[0, -1], 255 * 0.2 * np.array([1.2, 1.0, 0.8]), atol=1)


def test_the_camera_sees_places_of_the_background_where_it_sees_things():
    background = np.zeros((100, 110, 3), np.float32)
    background[60:62, 50:52] = 1.0  # its middle lies at x = 51, y = 61
    camera = Camera(np.array([4.0, 9.0]), zoom=1.3, roll=0.4)
    picture = render_scene(Scene(background, camera, (), Light(np.ones(3))), (64, 64))
    y, x = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5, indexing='ij')
    weight = picture[..., 0].astype(float)
    centre = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
    seen = camera.see(Pose(np.array([51 - 55.0, 61 - 50.0]), 2.0), (64, 64))
    np.testing.assert_allclose(centre, seen.centre, atol=0.1)
    assert (seen.radius, seen.angle) == (2.6, 0.4)


@pytest.mark.parametrize('family', OUTLINES)
def test_outlines_fill_the_unit_disc(family):
    outlines = [draw_outline(family, np.random.default_rng(seed)) for seed in range(5)]
    assert all(0.9 < np.hypot(*outline.T).max() < 1.06 for outline in outlines)
    assert len({outline.tobytes() for outline in outlines}) > 1


@pytest.mark.parametrize('family', MATERIALS)
def test_materials_are_in_range_and_same_at_every_resolution(family):
    coarse, fine = (draw_tile(family, np.random.default_rng(4), size) for size in (60, 240))
    assert coarse.dtype == np.float32
    assert 0 <= coarse.min() <= coarse.max() <= 1
    averaged = cv2.resize(fine, (60, 60), interpolation=cv2.INTER_AREA)
    assert np.abs(coarse - averaged).mean() < 0.05
    assert np.abs(fine - draw_tile(family, np.random.default_rng(5), 240)).mean() > 0.02


def test_all_families_have_a_class_and_things_have_others():
    assert {member.outline for member in CLASSES} == set(OUTLINES)
    assert {member.material for member in CLASSES} == set(MATERIALS)
    assert len({member.name for member in CLASSES}) == len(CLASSES) == 8
    assert not set(THING_OUTLINES) & set(OUTLINES)
    assert not set(THING_PATTERNS) & set(MATERIALS)
    pool = thing_pool(0, 'video_things', 'train', 24)
    for thing in pool:
        assert thing.label == NO_CLASS
        assert 0.9 < np.hypot(*thing.outline.T).max() < 1.06
        assert 0 <= thing.tile.min() <= thing.tile.max() <= 1
    others = thing_pool(0, 'probe_things', 'val', 24)
    assert not {thing.tile.tobytes() for thing in pool} & {t.tile.tobytes() for t in others}


def test_held_out_objects_have_colours_and_patterns_that_are_drawn_nowhere_else():
    for seed in range(30):
        known, held_out = (
            draw_object(np.random.default_rng(seed), seed % len(CLASSES), 30, held_out=flag)
            for flag in (False, True)
        )
        assert known.colours[0, 2] < known.colours[1, 2]
        assert held_out.colours[0, 2] > held_out.colours[1, 2]
        assert abs(known.colours[0, 0] - known.colours[1, 0]) <= 90
        assert 90 <= abs(held_out.colours[0, 0] - held_out.colours[1, 0]) <= 270
    # The length of the edges goes with the frequency, whatever its direction.
    for family in ('stripes', 'lines'):
        known, held_out = (
            np.array(
                [edges(draw_tile(family, np.random.default_rng(s), 128, flag)) for s in range(40)]
            )
            for flag in (False, True)
        )
        apart = [np.mean(np.abs(x / np.median(known) - 1) > 0.12) for x in (held_out, known)]
        assert apart[0] > apart[1] + 0.4


def edges(tile: np.ndarray) -> float:
    return np.hypot(*np.gradient(tile.astype(np.float64))).sum()


@pytest.mark.parametrize('kind', [None, *KINDS])
def test_backgrounds_have_structure_and_each_pool_its_own(kind):
    streams = ('video_backgrounds', 'still_backgrounds', 'probe_backgrounds')
    splits = ('train', 'val', 'held_out') if kind else ('train',)
    kinds = (kind,) if kind else ()
    pools = [background_pool(0, x, 4, (32, 32), kinds, y) for x in streams for y in splits]
    for number, pool in enumerate(pools):
        assert pool.shape == (4, 51, 51, 3)
        assert 0 <= pool.min() <= pool.max() <= 1
        assert pool.std(axis=(1, 2)).mean() > 0.02
        assert kind or pool.mean() > 0.6, 'simple backgrounds are pale'
        assert all(np.abs(pool - other).mean() > 0.02 for other in pools[number + 1 :])


@pytest.mark.parametrize('name', ['study_small', 'study'])
def test_stills_have_other_kinds_of_backgrounds_than_videos(name):
    difficulty = get_preset(name).difficulty
    assert not set(difficulty.backgrounds) & set(difficulty.other_backgrounds)
    assert set(difficulty.backgrounds) | set(difficulty.other_backgrounds) == set(KINDS)
