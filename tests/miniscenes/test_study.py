"""The harder worlds: masks under occluders, geometry, cuts, draws, and nothing that gives away."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from vito_mm.miniscenes import CLASSES, PRESETS, Difficulty, get_preset, make_miniscenes
from vito_mm.miniscenes.backgrounds import KINDS, rich_background_pool
from vito_mm.miniscenes.contact_sheet import write_contact_sheet
from vito_mm.miniscenes.materials import MATERIALS, draw_tile
from vito_mm.miniscenes.outlines import OUTLINES
from vito_mm.miniscenes.render import (
    Pose,
    coverage,
    draw_object,
    outline_in_image,
    paint,
    pose_matrix,
    to_image,
    to_object,
)
from vito_mm.miniscenes.scene import Camera, Light, Scene, render_scene, visible_masks
from vito_mm.miniscenes.shots import draw_scenes, draw_script
from vito_mm.miniscenes.statistics import measure_shortcuts
from vito_mm.miniscenes.stills import render_probe_image, render_still
from vito_mm.miniscenes.things import NO_CLASS, THING_OUTLINES, THING_PATTERNS, thing_pool
from vito_mm.miniscenes.videos import render_video, write_video

HARD = dataclasses.replace(get_preset('tiny'), seconds=6.0, difficulty=Difficulty())
SIZE = (HARD.video_side, HARD.video_side)


def object_position(scene):
    """Number of the layer of the video's object: the last that has a class."""
    return max(n for n, (item, _) in enumerate(scene.layers) if item.label != NO_CLASS)


def random_pose(rng, **changes):
    return Pose(
        **dict(
            centre=rng.uniform(20, 50, 2),
            radius=rng.uniform(10, 30),
            angle=rng.uniform(0, 7),
            tilt=rng.uniform(-0.9, 0.9),
            tilt_axis=rng.uniform(0, 3),
            perspective=rng.uniform(0, 0.3),
            bend=(*rng.uniform(0, 0.15, 1), 1.0, *rng.uniform(0, 0.15, 1), 4.0),
            **changes,
        )
    )


def test_the_demo_is_as_it_was_before_there_were_harder_worlds():
    demo = get_preset('demo')
    pictures = [
        (next(render_video(demo, 0, 3, np.array([1.0]))), 8, 16),
        (render_still(demo, 0, 'coco', 'train', 5).image, 10, 20),
        (render_probe_image(demo, 0, 'val', 2), 8, 16),
    ]
    # Grey values of version 3.
    known = [
        '223 223 224 227 138 226 224 223 156 191 95 225 225 224 60 196 53 224 224 224 69 200 115 '
        '223 224 222 223 60 225 223 224 223 224 227 225 223',
        '203 201 194 183 178 181 191 207 204 191 186 195 194 180 178 202 188 197 209 220 213 186 '
        '174 200 185 195 51 159 206 191 184 197 195 192 188 135 52 192 199 198 206 210 201 184 178 '
        '190 204 209',
        '198 195 197 201 203 206 201 198 67 117 198 198 203 83 64 64 180 193 190 61 207 61 60 196 '
        '94 203 57 195 198 203 199 197 191 54 199 205',
    ]
    for (picture, start, step), values in zip(pictures, known, strict=True):
        grey = picture[start::step, start::step].mean(axis=2).ravel()
        # Other versions of OpenCV may round otherwise.
        assert np.abs(grey - np.array(values.split(), float)).max() < 3


def test_simple_worlds_are_recorded_as_they_were_so_that_none_is_made_anew(tmp_path):
    arguments = dict(tasks=['probe'], num_probe_images=1, workers=1, progress=False)
    make_miniscenes(tmp_path / 'simple', preset='tiny', **arguments)
    make_miniscenes(tmp_path / 'hard', preset='study_small', **arguments)
    simple, hard = (
        json.loads((tmp_path / name / 'probe/miniscenes.json').read_text())['parameters']
        for name in ('simple', 'hard')
    )
    assert simple['version'] == 3
    assert 'difficulty' not in simple['preset']
    assert simple['counts'] == {'train': 1, 'val': 1}
    assert hard['preset']['difficulty']['shot'] == [2.0, 4.0]
    assert hard['counts'] == {'train': 1, 'val': 1, 'held_out': 1}
    root = tmp_path / 'hard'
    files = sorted(str(file.relative_to(root)) for file in root.rglob('*.jpg'))
    assert files == [f'probe/{split}/striped_disc/00000.jpg' for split in sorted(hard['counts'])]


