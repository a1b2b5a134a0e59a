"""The first frames decide: what is counted is what the classifier says of each."""

import json
import pickle

import numpy as np
import pytest
import torch
import torchvision

from tests.helpers.colours import (
    BLUE,
    GAIN,
    GREEN,
    NAMES,
    RED,
    WHOLE,
    read_frames,
    write_classifier,
    write_colours,
    write_frames,
    write_noise,
    write_taxonomy,
)
from tests.helpers.scenes import run_on
from vito_mm.curation.classifier import Classify
from vito_mm.curation.stage import StageError
from vito_mm.curation.tables import TableError
from vito_mm.probes.sources import find_source

MEAN, STD = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.fixture(scope='module')
def colours(tmp_path_factory):
    return write_classifier(tmp_path_factory.mktemp('classifier'))


def classify(stage, path, classes, **columns):
    """One row, without an engine."""
    row = dict(path=str(path), classes=classes, **columns)
    return stage.finish(row, stage.prepare(row))


def softmax(numbers):
    powers = np.exp(numbers - numbers.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_columns_are_what_the_frames_say(tmp_path, colours):
    path = write_colours(tmp_path / 'a.mp4', (RED, 5), (BLUE, 9), (GREEN, 2), (BLUE, 3))
    frames = read_frames(path)
    scores = softmax(GAIN * frames.mean((1, 2)) / 255)
    best = scores.argmax(1)
    row = classify(Classify(**colours), path, [0, 2], title='red and blue')
    assert row['labels'] == [0, 2]
    assert row['label_frames'] == [int((best == 0).sum()), int((best == 2).sum())] == [5, 12]
    assert row['label_scores'] == pytest.approx(
        [scores[best == 0, 0].max(), scores[best == 2, 2].max()], abs=1e-3
    )
    assert row['label_scores'] == [round(score, 4) for score in row['label_scores']]
    assert (row['top1'], row['frames_seen'], row['title']) == (2, 19, 'red and blue')
    assert 'dropped' not in row


def test_a_video_of_something_else_is_dropped(tmp_path, colours):
    path = write_colours(tmp_path / 'a.mp4', (RED, 5), (GREEN, 2))
    row = classify(Classify(**colours), path, [2])
    assert row['dropped'] == 'queried class is top-1 on no frame: top-1 is red'
    assert (row['top1'], row['frames_seen']) == (0, 7)
    assert 'labels' not in row
    path = write_colours(tmp_path / 'b.mp4', (BLUE, 4), (GREEN, 4))
    assert classify(Classify(**colours), path, [2])['top1'] == 1, 'the first of equals'


def test_the_hundredth_frame_counts_and_the_next_does_not(tmp_path, colours):
    stage = Classify(**colours)
    last = write_colours(tmp_path / 'last.mp4', (RED, 99), (GREEN, 10))
    row = classify(stage, last, [1])
    assert (row['labels'], row['label_frames'], row['frames_seen']) == ([1], [1], 100)
    late = write_colours(tmp_path / 'late.mp4', (RED, 100), (GREEN, 10))
    assert 'dropped' in classify(stage, late, [1])


def test_more_frames_than_one_can_be_asked_for_and_batches_change_nothing(tmp_path, colours):
    path = write_colours(tmp_path / 'a.mp4', (RED, 6), (GREEN, 3), (BLUE, 2))
    stage = Classify(**colours, min_frames=3)
    assert classify(stage, path, [1, 2])['labels'] == [1]
    row = classify(stage, path, [2])
    assert row['dropped'] == 'queried class is top-1 on too few frames: top-1 is red'
    rows = [classify(Classify(**colours, batch_size=n), path, [0, 1, 2]) for n in (1, 4, 100)]
    assert rows[0] == rows[1] == rows[2]


def test_the_test_pipeline_and_the_channels_of_a_config_are_followed(tmp_path):
    """A video that is green in the middle and red at both sides."""
    frame = np.full((48, 96, 3), RED, np.uint8)
    frame[:, 34:62] = GREEN
    path = write_frames(tmp_path / 'a.mp4', [frame] * 3)
    cut = Classify(**write_classifier(tmp_path / 'cut'))
    assert classify(cut, path, [0, 1])['labels'] == [1]
    whole = Classify(**write_classifier(tmp_path / 'whole', pipeline=WHOLE))
    assert classify(whole, path, [0, 1])['labels'] == [0]
    bgr = Classify(**write_classifier(tmp_path / 'bgr', pipeline=WHOLE, to_rgb=False))
    assert classify(bgr, path, [2])['labels'] == [2]
    assert len({json.dumps(stage.identity()) for stage in (cut, whole, bgr)}) == 3


@pytest.mark.parametrize('library', ['torchvision', 'timm', 'timm safetensors'])
def test_weights_of_libraries_give_their_own_scores(tmp_path, library):
    """Scores of every class, against the network in double precision on frames read plainly."""
    classes, torchvisions = 6, library == 'torchvision'
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=classes)
    with torch.no_grad():
        network.fc.weight.mul_(40)
    checkpoint = tmp_path / 'resnet.pth'
    if library == 'timm safetensors':
        from safetensors.torch import save_file

        checkpoint = tmp_path / 'resnet.safetensors'
        save_file(network.state_dict(), checkpoint)
    else:
        # With the prefix that DistributedDataParallel gives, as PyTorch's ImageNet example saves.
        weights = {f'module.{key}': value for key, value in network.state_dict().items()}
        torch.save(dict(state_dict=weights, epoch=90), checkpoint)
    stage = Classify(
        'torchvision:resnet18' if torchvisions else 'timm:resnet18.a1_in1k',
        str(checkpoint),
        write_taxonomy(tmp_path / 'classes.json', classes),
    )
    stage.check_settings()
    # Frames as large as they are scaled to: 256, or for timm 224 / 0.95.
    side = 256 if torchvisions else 235
    path = write_noise(tmp_path / 'a.mp4', (side, side + 31), 8, seed=0)
    top, left = (side - 224) // 2, (side + 31 - 224) // 2
    images = read_frames(path)[:, top : top + 224, left : left + 224] / 255
    images = torch.from_numpy((images - MEAN) / STD).permute(0, 3, 1, 2)
    with torch.inference_mode():
        scores = softmax(network.double().eval()(images).numpy())
    best = scores.argmax(1)
    row = classify(stage, path, list(range(classes)))
    assert row['labels'] == sorted(set(best.tolist()))
    assert row['label_frames'] == [int((best == index).sum()) for index in row['labels']]
    expected = [scores[best == index, index].max() for index in row['labels']]
    assert row['label_scores'] == pytest.approx(expected, abs=2e-4)


