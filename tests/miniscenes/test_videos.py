"""Videos: cuts, what stays and what changes, and no shortcut that identifies a video or a class."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from vito_mm.miniscenes import CLASSES, PRESETS, Difficulty, get_preset, sequences
from vito_mm.miniscenes.contact_sheet import write_contact_sheet
from vito_mm.miniscenes.objects import NO_CLASS
from vito_mm.miniscenes.render import coverage, visible_masks
from vito_mm.miniscenes.statistics import measure_shortcuts, retrieval_accuracy
from vito_mm.miniscenes.stills import render_probe_image, render_still
from vito_mm.miniscenes.videos import (
    draw_poses,
    draw_scenes,
    draw_script,
    render_video,
    write_video,
)

TINY = get_preset('tiny')
HARD = dataclasses.replace(TINY, seconds=6.0, difficulty=Difficulty())


def object_position(scene):
    """Number of the layer of the video's object: the last that has a class."""
    return max(n for n, (item, _) in enumerate(scene.layers) if item.label != NO_CLASS)


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


@pytest.mark.parametrize('preset', [TINY, HARD])
def test_frames_are_the_same_alone_and_in_sequence(preset):
    times = np.arange(preset.num_frames) / preset.fps
    everything = list(render_video(preset, 0, 2))
    cut = draw_script(HARD, 0, 2).starts[1]
    for frame in (3, 7) if preset is TINY else (3, cut - 1, cut, 59):
        (alone,) = render_video(preset, 0, 2, times[frame : frame + 1])
        np.testing.assert_array_equal(everything[frame], alone)


def test_cuts_are_where_the_manifest_says(tmp_path):
    # What moves fast could change a picture as much as a cut does.
    calm = Difficulty(occluders=(0, 0), clutter=(0, 0), companion=0.0)
    preset = dataclasses.replace(HARD, fps=25, difficulty=calm)
    for index in range(3):
        row = write_video(tmp_path / f'{index}.mp4', preset, 0, index)
        reader = cv2.VideoCapture(str(tmp_path / f'{index}.mp4'))
        frames = []
        while (read := reader.read())[0]:
            frames.append(read[1].astype(np.float32))
        assert len(frames) == row['num_frames'] == 150
        jumps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
        cuts = np.round(np.array(row['cuts']) * preset.fps).astype(int)
        assert 1 <= len(cuts) <= 2
        assert set(np.argsort(jumps)[-len(cuts) :] + 1) == set(cuts.tolist())
        assert row['label'] == index
        assert CLASSES[index].title in row['title']


def test_the_object_stays_at_a_cut_and_all_else_changes():
    for index in range(8):
        cut = draw_script(HARD, 0, index).starts[1]
        before, after = draw_scenes(HARD, 0, index, np.array([cut - 1, cut]) / HARD.fps)
        shown = [scene.layers[object_position(scene)] for scene in (before, after)]
        assert shown[0][0] is shown[1][0]
        assert shown[0][0].label == index
        assert shown[0][1].hue != shown[1][1].hue
        assert shown[0][1].angle != shown[1][1].angle
        assert np.abs(before.camera.position - after.camera.position).max() > 0.1
        assert before.light.shadow != after.light.shadow
        companions = [
            [item.label for item, _ in scene.layers if item.label != NO_CLASS][:-1]
            for scene in (before, after)
        ]
        assert companions[0] == companions[1]


def test_shots_companions_clutter_and_occluders_come_as_the_preset_says():
    preset = get_preset('study')
    difficulty = preset.difficulty
    scripts = [draw_script(preset, 0, index) for index in range(400)]
    shots = [np.diff(s.starts, append=preset.num_frames) / preset.fps for s in scripts]
    low, high = difficulty.shot
    assert min(lengths.min() for lengths in shots) >= low
    assert max(lengths[:-1].max() for lengths in shots if len(lengths) > 1) <= high
    assert max(lengths[-1] for lengths in shots) <= high + low
    assert np.bincount([s.objects[-1].label for s in scripts]).tolist() == [50] * 8
    companions = [s.objects[0].label for s in scripts if len(s.objects) > 1]
    share = difficulty.companion
    assert abs(len(companions) / 400 - share) < 3 * np.sqrt(share * (1 - share) / 400)
    assert set(companions) == set(range(8))
    things = set()
    for index in range(20):
        (scene,) = draw_scenes(preset, 0, index, np.array([1.0]))
        position = object_position(scene)
        items = [item for item, _ in scene.layers]
        behind = sum(item.label == NO_CLASS for item in items[:position])
        assert difficulty.clutter[0] <= behind <= difficulty.clutter[1]
        assert difficulty.occluders[0] <= len(items) - 1 - position <= difficulty.occluders[1]
        things |= {id(item) for item in items if item.label == NO_CLASS}
    assert 10 < len(things) <= difficulty.things