def test_same_bytes_whatever_the_number_of_workers(tmp_path):
    arguments = dict(
        preset='study_small', seed=5, num_videos=2, num_images=2, num_probe_images=3,
        tasks=['videos', 'voc', 'coco', 'probe'], progress=False,
    )  # fmt: skip
    for workers in (1, 2):
        make_miniscenes(tmp_path / str(workers), workers=workers, **arguments)
    first, second = (
        {str(f.relative_to(root)): f.read_bytes() for f in root.rglob('*') if f.is_file()}
        for root in (tmp_path / '1', tmp_path / '2')
    )
    assert sum(name.endswith(('.jpg', '.mp4')) for name in first) == 2 + 4 + 3 + 9
    assert first == second


def test_points_are_seen_where_a_pinhole_camera_sees_them():
    rng = np.random.default_rng(0)
    for _ in range(20):
        pose = random_pose(rng)
        points = rng.uniform(-0.7, 0.7, (5, 2))
        for point, found in zip(points, to_image(points, pose), strict=True):
            np.testing.assert_allclose(found, pinhole(point, pose), rtol=0, atol=1e-9)


def pinhole(point, pose):
    """Bend a point, turn it in three dimensions about an axis, and project it."""
    u, v = point
    a, a_phase, b, b_phase = pose.bend
    v = v + a * np.sin(2.2 * u + a_phase)
    u = u + b * np.sin(2.8 * v + b_phase)
    flat = np.array([
        u * np.cos(pose.angle) - v * np.sin(pose.angle),
        u * np.sin(pose.angle) + v * np.cos(pose.angle),
        0.0,
    ])  # fmt: skip
    # Rodrigues: a turn by the tilt about an axis in the plane of the picture.
    axis = np.array([np.cos(pose.tilt_axis), np.sin(pose.tilt_axis), 0.0])
    turned = (
        flat * np.cos(pose.tilt)
        + np.cross(axis, flat) * np.sin(pose.tilt)
        + axis * (axis @ flat) * (1 - np.cos(pose.tilt))
    )
    return pose.centre + pose.radius * turned[:2] / (1 + pose.perspective * turned[2])


def test_pixels_are_found_on_the_object_where_its_points_are_seen():
    rng = np.random.default_rng(1)
    for _ in range(20):
        pose = random_pose(rng)
        points = rng.uniform(-0.7, 0.7, (50, 2))
        back = to_object(*to_image(points, pose).T, pose)
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


def inside(polygon, points):
    """Even-odd rule in float64: whether (N, 2) points lie in a polygon."""
    x, y = points.T
    result = np.zeros(len(points), bool)
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y1 != y2:
            crosses = (y1 > y) != (y2 > y)
            result ^= crosses & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return result


def shares_of_pixels(item, pose, width, height):
    """Share of each pixel that an item covers, from 8 x 8 points and edges of its own making."""
    steps = (np.arange(8) + 0.5) / 8
    y, x = np.meshgrid(
        (np.arange(height)[:, None] + steps).ravel(),
        (np.arange(width)[:, None] + steps).ravel(),
        indexing='ij',
    )
    corners = item.outline
    if pose.bend:
        ends = np.roll(corners, -1, axis=0)
        corners = np.concatenate([
            start + np.arange(0, 1, 0.05 / np.hypot(*(end - start)))[:, None] * (end - start)
            for start, end in zip(corners, ends, strict=True)
        ])  # fmt: skip
        polygon = np.array([pinhole(corner, pose) for corner in corners])
    else:
        polygon = pose.centre + corners @ pose_matrix(pose).T
    found = inside(polygon, np.stack([x.ravel(), y.ravel()], axis=1))
    return found.reshape(height, 8, width, 8).mean(axis=(1, 3))