def test_weights_of_torchvision_bring_their_own_size():
    assert find_source('torchvision:resnet50').view().resize == 256
    assert find_source('torchvision:resnet50.IMAGENET1K_V2').view().resize == 232
    assert find_source('timm:resnet50.a1_in1k').view().crop == 224


@pytest.fixture
def rows(tmp_path):
    """Seven videos, one of them no video."""
    parts = [[RED], [GREEN], [BLUE], [RED, GREEN], [GREEN, BLUE], [BLUE, RED, GREEN]]
    paths = [
        write_colours(tmp_path / f'{index}.mp4', *((colour, 3) for colour in colours))
        for index, colours in enumerate(parts)
    ]
    (tmp_path / '6.mp4').write_bytes(bytes(range(256)) * 20)
    rows = [dict(path=str(path), classes=[0, 1], mine='x') for path in paths]
    return [*rows, dict(path=str(tmp_path / '6.mp4'), classes=[0])]


def test_a_table_becomes_the_same_table_with_any_number_of_workers(tmp_path, rows, colours):
    one, two = (
        run_on(Classify(**colours), rows, tmp_path / str(workers), workers=workers)
        for workers in (1, 2)
    )
    assert one == two
    assert [row.get('labels') for row in one] == [[0], [1], None, [0, 1], [1], [0, 1], None]
    assert [row.get('mine') for row in one] == ['x'] * 6 + [None]
    assert [row['dropped'].split(':')[0] for row in one if 'dropped' in row] == [
        'queried class is top-1 on no frame',
        'a frame cannot be decoded',
    ]


def test_the_stage_is_known_by_the_content_of_its_files(tmp_path, colours):
    stage = Classify(**colours)
    identity = stage.identity()
    assert json.loads(json.dumps(identity)) == identity
    moved = write_classifier(tmp_path / 'elsewhere')
    assert Classify(**moved, batch_size=3, device='cpu').identity() == identity
    assert Classify(**moved, frames=50).identity() != identity
    content = torch.load(moved['checkpoint'])
    content['state_dict']['head.fc.bias'][0] = 1
    torch.save(content, moved['checkpoint'])
    assert Classify(**moved).identity() != identity
    stage.check_settings()
    assert len(pickle.dumps(stage)) < 1000


def test_classes_and_outputs_of_different_number_are_told_before_any_video(tmp_path, rows):
    settings = write_classifier(tmp_path, classes=4)
    names = tmp_path / 'three.json'
    names.write_text(json.dumps(NAMES))
    stage = Classify(**settings | dict(taxonomy=str(names)))
    with pytest.raises(StageError, match=r'colours\.pth has 4 outputs.*three\.json 3 classes'):
        run_on(stage, rows, tmp_path)
    assert not list((tmp_path / 'classify').glob('part-*'))
    torch.save(torchvision.models.resnet18(num_classes=7).state_dict(), tmp_path / 'seven.pth')
    with pytest.raises(StageError, match=r'seven\.pth has 7 outputs'):
        Classify('torchvision:resnet18', f'{tmp_path}/seven.pth', str(names)).check_settings()


