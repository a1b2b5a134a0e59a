"""Robustness tests with a classifier of plain colours, counted by hand."""

import json
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from vito_mm.probes.classification_head import imagenet_classes
from vito_mm.probes.image_folders import ProbeError
from vito_mm.probes.robustness import (
    ALEXNET_ERRORS,
    Classifier,
    adversarial_accuracy,
    corruption_accuracies,
    corruption_folders,
    corruption_summary,
    made_corruptions,
    video_robustness,
)
from vito_mm.probes.robustness_suite import check_data
from vito_mm.videos.frames import View

CLASSES = ('red', 'green', 'blue', 'grey')
COLOURS = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]]).float()


@pytest.fixture
def classifier():
    """The class is the nearest colour."""
    return Classifier(
        lambda x: -torch.cdist(x.float().mean(dim=(1, 2)), COLOURS), CLASSES, View(40, 32)
    )


def write(file, colour: Sequence[int], size=(48, 40)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, tuple(colour)).save(file)


def test_only_the_classes_of_the_data_count(classifier, tmp_path):
    # A pale red is nearest to grey, and grey is no class of these data.
    write(tmp_path / 'red' / '0.png', (170, 100, 100))
    write(tmp_path / 'green' / '0.png', (10, 240, 20))
    write(tmp_path / 'green' / '1.png', (240, 10, 20))
    assert adversarial_accuracy(classifier, tmp_path) == pytest.approx(200 / 3)
    write(tmp_path / 'grey' / '0.png', (120, 120, 120))
    assert adversarial_accuracy(classifier, tmp_path) == pytest.approx(50)


def test_a_class_that_the_classifier_lacks_is_named(classifier, tmp_path):
    write(tmp_path / 'pink' / '0.png', (200, 100, 100))
    with pytest.raises(ProbeError, match='pink'):
        adversarial_accuracy(classifier, tmp_path)


def test_corruptions_by_folders(classifier, tmp_path):
    for corruption, wrong in (('fog', 1), ('snow', 3)):
        for severity in range(1, 6):
            for number in range(4):
                colour = (0, 255, 0) if number < wrong and severity > 3 else (255, 0, 0)
                write(
                    tmp_path / 'weather' / corruption / str(severity) / 'red' / f'{number}.png',
                    colour,
                )
    saved = {}
    parts = corruption_folders(tmp_path)
    found = corruption_accuracies(classifier, parts, save=saved.__setitem__)
    assert found == saved
    assert found['fog/1'] == 100
    assert found['fog/4'] == 75
    assert found['snow/5'] == 25
    assert corruption_summary(found) == {'error': pytest.approx((2 * 25 + 2 * 75) / 10)}
    # What is known is not computed again.
    assert corruption_accuracies(classifier, parts, found | {'fog/1': 7.0})['fog/1'] == 7
    for file in (tmp_path / 'weather' / 'fog' / '2' / 'red').iterdir():
        file.unlink()
    (tmp_path / 'weather' / 'fog' / '2' / 'red').rmdir()
    (tmp_path / 'weather' / 'fog' / '2').rmdir()
    with pytest.raises(ProbeError, match='fog/2'):
        corruption_folders(tmp_path)


def test_classes_may_be_numbers(tmp_path):
    """Next to groups of corruptions or without them."""
    classifier = Classifier(
        lambda x: -torch.cdist(x.float().mean(dim=(1, 2)), COLOURS),
        ('1', '2', '3', '4'),
        View(40, 32),
    )
    for place in ('fog', 'weather/snow'):
        for severity in range(1, 6):
            for name, colour in (('1', (255, 0, 0)), ('2', (0, 0, 255))):
                write(tmp_path / place / str(severity) / name / '0.png', colour)
    check_data({'imagenet-c': tmp_path}, classifier.classes)
    found = corruption_accuracies(classifier, corruption_folders(tmp_path))
    assert found == {f'{name}/{n}': 50 for name in ('fog', 'snow') for n in range(1, 6)}


def test_mean_corruption_error_of_alexnet_is_100():
    accuracies = {
        f'{name}/{level}': 100 - 100 * error + 10 * (level - 3)
        for name, error in ALEXNET_ERRORS.items()
        for level in range(1, 6)
    }
    assert corruption_summary(accuracies)['mCE'] == pytest.approx(100)
    # Its mean error is published as 78.9 %... of 15 corruptions.
    assert corruption_summary(accuracies)['error'] == pytest.approx(78.9, abs=0.1)