@pytest.mark.parametrize('index', [0, 1, 4, 7])
def test_masks_of_stills_are_what_painting_in_order_leaves_to_be_seen(index):
    still = render_still(HARD, 1, 'coco', 'train', index)
    height, width = still.image.shape[:2]
    owner = np.full((height, width), -1)
    unsure = np.zeros((height, width), bool)
    layers = [*enumerate(still.objects), *((-1, layer) for layer in still.occluders)]
    for number, layer in layers:
        share = shares_of_pixels(*layer, width, height)
        owner[share > 0.5] = number
        unsure |= np.abs(share - 0.5) < 0.25
    found = np.full((height, width), -1)
    for number, mask in enumerate(still.masks):
        assert (found[mask] == -1).all(), 'masks overlap'
        found[mask] = number
    assert (found == owner)[~unsure].all()
    assert unsure.mean() < 0.15
    assert (found != owner).mean() < 0.01


def test_occluders_hide_parts_of_objects_but_never_more_than_half():
    hidden, occluded = [], 0
    for index in range(40):
        still = render_still(HARD, 3, 'voc', 'val', index)
        height, width = still.image.shape[:2]
        before = [coverage(*layer, (width, height), 8) > 0.5 for layer in still.occluders]
        for layer, mask in zip(still.objects, still.masks, strict=True):
            alone = coverage(*layer, (width, height), 8) > 0.5
            assert mask.sum() >= 0.5 * alone.sum()
            assert not any((mask & other).any() for other in before)
            occluded += any((alone & other).any() for other in before)
            hidden.append(1 - mask.sum() / alone.sum())
    assert occluded > 8
    assert max(hidden) > 0.2


def test_visible_pixels_of_a_video_are_those_of_the_last_layer_painted_there():
    for scene in draw_scenes(HARD, 0, 5, np.linspace(0, 5.9, 8)):
        owner = np.full(SIZE, -1)
        for number, layer in enumerate(scene.layers):
            owner[coverage(*layer, SIZE) > 0.5] = number
        masks = visible_masks(scene.layers, SIZE)
        for number, mask in enumerate(masks):
            np.testing.assert_array_equal(mask, owner == number)


def test_a_scene_in_even_light_is_its_layers_painted_over_each_other():
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


def test_cuts_are_where_the_manifest_says(tmp_path):
    # What moves fast could change a picture as much as a cut does.
    calm = Difficulty(occluders=(0, 0), clutter=(0, 0), companion=0.0)
    preset = dataclasses.replace(HARD, fps=25, difficulty=calm)
    rows = [write_video(tmp_path / f'{i}.mp4', preset, 0, i) for i in range(6)]
    for index, row in enumerate(rows):
        frames = _decoded(tmp_path / f'{index}.mp4')
        assert len(frames) == row['num_frames'] == 150
        jumps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
        cuts = np.round(np.array(row['cuts']) * preset.fps).astype(int)
        assert 1 <= len(cuts) <= 2
        assert set(np.argsort(jumps)[-len(cuts) :] + 1) == set(cuts.tolist())
        assert row['label'] == index
        assert CLASSES[index].title in row['title']


def _decoded(file):
    reader = cv2.VideoCapture(str(file))
    frames = []
    while (read := reader.read())[0]:
        frames.append(read[1])
    return np.array(frames, np.float32)


def test_the_object_stays_at_a_cut_and_all_else_changes():
    for index in range(8):
        script = draw_script(HARD, 0, index)
        cut = script.starts[1]
        before, after = draw_scenes(HARD, 0, index, np.array([cut - 1, cut]) / HARD.fps)
        shown = [scene.layers[object_position(scene)] for scene in (before, after)]
        assert shown[0][0].label == index
        for part in ('outline', 'tile', 'colours'):
            np.testing.assert_array_equal(*(getattr(item, part) for item, _ in shown))
        assert shown[0][1].hue != shown[1][1].hue
        assert shown[0][1].angle != shown[1][1].angle
        assert np.abs(before.camera.position - after.camera.position).max() > 0.1
        assert before.light.shadow != after.light.shadow
        companions = [
            [item.label for item, _ in scene.layers if item.label != NO_CLASS][:-1]
            for scene in (before, after)
        ]
        assert companions[0] == companions[1]