def test_a_checkpoint_that_does_not_fit_lists_what_differs(tmp_path, colours):
    names = write_taxonomy(tmp_path / 'classes.json', 5)
    weights = torchvision.models.resnet18(num_classes=5).state_dict()
    del weights['layer1.0.conv1.weight']
    weights['layer9.weight'] = torch.zeros(1)
    torch.save(weights, tmp_path / 'odd.pth')
    with pytest.raises(StageError) as caught:
        Classify('torchvision:resnet18', f'{tmp_path}/odd.pth', names).check_settings()
    for part in ('odd.pth', '1 missing: layer1.0.conv1.weight', '1 unexpected: layer9'):
        assert part in str(caught.value)
    weights['layer1.0.conv1.weight'] = torch.zeros(64, 64, 1, 1)
    torch.save(weights, tmp_path / 'odd2.pth')
    with pytest.raises(StageError, match=r'1 shape mismatch: .*1, 1\) -> \(64, 64, 3, 3\)'):
        Classify('torchvision:resnet18', f'{tmp_path}/odd2.pth', names).check_settings()
    with pytest.raises(StageError, match='missing'):
        Classify(**colours | dict(checkpoint=f'{tmp_path}/odd.pth')).check_settings()


@pytest.mark.parametrize(
    ('classifier', 'remedy'),
    [
        ('torchvision:resnet50', r'https://download\.pytorch\.org/models/resnet50-0676ba61\.pth'),
        ('torchvision:resnet50.IMAGENET1K_V2', r'resnet50-11ad3fa6\.pth'),
        ('timm:resnet50.a1_in1k', r'huggingface\.co/timm/resnet50\.a1_in1k'),
    ],
)
def test_without_a_checkpoint_it_is_told_where_to_get_one(classifier, remedy):
    with pytest.raises(StageError, match=rf'nothing is downloaded: get .*{remedy}'):
        Classify(classifier).check_settings()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(classifier='resnet50'), "'resnet50' is no network"),
        (dict(classifier='torchvision:resnet5'), "no classifier 'resnet5' .*mean .*'resnet50'"),
        (dict(classifier='torchvision:fcn_resnet50'), 'no classifier'),
        (dict(classifier='torchvision:resnet18.V9'), 'only IMAGENET1K_V1'),
        (dict(classifier='timm:resnet18.nobody'), 'nobody'),
        (dict(classifier='timm:resnot18'), 'timm has no model'),
        (dict(classifier='gone.py'), "no config file 'gone.py'"),
        (dict(min_frames=101), '--min-frames 101: give 1 to 100'),
    ],
)
def test_settings_that_cannot_work_are_refused(colours, changes, message):
    with pytest.raises(ValueError, match=message):
        Classify(**colours | changes).check_settings()


def test_files_that_are_missing_or_senseless_are_named(tmp_path, colours):
    with pytest.raises(StageError, match=r'gone\.pth cannot be read: No such file'):
        Classify(**colours | dict(checkpoint=f'{tmp_path}/gone.pth')).check_settings()
    (tmp_path / 'page.pth').write_text('<html>')
    with pytest.raises(StageError, match=r'page\.pth is no PyTorch checkpoint'):
        Classify(**colours | dict(checkpoint=f'{tmp_path}/page.pth')).check_settings()
    flip = "dict(type='RandomFlip'),"
    with pytest.raises(ValueError, match='RandomFlip'):
        Classify(**write_classifier(tmp_path / 'flip', pipeline=flip)).check_settings()
    with pytest.raises(ValueError, match='what size images have'):
        Classify(**write_classifier(tmp_path / 'none', pipeline='')).check_settings()


@pytest.mark.parametrize('classes', [['red'], 'red', [0.0], [True], 0])
def test_classes_of_the_user_that_are_no_indices_are_named(tmp_path, colours, classes):
    path = write_colours(tmp_path / 'a.mp4', (RED, 1))
    with pytest.raises(TableError, match=r'"classes" has .* a list of indices is wanted'):
        classify(Classify(**colours), path, classes)
    with pytest.raises(StageError, match=r'class 7, and the taxonomy .* has 3 classes'):
        classify(Classify(**colours), path, [0, 7])


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_a_gpu_gives_the_columns_of_the_cpu(tmp_path, colours):
    path = write_colours(tmp_path / 'a.mp4', (RED, 6), (GREEN, 3), (BLUE, 2))
    cpu, gpu = (
        classify(Classify(**colours, device=device), path, [0, 1, 2]) for device in ('cpu', 'cuda')
    )
    assert cpu.pop('label_scores') == pytest.approx(gpu.pop('label_scores'), abs=2e-4)
    assert cpu == gpu