def test_corruptions_that_are_made_repeat_and_get_worse(classifier, tmp_path):
    pytest.importorskip('corrupt_tta')
    for number in range(6):
        write(tmp_path / 'red' / f'{number}.png', (240, 10 * number, 20))
        write(tmp_path / 'grey' / f'{number}.png', (110 + number, 120, 130))
    made = made_corruptions(tmp_path)
    parts = {
        f'{kind}/{n}': made[f'{kind}/{n}'] for kind in ('gaussian_noise', 'fog') for n in (1, 5)
    }
    state = np.random.get_state()[1].copy()
    first, again = (corruption_accuracies(classifier, parts) for _ in range(2))
    assert first == again
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert first['fog/5'] < 100 == first['gaussian_noise/1']


def test_what_is_wrong_with_corruptions_is_told_beforehand(tmp_path):
    folder = tmp_path / 'c'
    for severity in range(1, 6):
        write(folder / 'fog' / str(severity) / 'red' / '0.png', (255, 0, 0))
    check_data({'imagenet-c': folder, '3dcc': folder}, CLASSES)
    (folder / 'fog' / '2' / 'green').mkdir()
    with pytest.raises(ProbeError, match='without an image: green'):
        check_data({'imagenet-c': folder}, CLASSES)
    (folder / 'fog' / '2' / 'green').rename(folder / 'fog' / '2' / 'pink')
    with pytest.raises(ProbeError, match='no class: pink'):
        check_data({'3dcc': folder}, CLASSES)
    (folder / 'fog' / '2' / 'pink').rmdir()
    (folder / 'fog' / '1' / 'red' / '0.png').unlink()
    (folder / 'fog' / '1' / 'red').rmdir()
    with pytest.raises(ProbeError, match='no sub-folders'):
        check_data({'3dcc': folder}, CLASSES)
    (folder / 'fog' / '1').rmdir()
    with pytest.raises(ProbeError, match='fog/1'):
        check_data({'3dcc': folder}, CLASSES)


def test_missing_packages_name_the_extra(tmp_path, monkeypatch):
    write(tmp_path / 'red' / '0.png', (255, 0, 0))
    for name in ('corrupt_tta', 'timm.data'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'vito_mm\[robustness\]'):
        check_data({'corrupt': tmp_path}, CLASSES)
    with pytest.raises(ImportError, match=r'vito_mm\[robustness\]'):
        imagenet_classes()


def test_indices_count_classes_by_their_names(classifier, tmp_path):
    write(tmp_path / 'a.png', (0, 0, 250))
    # By name: blue, green, grey, red; the classifier's first class is red.
    metadata = dict(pmsets={'a.png': []}, labels={'a.png': [0]})
    metadata |= dict(rev_class_idx_map={'0': [0], '1': [1, 2, 3]})
    (tmp_path / 'metadata').mkdir()
    for name, content in metadata.items():
        (tmp_path / 'metadata' / f'{name}.json').write_text(json.dumps(content))
    assert video_robustness(classifier, tmp_path)['pm-0'] == 100


def test_frames_around_an_anchor_count_together(classifier, tmp_path):
    for video, colours in {'a': 'rrr', 'b': 'rgr', 'c': 'rbr'}.items():
        for number, letter in enumerate(colours):
            colour = {'r': (255, 0, 0), 'g': (0, 255, 0), 'b': (0, 0, 255)}[letter]
            write(tmp_path / 'val' / video / f'{number}.png', colour)
    frames = {video: [f'val/{video}/{i}.png' for i in range(3)] for video in 'abc'}
    metadata = dict(
        pmsets={'val/a/1.png': [frames['a'][0], frames['a'][2]], 'val/b/0.png': frames['b'][1:]},
        labels={name: [0] for video in 'ab' for name in frames[video]},
        rev_class_idx_map={'0': [3], '1': [0, 1, 2]},
    )
    metadata['pmsets'] |= {'val/c/1.png': [frames['c'][0]]}
    metadata['labels'] |= {frames['c'][1]: [1], frames['c'][0]: [0, 1]}
    (tmp_path / 'metadata').mkdir()
    for name, content in metadata.items():
        (tmp_path / 'metadata' / f'{name}.json').write_text(json.dumps(content))
    # The anchors of a and c and their frames are right; b has a green frame next to its anchor.
    found = video_robustness(classifier, tmp_path)
    assert found == {'pm-0': 100, 'pm-10': pytest.approx(200 / 3)}
    (tmp_path / 'val' / 'a' / '0.png').unlink()
    with pytest.raises(ProbeError, match='missing'):
        video_robustness(classifier, tmp_path)
    metadata['rev_class_idx_map']['1'] = [999]
    (tmp_path / 'metadata' / 'rev_class_idx_map.json').write_text(
        json.dumps(metadata['rev_class_idx_map'])
    )
    with pytest.raises(ProbeError, match='999'):
        video_robustness(classifier, tmp_path)