def test_frames_are_the_same_alone_and_in_sequence():
    times = np.arange(HARD.num_frames) / HARD.fps
    everything = list(render_video(HARD, 0, 2))
    cut = draw_script(HARD, 0, 2).starts[1]
    for frame in (3, cut - 1, cut, 59):
        (alone,) = render_video(HARD, 0, 2, times[frame : frame + 1])
        np.testing.assert_array_equal(everything[frame], alone)


def test_shots_companions_clutter_and_occluders_come_as_the_preset_says():
    preset = get_preset('study')
    difficulty = preset.difficulty
    scripts = [draw_script(preset, 0, index) for index in range(400)]
    shots = [np.diff(s.starts, append=preset.num_frames) / preset.fps for s in scripts]
    low, high = difficulty.shot
    assert min(lengths.min() for lengths in shots) >= low
    assert max(lengths[:-1].max() for lengths in shots if len(lengths) > 1) <= high
    assert max(lengths[-1] for lengths in shots) <= high + low
    labels = [s.objects[-1].label for s in scripts]
    assert np.bincount(labels).tolist() == [50] * 8
    companions = [s.objects[0].label for s in scripts if len(s.objects) > 1]
    share = difficulty.companion
    assert abs(len(companions) / 400 - share) < 3 * np.sqrt(share * (1 - share) / 400)
    assert set(companions) == set(range(8))
    things = set()
    for index in range(20):
        for scene in draw_scenes(preset, 0, index, np.array([1.0])):
            position = object_position(scene)
            items = [item for item, _ in scene.layers]
            behind = sum(item.label == NO_CLASS for item in items[:position])
            before = len(items) - 1 - position
            assert difficulty.clutter[0] <= behind <= difficulty.clutter[1]
            assert difficulty.occluders[0] <= before <= difficulty.occluders[1]
            things |= {id(item) for item in items if item.label == NO_CLASS}
    assert 10 < len(things) <= difficulty.things


@pytest.mark.parametrize('name', ['study_small', 'study'])
def test_occluders_pass_over_objects_that_mostly_stay_in_sight(name):
    preset = get_preset(name)
    size = (preset.video_side, preset.video_side)
    visible = []
    for index in range(24):
        for scene in draw_scenes(preset, 0, index, np.arange(0.3, preset.seconds, 0.8)):
            position = object_position(scene)
            alone = coverage(*scene.layers[position], size) > 0.5
            seen = visible_masks(scene.layers, size)[position]
            visible.append(seen.sum() / alone.sum())
            low, high = (preset.video_side * bound for bound in preset.radius)
            assert low <= scene.layers[position][1].radius <= high
    assert 0.2 < np.mean(np.array(visible) < 0.99) < 0.8
    assert np.median(visible) > 0.9
    assert np.quantile(visible, 0.03) > 0.35


def test_hue_of_an_object_changes_much_within_a_shot():
    for index in range(8):
        scenes = list(draw_scenes(HARD, 0, index, np.array([0.5, 1.25])))
        first, later = (scene.layers[object_position(scene)][1] for scene in scenes)
        assert 60 < abs(first.hue - later.hue) < 120


def test_things_have_no_outline_and_no_pattern_of_a_class():
    assert not set(THING_OUTLINES) & set(OUTLINES)
    assert not set(THING_PATTERNS) & set(MATERIALS)
    pool = thing_pool(0, 'video_things', 'train', 24)
    assert all(thing.label == NO_CLASS for thing in pool)
    for thing in pool:
        assert 0.9 < np.hypot(*thing.outline.T).max() < 1.06
        assert thing.tile.min() >= 0
        assert thing.tile.max() <= 1
    others = thing_pool(0, 'probe_things', 'val', 24)
    assert not any(np.array_equal(a.tile, b.tile) for a in pool for b in others)