@pytest.mark.parametrize('name', ['study_small', 'study'])
def test_occluders_pass_over_objects_that_mostly_stay_in_sight(name):
    preset = get_preset(name)
    size = (preset.video_side, preset.video_side)
    shares = []
    for index in range(16):
        for scene in draw_scenes(preset, 0, index, np.arange(0.3, preset.seconds, 0.8)):
            masks = np.array([coverage(*layer, size) > 0.5 for layer in scene.layers])
            visible = visible_masks(scene.layers, size)
            # A pixel belongs to the last layer painted there.
            last = len(masks) - 1 - masks[::-1].argmax(axis=0)
            for number, mask in enumerate(visible):
                np.testing.assert_array_equal(mask, masks[number] & (last == number))
            position = object_position(scene)
            shares.append(visible[position].sum() / masks[position].sum())
            low, high = (preset.video_side * bound for bound in preset.radius)
            assert low <= scene.layers[position][1].radius <= high
    assert 0.2 < np.mean(np.array(shares) < 0.99) < 0.8
    assert np.median(shares) > 0.9
    assert np.quantile(shares, 0.03) > 0.35


def test_hue_and_pose_change_much_within_the_median_delay():
    demo, times = get_preset('demo'), np.array([1.0, 1.75])
    pairs = [draw_poses(np.random.default_rng(s), demo, times, demo.video_side) for s in range(8)]
    for index in range(8):
        scenes = draw_scenes(HARD, 0, index, np.array([0.5, 1.25]))
        pairs.append([scene.layers[object_position(scene)][1] for scene in scenes])
    for first, later in pairs:
        assert 60 < abs(first.hue - later.hue) < 120
        assert abs(first.angle - later.angle) > 0.5


def test_retrieval_finds_the_nearest():
    keys = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    assert retrieval_accuracy(keys + 0.1, keys) == 1.0
    assert retrieval_accuracy(keys[[1, 2, 0]], keys) == 0.0


def test_no_shortcut_identifies_a_video_of_the_demo_unless_it_has_a_background_of_its_own():
    found = measure_shortcuts('demo')
    assert found['video_by_mean_colour'] < 0.15
    assert found['video_by_corners'] < 0.3
    assert found['class_by_mean_colour'] < 0.3
    assert found['class_by_corners'] < 0.3
    # The features themselves are good enough: what defeats them is change in time.
    assert found['video_by_mean_colour_at_once'] > 0.8
    own = dataclasses.replace(get_preset('demo'), backgrounds=200, pan=0.0)
    assert measure_shortcuts(own)['video_by_corners'] > 0.3


@pytest.mark.parametrize('name', ['study_small', 'study'])
def test_no_shortcut_identifies_videos_across_time_cuts_or_classes(name):
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


def test_contact_sheet_has_a_row_for_each_class_that_there_is(tmp_path):
    file, preset = tmp_path / 'sheet.png', dataclasses.replace(TINY, classes=(2, 5))
    write_contact_sheet(file, preset)
    sheet = cv2.imread(str(file))[..., ::-1]
    side, across, down = (TINY.video_side + more for more in (0, 4, 8))
    assert sheet.shape[0] == 2 * down + 3 * (TINY.still_size[1] + 8)
    second = sheet[down : down + side]
    for column, index in ((6, 1), (7, 3)):  # after six frames of the video
        shown = second[:, column * across : column * across + side]
        np.testing.assert_array_equal(shown, render_probe_image(preset, 0, 'val', index))


@pytest.mark.parametrize('classes', [(0, 1), (3,), (7, 2, 4)])
def test_sequences_have_the_classes_that_there_are(monkeypatch, classes):
    drawn, draw = set(), sequences.draw_object
    monkeypatch.setattr(
        sequences, 'draw_object', lambda rng, label, r: drawn.add(label) or draw(rng, label, r)
    )
    preset = dataclasses.replace(TINY, classes=classes)
    for index in range(6):
        next(sequences.render_sequence(preset, 0, index))
    assert drawn == set(classes)


def test_every_preset_is_documented():
    page = (Path(__file__).parents[2] / 'docs' / 'miniscenes.md').read_text()
    assert all(f'`{name}`' in page for name in PRESETS)
