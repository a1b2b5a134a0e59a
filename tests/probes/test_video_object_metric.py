"""J and F against masks made by hand and against another program's."""

import numpy as np
import pytest

from vito_mm.probes.video_object_metric import (
    Score,
    contour_accuracy,
    region_similarity,
    score_objects,
)


def square(top, left, side, size=(100, 100)):
    mask = np.zeros(size, bool)
    mask[top : top + side, left : left + side] = True
    return mask


EMPTY = np.zeros((100, 100), bool)


def test_region_similarity():
    assert region_similarity(square(0, 0, 10), square(0, 5, 10)) == pytest.approx(50 / 150)
    assert region_similarity(EMPTY, EMPTY) == 1
    assert region_similarity(square(0, 0, 10), EMPTY) == 0


def test_contours_match_within_their_tolerance():
    # 0.008 of the diagonal of 141.4 pixels is 1.13, so two pixels.
    mask = square(20, 20, 30)
    assert contour_accuracy(mask, mask) == 1
    assert contour_accuracy(mask, square(22, 20, 30)) == 1
    assert contour_accuracy(mask, square(30, 30, 10)) == 0
    assert contour_accuracy(EMPTY, EMPTY) == 1
    assert contour_accuracy(mask, EMPTY) == contour_accuracy(EMPTY, mask) == 0


def test_half_of_a_contour():
    # Upper and left sides agree, the others are ten pixels apart.
    found = contour_accuracy(square(20, 20, 30), square(20, 20, 40))
    # 2 x 30 of 120 and 2 x 40 of 160 pixels, and those around the corners.
    assert found == pytest.approx(0.5, abs=0.04)


def test_a_mask_that_touches_the_edge_has_no_contour_there():
    rows = np.zeros((100, 100), bool)
    rows[:50] = True
    # The only contour is the line at row 49: a mask of all rows has none.
    assert contour_accuracy(rows, np.ones_like(rows)) == 0
    assert contour_accuracy(np.ones_like(rows), np.ones_like(rows)) == 1


def test_recall_and_decay():
    score = Score.of_frames([1.0, 0.9, 0.6, 0.4, 0.3])
    assert score.mean == pytest.approx(0.64)
    assert score.recall == pytest.approx(0.6)
    # Quarters: frames 1-2 and 4-5, as they share their ends.
    assert score.decay == pytest.approx(0.95 - 0.35)


def test_the_first_and_the_last_frame_do_not_count():
    mask, other = square(20, 20, 30).astype(np.uint8), square(60, 60, 20).astype(np.uint8)
    scores = score_objects([mask] * 4, [other, mask, mask, other], 1)
    assert [(j.mean, f.mean) for j, f in scores] == [(1, 1)]
    assert [j.mean for j, _ in score_objects([mask * 2] * 3, [mask * 2] * 3, 2)] == [1, 1]


def test_vos_benchmark_agrees(tmp_path):
    """https://pypi.org/project/vos-benchmark, mean J and F of each object."""
    benchmark = pytest.importorskip('vos_benchmark.benchmark').benchmark
    from PIL import Image

    from vito_mm.miniscenes.presets import get_preset
    from vito_mm.miniscenes.sequences import render_sequence

    rng = np.random.default_rng(0)
    expected = []
    for index in range(2):
        truth = [mask for _, mask in render_sequence(get_preset('tiny'), 0, index)][:9]
        # Shifted, with a hole, and with an object that is lost for a while.
        found = [np.roll(mask, rng.integers(-4, 5, 2), (0, 1)) for mask in truth]
        found[3][10:30] = 0
        found[5][found[5] == 1] = 0
        expected.append(score_objects(truth, found, int(truth[0].max())))
        for kind, masks in (('truth', truth), ('found', found)):
            folder = tmp_path / kind / f'scene{index}'
            folder.mkdir(parents=True)
            for number, mask in enumerate(masks):
                image = Image.fromarray(mask)
                image.putpalette(bytes(range(256)) * 3)
                image.save(folder / f'{number:05d}.png')
    _, (j,), (f,), _ = benchmark(
        [str(tmp_path / 'truth')], [str(tmp_path / 'found')], num_processes=1, verbose=False
    )
    objects = [pair for sequence in expected for pair in sequence]
    assert np.mean([region.mean for region, _ in objects]) == pytest.approx(j / 100, abs=1e-9)
    assert np.mean([contour.mean for _, contour in objects]) == pytest.approx(f / 100, abs=1e-9)