@pytest.mark.parametrize('kind', KINDS)
def test_backgrounds_of_every_kind_have_structure_and_each_split_its_own(kind):
    pools = [
        rich_background_pool(0, stream, split, 3, (64, 48), (kind,))
        for stream, split in (
            ('video_backgrounds', 'train'),
            ('probe_backgrounds', 'train'),
            ('probe_backgrounds', 'val'),
        )
    ]
    for number, pool in enumerate(pools):
        assert pool.shape == (3, 77, 102, 3)
        assert pool.dtype == np.float32
        assert pool.min() >= 0
        assert pool.max() <= 1
        assert pool.std(axis=(1, 2)).mean() > 0.02
        for other in pools[number + 1 :]:
            assert np.abs(pool - other).mean() > 0.03


@pytest.mark.parametrize('name', ['study_small', 'study'])
def test_stills_have_other_kinds_of_backgrounds_than_videos(name):
    difficulty = get_preset(name).difficulty
    assert not set(difficulty.backgrounds) & set(difficulty.other_backgrounds)
    assert set(difficulty.backgrounds) | set(difficulty.other_backgrounds) == set(KINDS)


def test_held_out_objects_have_colours_and_patterns_that_are_drawn_nowhere_else():
    for seed in range(30):
        label = seed % len(CLASSES)
        known, held_out = (
            draw_object(np.random.default_rng(seed), label, 30, held_out=flag)
            for flag in (False, True)
        )
        assert known.colours[0, 2] < known.colours[1, 2]
        assert held_out.colours[0, 2] > held_out.colours[1, 2]
        assert abs(known.colours[0, 0] - known.colours[1, 0]) <= 90
        apart = abs(held_out.colours[0, 0] - held_out.colours[1, 0])
        assert 90 <= apart <= 270
    # Stripes along x, so that the number of their edges is their frequency.
    for family in ('stripes', 'lines'):
        counts = [
            [_edges(draw_tile(family, np.random.default_rng(s), 128, flag)) for s in range(40)]
            for flag in (False, True)
        ]
        known, held_out = (np.array(part) for part in counts)
        middle = np.median(known)
        share = np.mean(np.abs(held_out / middle - 1) > 0.12)
        assert share > np.mean(np.abs(known / middle - 1) > 0.12) + 0.4


def _edges(tile):
    """Length of a pattern's edges, which goes with its frequency whatever its direction."""
    rows, columns = np.gradient(tile.astype(np.float64))
    return np.hypot(rows, columns).sum()


def test_no_shortcut_tells_videos_across_time_cuts_or_classes():
    for name in ('study_small', 'study'):
        found = measure_shortcuts(name, num_videos=48)
        for feature in ('mean_colour', 'corners'):
            assert found[f'video_by_{feature}'] < 0.2
            assert found[f'video_by_{feature}_across_cut'] < 0.12
            assert found[f'class_by_{feature}'] < 0.25
            assert found[f'video_by_{feature}_at_once'] > 0.8


def test_contact_sheet_shows_the_cut_and_the_held_out_image(tmp_path):
    file = tmp_path / 'sheet.png'
    write_contact_sheet(file, HARD, seed=0)
    sheet = cv2.imread(str(file))[..., ::-1]
    cut = draw_script(HARD, 0, 0).starts[1] / HARD.fps
    (after,) = render_video(HARD, 0, 0, np.array([cut]))
    side, gap = HARD.video_side, 4
    np.testing.assert_array_equal(sheet[:side, 7 * (side + gap) :][:, :side], after)
    held_out = render_probe_image(HARD, 0, 'held_out', 16)
    np.testing.assert_array_equal(sheet[:side, 10 * (side + gap) :][:, :side], held_out)


def test_every_preset_is_written_about():
    page = (Path(__file__).parents[2] / 'docs' / 'miniscenes.md').read_text()
    assert all(f'`{name}`' in page for name in PRESETS)
